"""The figures on the cards, worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from control_plane.core.model import (
    Attempt,
    Capacity,
    Job,
    JobSpec,
    Market,
    Need,
    PriceInterval,
)
from control_plane.dashboard.figures import (
    hourly_trend,
    interruptions,
    month_end,
    month_of,
    running_total,
    waits_by_queue,
)
from control_plane.reports.costs import Ledger

NOW = datetime(2026, 11, 11, 12, tzinfo=UTC)
DOLLAR_AN_HOUR = PriceInterval(
    machine_id="m-1",
    autoscaler="a",
    pool="p",
    provider="aws",
    region="r",
    zone="z",
    instance_type="t",
    market=Market.SPOT,
    total=Capacity(cpus=4),
    price_usd_hour=Decimal(1),
    on_demand_usd_hour=Decimal(3),
    started_at=NOW - timedelta(days=20),
)


def ledger(*intervals: PriceInterval) -> Ledger:
    return Ledger(now=NOW, intervals=intervals, attempts=())


def test_a_machine_at_a_dollar_an_hour_makes_a_plain_month() -> None:
    month = month_of(ledger(DOLLAR_AN_HOUR), [])
    assert month.today_usd == 12
    assert month.yesterday_usd == 24
    assert month.spent_usd == 10 * 24 + 12
    assert month.projected_usd == 30 * 24
    assert month.report.totals.saved_usd == 2 * month.spent_usd
    assert month.within_budget, "no budget cannot be exceeded"


def test_the_trend_is_of_the_last_week_or_of_what_there_is() -> None:
    two_hours = replace(DOLLAR_AN_HOUR, started_at=NOW - timedelta(hours=2))
    assert hourly_trend(ledger(two_hours)) == 1
    assert hourly_trend(ledger(DOLLAR_AN_HOUR)) == 1
    stopped = replace(DOLLAR_AN_HOUR, ended_at=NOW - timedelta(days=3, hours=12))
    assert hourly_trend(ledger(stopped)) == Decimal("0.5")
    assert hourly_trend(ledger()) == 0


def test_a_first_minute_is_not_taken_for_a_habit() -> None:
    just_started = replace(DOLLAR_AN_HOUR, started_at=NOW - timedelta(minutes=6))
    assert hourly_trend(ledger(just_started)) == Decimal("0.1")


def test_the_running_total_ends_at_now_with_the_month_s_sum() -> None:
    month = month_of(ledger(DOLLAR_AN_HOUR), [])
    walk = running_total(month.report)
    assert walk[0] == (1.0, 24.0)
    assert walk[-1] == (10.5, 252.0)
    assert len(walk) == 11


def test_months_end_where_the_next_begins() -> None:
    december = datetime(2026, 12, 31, 23, tzinfo=UTC)
    assert month_end(december) == datetime(2027, 1, 1, tzinfo=UTC)


def job(queue: str, waited_s: int, *, ago_h: float = 1, attempt: int = 1) -> Job:
    leased = NOW - timedelta(hours=ago_h)
    queued = leased - timedelta(seconds=waited_s)
    return Job(
        id=f"j-{waited_s}-{ago_h}",
        queue=queue,
        spec=JobSpec(command="true"),
        attempt=attempt,
        submitted_at=queued,
        queued_at=queued,
        leased_at=leased,
    )


def test_waits_are_ranked_within_each_queue_and_two_days() -> None:
    jobs = [job("a", seconds) for seconds in range(10, 210, 10)]
    stale = [job("a", 9999, ago_h=49), job("a", 9999, attempt=2)]
    waits = waits_by_queue([*jobs, *stale, job("b", 7)], NOW)
    assert (waits["a"].p50_s, waits["a"].p95_s) == (100, 190)
    assert (waits["b"].p50_s, waits["b"].p95_s) == (7, 7)
    assert [value for value in waits["b"].trend if value is not None] == [7]
    assert waits["b"].trend[-1] == 7, "the newest stands last"


@pytest.mark.parametrize(
    ("outcome", "counts"), [("interrupted", True), ("lost", True), ("failed", False), ("", False)]
)
def test_only_machine_losses_count_as_interruptions(outcome: str, counts: bool) -> None:
    attempt = Attempt(
        job_id="j-1",
        number=1,
        epoch=1,
        queue="a",
        owner="",
        machine_id="m-1",
        need=Need(),
        leased_at=NOW - timedelta(hours=2),
        ended_at=NOW - timedelta(hours=1) if outcome else None,
        outcome=outcome,
    )
    assert bool(interruptions([attempt], NOW - timedelta(days=7))) is counts
    assert not interruptions([attempt], NOW)
