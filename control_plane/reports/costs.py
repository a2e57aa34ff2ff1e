"""What was spent, by whatever one asks for: the figures of `orchctl cost`, `/v1/costs` and every
amount on the dashboard. One ledger, one sum, so no two faces can disagree.
"""

from __future__ import annotations

import csv
import io
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from control_plane.core.cost import Charge, ChargeKind, charges
from control_plane.core.model import Attempt, PriceInterval
from control_plane.errors import InvalidInput, NotFound
from control_plane.ports import Store

STEPS = ("hour", "day", "week", "month")
"""Widths of the buckets of a series."""

POINTS_MAX = 1_000
"""Buckets in one series at most: a chart of more shows nothing, and each costs time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """The cost of one group. Amounts are exact; rounding is for whoever prints them."""

    group: Mapping[str, str]
    """Dimension to value; `(idle)` and `(boot)` where time belongs to no queue, owner or job."""
    cost_usd: Decimal
    work_usd: Decimal
    idle_usd: Decimal
    boot_usd: Decimal
    on_demand_usd: Decimal
    saved_usd: Decimal
    machine_hours: Decimal
    job_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CostPoint:
    """The cost of one group in one step of time."""

    at: datetime
    """Start of the step."""
    group: Mapping[str, str]
    cost_usd: Decimal
    on_demand_usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport:
    """Costs by group and over time; the rows always sum to the totals, and so does the series."""

    by: tuple[str, ...]
    step: str
    since: datetime
    until: datetime
    rows: tuple[CostRow, ...]
    """Dearest first."""
    totals: CostRow
    """Of all rows; its group is empty."""
    series: tuple[CostPoint, ...]
    """By time, then group; steps in which a group cost nothing are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What a report is made of, read once: several reports over one reading agree exactly."""

    now: datetime
    intervals: tuple[PriceInterval, ...]
    attempts: tuple[Attempt, ...]
    ready_at: Mapping[str, datetime] = field(default_factory=dict)

    @staticmethod
    def read(store: Store, *, since: datetime, now: datetime) -> Ledger:
        """Everything that overlaps the time from `since` until `now`."""
        intervals = tuple(store.prices_between(since, now))
        return Ledger(
            now=now,
            intervals=intervals,
            attempts=tuple(store.attempts_between(since, now)),
            ready_at=_ready_at(store, {each.machine_id for each in intervals}),
        )

    def charges(
        self, since: datetime, until: datetime, *, cuts: Sequence[datetime] = ()
    ) -> tuple[Charge, ...]:
        """The charges within a span of time; `since` must not lie before what was read."""
        return charges(
            self.intervals,
            self.attempts,
            start=since,
            end=until,
            now=self.now,
            ready_at=self.ready_at,
            cuts=cuts,
        )


def cost_report(
    store: Store,
    *,
    by: tuple[str, ...],
    since: datetime,
    until: datetime,
    step: str,
    now: datetime,
    where: Mapping[str, str] | None = None,
) -> CostReport:
    """Costs from `since` until `until`, grouped by the dimensions `by`; `where` keeps only what has
    these values. Raises `InvalidInput` for an unknown dimension or step, or too many steps."""
    ledger = Ledger.read(store, since=since, now=now)
    return summarise(ledger, by=by, since=since, until=until, step=step, where=where)


def job_cost(store: Store, job_id: str, attempts: Sequence[Attempt], now: datetime) -> CostRow:
    """What the attempts of one job have cost until now."""
    start = min((each.leased_at for each in attempts), default=now)
    ledger = Ledger.read(store, since=start, now=now)
    return summarise(
        ledger, by=(), since=start, until=now, step="month", where={"job": job_id}
    ).totals


def summarise(
    ledger: Ledger,
    *,
    by: tuple[str, ...],
    since: datetime,
    until: datetime,
    step: str,
    where: Mapping[str, str] | None = None,
) -> CostReport:
    """`cost_report` over a ledger read before."""
    keys = [(name, _dimension(name)) for name in by]
    wanted = [(_dimension(name), value) for name, value in (where or {}).items()]
    starts = steps(since, until, step)
    found = [
        each
        for each in ledger.charges(since, until, cuts=starts)
        if all(value_of(each) == value for value_of, value in wanted)
    ]
    groups: dict[tuple[str, ...], list[Charge]] = {}
    for each in found:
        groups.setdefault(tuple(value_of(each) for _, value_of in keys), []).append(each)
    rows = [_row(dict(zip(by, values, strict=True)), part) for values, part in groups.items()]
    rows.sort(key=lambda row: (-row.cost_usd, *row.group.values()))
    return CostReport(
        by=by,
        step=step,
        since=since,
        until=until,
        rows=tuple(rows),
        totals=_row({}, found),
        series=_series(groups, by, starts),
    )


def steps(since: datetime, until: datetime, step: str) -> tuple[datetime, ...]:
    """Where the buckets of a series begin: at `since`, then at each full hour, UTC midnight, Monday
    or first of a month before `until`. Raises `InvalidInput`."""
    if step not in STEPS:
        raise InvalidInput(f"unknown step {step!r}", fix=f"one of {', '.join(STEPS)}")
    starts = [since]
    while (following := _next_step(starts[-1], step)) < until:
        starts.append(following)
        if len(starts) > POINTS_MAX:
            raise InvalidInput(
                f"more than {POINTS_MAX} steps of one {step}", fix="take a wider step"
            )
    return tuple(starts)


def to_csv(report: CostReport) -> str:
    """The rows and a last line of totals, amounts in full, with a header line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*report.by, *_FIGURES])
    for row in report.rows:
        writer.writerow([*(_cell(row.group[name]) for name in report.by), *_figures(row)])
    writer.writerow(
        [*("total", *[""] * len(report.by))[: len(report.by)], *_figures(report.totals)]
    )
    return text.getvalue()


# -------------------------------------------------------------------------------- dimensions


def _or_kind(value: str, charge: Charge) -> str:
    """Nobody's time is named after what it was, so rows add up whatever they are grouped by."""
    if charge.kind is ChargeKind.WORK:
        return value or "(none)"
    return f"({charge.kind})"


DIMENSIONS: Mapping[str, Callable[[Charge], str]] = {
    "queue": lambda c: _or_kind(c.queue, c),
    "cloud": lambda c: c.provider,
    "market": lambda c: c.market.value,
    "pool": lambda c: c.pool,
    "region": lambda c: c.region or "(none)",
    "type": lambda c: c.instance_type,
    "owner": lambda c: _or_kind(c.owner, c),
    "job": lambda c: _or_kind(c.job_id, c),
    "machine": lambda c: c.machine_id,
}
"""What costs can be grouped and filtered by."""


def _dimension(name: str) -> Callable[[Charge], str]:
    try:
        return DIMENSIONS[name]
    except KeyError:
        raise InvalidInput(
            f"costs cannot be grouped by {name!r}", fix=f"one of {', '.join(DIMENSIONS)}"
        ) from None


# ---------------------------------------------------------------------------------- the sums


def _row(group: Mapping[str, str], part: Sequence[Charge]) -> CostRow:
    kinds = {kind: _sum(each.cost_usd for each in part if each.kind is kind) for kind in ChargeKind}
    cost, on_demand = _sum(kinds.values()), _sum(each.on_demand_usd for each in part)
    return CostRow(
        group=group,
        cost_usd=cost,
        work_usd=kinds[ChargeKind.WORK],
        idle_usd=kinds[ChargeKind.IDLE],
        boot_usd=kinds[ChargeKind.BOOT],
        on_demand_usd=on_demand,
        saved_usd=on_demand - cost,
        machine_hours=_sum(each.machine_hours for each in part),
        job_count=len({each.job_id for each in part if each.job_id}),
    )


def _series(
    groups: Mapping[tuple[str, ...], Sequence[Charge]],
    by: tuple[str, ...],
    starts: Sequence[datetime],
) -> tuple[CostPoint, ...]:
    cells: dict[tuple[datetime, tuple[str, ...]], tuple[Decimal, Decimal]] = {}
    for values, part in groups.items():
        for each in part:
            key = (_start_of(each, starts), values)
            cost, on_demand = cells.get(key, (Decimal(0), Decimal(0)))
            cells[key] = (cost + each.cost_usd, on_demand + each.on_demand_usd)
    return tuple(
        CostPoint(
            at=at,
            group=dict(zip(by, values, strict=True)),
            cost_usd=cost,
            on_demand_usd=on_demand,
        )
        for (at, values), (cost, on_demand) in sorted(cells.items())
    )


def _start_of(charge: Charge, starts: Sequence[datetime]) -> datetime:
    return starts[bisect_right(starts, charge.started_at) - 1]


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    return sum(amounts, Decimal(0))


def _next_step(start: datetime, step: str) -> datetime:
    hour = start.replace(minute=0, second=0, microsecond=0)
    if step == "hour":
        return hour + timedelta(hours=1)
    day = hour.replace(hour=0)
    if step == "day":
        return day + timedelta(days=1)
    if step == "week":
        return day + timedelta(days=7 - day.weekday())
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def _ready_at(store: Store, machine_ids: set[str]) -> Mapping[str, datetime]:
    known = {each.id: each for each in store.machine_list(open_only=False)}
    for machine_id in machine_ids - set(known):
        try:
            known[machine_id] = store.machine_get(machine_id)
        except NotFound:
            continue
    return {
        each.id: each.registered_at
        for each in known.values()
        if each.id in machine_ids and each.registered_at is not None
    }


# --------------------------------------------------------------------------------------- csv

_FIGURES = (
    "cost_usd",
    "work_usd",
    "idle_usd",
    "boot_usd",
    "on_demand_usd",
    "saved_usd",
    "machine_hours",
    "job_count",
)


def _figures(row: CostRow) -> list[str]:
    amounts = [f"{getattr(row, name):f}" for name in _FIGURES[:-1]]
    return [*amounts, str(row.job_count)]


def _cell(value: str) -> str:
    """A value that a spreadsheet will not run as a formula."""
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
