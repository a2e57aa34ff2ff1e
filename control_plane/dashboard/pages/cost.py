"""Cost: any window by any dimension, as chart and table, from the same report as `orchctl cost`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from markupsafe import Markup

from control_plane.dashboard import charts
from control_plane.dashboard import format as fmt
from control_plane.dashboard.deps import Deps
from control_plane.dashboard.figures import day_start, month_start
from control_plane.dashboard.parts import Cell, Empty, Legend, Option, Table, colour, num, url
from control_plane.errors import InvalidInput
from control_plane.reports.costs import DIMENSIONS, STEPS, CostReport, CostRow, cost_report, steps

ROWS_MAX = 100
BROAD = 1240
"""Width of a chart that has the page to itself, so that its labels are as large as elsewhere."""

SERIES_MAX = 7
"""Colours that can still be told apart; what is cheaper is drawn as `other`."""

WINDOWS: Mapping[str, str] = {
    "today": "today",
    "24h": "24 hours",
    "7d": "7 days",
    "month": "this month",
    "30d": "30 days",
    "90d": "90 days",
}
_STEP_OF = {"today": "hour", "24h": "hour", "90d": "week"}
_LABELS = {"hour": "%H:%M", "day": "%m-%d", "week": "%m-%d", "month": "%Y-%m"}
_NOUNS = {"queue": "queues", "job": "jobs", "machine": "machines"}
# What a group is made of, one level down.
_BELOW = {"queue": "job", "owner": "job", "job": "machine"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CostQuery:
    """What is asked for, as it stands in the address."""

    by: tuple[str, ...]
    window: str
    step: str
    where: Mapping[str, str]

    @staticmethod
    def parse(by: Sequence[str], since: str, step: str, where: Sequence[str]) -> CostQuery:
        """Raises `InvalidInput` for an unknown window or a filter that is none."""
        dimensions = tuple(dict.fromkeys(d for each in by for d in each.split(",") if d))
        window = since or "30d"
        if window not in WINDOWS:
            raise InvalidInput(f"unknown window {window!r}", fix=f"one of {', '.join(WINDOWS)}")
        pairs = [each.partition(":") for each in where if each]
        return CostQuery(
            by=dimensions or ("cloud",),
            window=window,
            step=step or _STEP_OF.get(window, "day"),
            where={name: value for name, _, value in pairs},
        )

    def start(self, now: datetime) -> datetime:
        """Where the window begins; whole days begin at midnight UTC, so days are comparable."""
        if self.window == "today":
            return day_start(now)
        if self.window == "month":
            return month_start(now)
        if self.window == "24h":
            return now - timedelta(hours=24)
        return day_start(now) - timedelta(days=int(self.window[:-1]) - 1)

    def url(self, page: str = "cost") -> str:
        """The address of this query."""
        where = [f"{name}:{value}" for name, value in self.where.items()]
        by = ",".join(self.by)
        return url(page, by=by, since=self.window, step=self.step, where=where)


@dataclass(frozen=True, slots=True, kw_only=True)
class OverTime:
    """A report over time: drawn, and in figures."""

    drawing: Markup
    """Empty when nothing was spent."""
    legend: Sequence[Legend]
    data: Table


@dataclass(frozen=True, slots=True, kw_only=True)
class CostPage:
    """The page."""

    dimensions: Sequence[Option]
    seconds: Sequence[Option]
    windows: Sequence[Option]
    steps: Sequence[Option]
    filters: Sequence[tuple[str, str]]
    """A filter as text, and the address without it."""
    where: Sequence[str]
    csv: str
    note: str
    chart: OverTime
    table: Table


def report_of(deps: Deps, query: CostQuery) -> CostReport:
    """The report of a query. Raises `InvalidInput`."""
    now = deps.clock.now()
    return cost_report(
        deps.store,
        by=query.by,
        since=query.start(now),
        until=now,
        step=query.step,
        now=now,
        where=query.where,
    )


def cost_page(deps: Deps, query: CostQuery) -> CostPage:
    """Raises `InvalidInput`."""
    report = report_of(deps, query)
    second = query.by[1] if len(query.by) > 1 else ""
    first = query.by[0]
    total = report.totals
    return CostPage(
        dimensions=[Option(value=d, text=d, chosen=d == first) for d in DIMENSIONS],
        seconds=[
            Option(value="", text="nothing more", chosen=not second),
            *(Option(value=d, text=d, chosen=d == second) for d in DIMENSIONS),
        ],
        windows=[
            Option(value=w, text=text, chosen=w == query.window) for w, text in WINDOWS.items()
        ],
        steps=[Option(value=s, text=s, chosen=s == query.step) for s in STEPS],
        filters=[
            (f"{name} is {value}", _without(query, name).url())
            for name, value in query.where.items()
        ],
        where=[f"{name}:{value}" for name, value in query.where.items()],
        csv=query.url("cost.csv"),
        note=f"{fmt.cents(total.cost_usd)}, {fmt.percent(total.idle_usd, total.cost_usd)} idle",
        chart=stacked(report, first, title=f"Cost by {first}", width=BROAD),
        table=cost_table(report, query),
    )


def stacked(report: CostReport, dimension: str, *, title: str, width: int = 760) -> OverTime:
    """The report over time by one dimension, with what the same hours cost on demand above it."""
    sums: dict[str, Decimal] = {}
    cells: dict[tuple[datetime, str], Decimal] = {}
    ghost: dict[datetime, Decimal] = {}
    for point in report.series:
        name = point.group[dimension]
        sums[name] = sums.get(name, Decimal(0)) + point.cost_usd
        cells[point.at, name] = cells.get((point.at, name), Decimal(0)) + point.cost_usd
        ghost[point.at] = ghost.get(point.at, Decimal(0)) + point.on_demand_usd
    if not sums:
        return OverTime(drawing=Markup(""), legend=(), data=Table(columns=(), rows=()))
    ranked = sorted(sums, key=lambda name: (-sums[name], name))
    at = steps(report.since, report.until, report.step)
    chart = charts.Bars(
        title=title,
        finding=_finding(report, ranked[0], sums[ranked[0]]),
        labels=[t.strftime(_LABELS[report.step]) for t in at],
        series=_series(ranked, cells, at),
        ghost=[float(ghost.get(t, 0)) for t in at],
        ghost_name="on demand",
        width=width,
    )
    return OverTime(
        drawing=charts.bars(chart),
        legend=[Legend(name=each.name, css=each.css) for each in chart.series],
        data=_data(chart),
    )


def _series(
    ranked: Sequence[str],
    cells: Mapping[tuple[datetime, str], Decimal],
    at: Sequence[datetime],
) -> Sequence[charts.Series]:
    shown, rest = ranked[:SERIES_MAX], ranked[SERIES_MAX:]
    series = [
        charts.Series(
            name=name, css=colour(name, i), values=[float(cells.get((t, name), 0)) for t in at]
        )
        for i, name in enumerate(shown)
    ]
    if rest:
        others = [float(sum(cells.get((t, name), Decimal(0)) for name in rest)) for t in at]
        series.append(charts.Series(name="other", css="sx", values=others))
    return series


def _data(chart: charts.Bars) -> Table:
    rows = [
        (
            Cell(text=label),
            *(num(f"${each.values[i]:,.2f}") for each in chart.series),
            num(f"${chart.ghost[i]:,.2f}"),
        )
        for i, label in enumerate(chart.labels)
    ]
    names = [each.name for each in chart.series]
    return Table(
        columns=(("From", ""), *((name, "num") for name in (*names, chart.ghost_name))), rows=rows
    )


def cost_table(report: CostReport, query: CostQuery) -> Table:
    """The rows with their totals, in cents that add up downwards and across."""
    rows = _cut(report.rows)
    total = report.totals
    kinds = [[getattr(row, kind) for row in rows] for kind in _KINDS]
    sums = fmt.cents_that_add_up([getattr(total, kind) for kind in _KINDS])
    parts = [fmt.cents_that_add_up(*each) for each in zip(kinds, sums, strict=True)]
    saved = fmt.cents_that_add_up([row.saved_usd for row in rows])
    return Table(
        columns=(
            *((name.capitalize(), "") for name in report.by),
            ("Cost", "num"),
            ("Share", ""),
            ("Work", "num"),
            ("Idle", "num"),
            ("Boot", "num"),
            ("Saved by spot", "num"),
            ("Machine hours", "num"),
            ("Jobs", "num"),
        ),
        rows=[
            (
                *_group_cells(row, report, query),
                *_figures(row, total, [part[i] for part in parts], saved[i], query),
            )
            for i, row in enumerate(rows)
        ],
        foot=(
            Cell(text="total"),
            *(Cell() for _ in report.by[1:]),
            *_figures(total, total, sums, sum(saved, Decimal(0)), query),
        )
        if report.by
        else (),
        empty=Empty(
            text="Nothing was spent in this window.", command="orchctl cost --by queue --since 90d"
        ),
    )


_KINDS = ("work_usd", "idle_usd", "boot_usd")


def _figures(
    row: CostRow, total: CostRow, parts: Sequence[Decimal], saved: Decimal, query: CostQuery
) -> Sequence[Cell]:
    share = float(row.cost_usd / total.cost_usd) if total.cost_usd else 0.0
    href = (
        _narrowed(query, row.group).url() if row.group and _REST not in row.group.values() else ""
    )
    return (
        num(fmt.cents(sum(parts, Decimal(0))), css="strong", href=href),
        Cell(text=charts.meter(share, title=f"{share:.1%} of the total")),
        *(num(fmt.cents(part) if part else fmt.NOTHING) for part in parts),
        num(fmt.cents(saved)),
        num(f"{row.machine_hours:,.1f}"),
        num(f"{row.job_count:,}"),
    )


def _group_cells(row: CostRow, report: CostReport, query: CostQuery) -> Sequence[Cell]:
    cells = []
    for name in report.by:
        value = row.group[name]
        page = _NOUNS.get(name)
        if value == _REST:
            href = ""
        elif page and not value.startswith("("):
            href = url(page, value)
        else:
            href = _narrowed(query, {name: value}).url()
        cells.append(Cell(text=value, href=href))
    return cells


_REST = "all others"


def _cut(rows: Sequence[CostRow]) -> Sequence[CostRow]:
    """The dearest rows, and all the others as one, so the column still adds up."""
    if len(rows) <= ROWS_MAX:
        return rows
    rest = rows[ROWS_MAX - 1 :]

    def whole(name: str) -> Decimal:
        return sum((getattr(row, name) for row in rest), Decimal(0))

    merged = CostRow(
        group=dict.fromkeys(rest[0].group, _REST),
        cost_usd=whole("cost_usd"),
        work_usd=whole("work_usd"),
        idle_usd=whole("idle_usd"),
        boot_usd=whole("boot_usd"),
        on_demand_usd=whole("on_demand_usd"),
        saved_usd=whole("saved_usd"),
        machine_hours=whole("machine_hours"),
        job_count=sum(row.job_count for row in rest),
    )
    return [*rows[: ROWS_MAX - 1], merged]


def _narrowed(query: CostQuery, group: Mapping[str, str]) -> CostQuery:
    """What a group is made of: the same window, kept to it, one level down."""
    last = list(group)[-1]
    unclaimed = group[last].startswith("(")
    below = "machine" if unclaimed else _BELOW.get(last, "queue")
    return replace(query, by=(below,), where={**query.where, **group})


def _without(query: CostQuery, name: str) -> CostQuery:
    return replace(query, where={k: v for k, v in query.where.items() if k != name})


def _finding(report: CostReport, dearest: str, usd: Decimal) -> str:
    total = report.totals
    return (
        f"{fmt.cents(total.cost_usd)} in all, most of it {dearest} with {fmt.cents(usd)}; "
        f"on demand it would have been {fmt.cents(total.on_demand_usd)}"
    )
