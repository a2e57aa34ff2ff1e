"""The cost report adds up: by any dimension, over time, and in the file it is written to."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from control_plane.core.codec import from_json, to_json
from control_plane.core.cost import spend
from control_plane.errors import InvalidInput
from control_plane.reports.costs import (
    DIMENSIONS,
    CostPoint,
    CostReport,
    cost_report,
    steps,
    to_csv,
)
from tests.unit.dashboard.world import NOW, World, full_world

SINCE = NOW - timedelta(days=3)


@pytest.fixture(scope="module")
def world() -> World:
    """Five days of a fleet; nothing here changes it."""
    return full_world(days=5)


def report(world: World, *by: str, step: str = "day", **where: str) -> CostReport:
    return cost_report(world.store, by=by, since=SINCE, until=NOW, step=step, now=NOW, where=where)


@pytest.mark.parametrize("by", DIMENSIONS)
def test_rows_and_series_sum_to_the_totals_whatever_they_are_grouped_by(
    world: World, by: str
) -> None:
    found = report(world, by)
    ledger = world.store.prices_between(SINCE, NOW)
    assert found.totals.cost_usd == spend(ledger, SINCE, NOW) > 0
    for name in ("cost_usd", "work_usd", "idle_usd", "boot_usd", "on_demand_usd", "machine_hours"):
        assert sum(getattr(row, name) for row in found.rows) == getattr(found.totals, name)
    assert sum(point.cost_usd for point in found.series) == found.totals.cost_usd
    assert sum(point.on_demand_usd for point in found.series) == found.totals.on_demand_usd
    for row in (*found.rows, found.totals):
        assert row.work_usd + row.idle_usd + row.boot_usd == row.cost_usd
        assert row.on_demand_usd - row.cost_usd == row.saved_usd


def test_nobodys_time_has_rows_of_its_own(world: World) -> None:
    rows = {row.group["queue"]: row for row in report(world, "queue").rows}
    assert rows["(idle)"].cost_usd == rows["(idle)"].idle_usd > 0
    assert rows["(boot)"].cost_usd == rows["(boot)"].boot_usd > 0
    assert rows["eval"].cost_usd == rows["eval"].work_usd > 0
    assert {"(idle)", "(boot)"} < {row.group["job"] for row in report(world, "job").rows}


def test_two_dimensions_split_each_other(world: World) -> None:
    both = report(world, "cloud", "queue")
    for row in report(world, "cloud").rows:
        part = [r for r in both.rows if r.group["cloud"] == row.group["cloud"]]
        assert sum(r.cost_usd for r in part) == row.cost_usd
    assert [row.cost_usd for row in both.rows] == sorted(
        (row.cost_usd for row in both.rows), reverse=True
    )


def test_a_filter_keeps_exactly_the_row_it_names(world: World) -> None:
    for row in report(world, "cloud").rows:
        kept = report(world, "job", cloud=row.group["cloud"])
        assert (kept.totals.cost_usd, kept.totals.job_count) == (row.cost_usd, row.job_count)


def test_the_step_changes_the_series_and_no_sum(world: World) -> None:
    by_hour, by_day = report(world, "cloud", step="hour"), report(world, "cloud")
    assert by_hour.totals.cost_usd == by_day.totals.cost_usd
    assert len(by_hour.series) > len(by_day.series)
    days = {point.at.date() for point in by_hour.series}
    for day in days:
        assert _on(by_hour.series, day) == _on(by_day.series, day)


def _on(series: tuple[CostPoint, ...], day: object) -> Decimal:
    return sum((p.cost_usd for p in series if p.at.date() == day), Decimal(0))


def test_steps_begin_at_round_times_after_the_first() -> None:
    start = datetime(2026, 11, 4, 10, 30, tzinfo=UTC)  # a Wednesday
    following = {
        "hour": datetime(2026, 11, 4, 11, tzinfo=UTC),
        "day": datetime(2026, 11, 5, tzinfo=UTC),
        "week": datetime(2026, 11, 9, tzinfo=UTC),
        "month": datetime(2026, 12, 1, tzinfo=UTC),
    }
    for step, second in following.items():
        assert steps(start, second + timedelta(seconds=1), step) == (start, second)
        assert steps(start, second, step) == (start,)


def test_unknown_words_and_endless_series_are_refused(world: World) -> None:
    with pytest.raises(InvalidInput, match="cannot be grouped by 'colour'"):
        report(world, "colour")
    with pytest.raises(InvalidInput, match="unknown step 'minute'"):
        report(world, "cloud", step="minute")
    with pytest.raises(InvalidInput, match="more than 1000 steps"):
        steps(NOW - timedelta(days=60), NOW, "hour")


def test_the_report_goes_through_json_without_loss(world: World) -> None:
    found = report(world, "queue", "cloud")
    assert from_json(CostReport, to_json(found)) == found


def test_csv_holds_every_row_in_full_and_the_totals(world: World) -> None:
    found = report(world, "queue", "cloud")
    header, *rows, total = csv.reader(io.StringIO(to_csv(found)))
    assert header[:4] == ["queue", "cloud", "cost_usd", "work_usd"]
    assert len(rows) == len(found.rows)
    assert sum(Decimal(row[2]) for row in rows) == Decimal(total[2]) == found.totals.cost_usd
    assert total[:2] == ["total", ""]


def test_csv_values_cannot_run_as_formulas(world: World) -> None:
    found = report(world, "owner")
    named = replace(found.rows[0], group={"owner": "=HYPERLINK(1)"})
    assert "\n'=HYPERLINK(1)," in to_csv(replace(found, rows=(named,)))
