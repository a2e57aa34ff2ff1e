"""Overview: is money going where it should, and what waits for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup

from control_plane.core.cost import hour_rate
from control_plane.core.model import JobState, Machine, MachineState
from control_plane.dashboard import charts
from control_plane.dashboard import format as fmt
from control_plane.dashboard.deps import Deps
from control_plane.dashboard.figures import (
    TREND_WINDOW,
    Month,
    day_start,
    interruptions,
    month_end,
    month_of,
    month_start,
    running_total,
)
from control_plane.dashboard.pages.cost import OverTime, stacked
from control_plane.dashboard.pages.machines import Now, machine_table
from control_plane.dashboard.pages.queues import Line, line_of, queue_table
from control_plane.dashboard.parts import Cell, Kpi, Table, num, url
from control_plane.errors import NotFound
from control_plane.ports import Store
from control_plane.reports.costs import Ledger, summarise

CHART_DAYS = 30
MACHINES_MAX = 20
LINE_MAX = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewPage:
    """The page."""

    kpis: Sequence[Kpi]
    chart: OverTime
    budget: Markup
    budget_data: Table
    month_name: str
    line: Line | None
    """The longest queue; None when nothing waits."""
    queues: Table
    machines: Table
    machines_note: str


def overview_page(deps: Deps) -> OverviewPage:
    """Everything at a glance."""
    now, store = deps.clock.now(), deps.store
    chart_start = day_start(now) - timedelta(days=CHART_DAYS - 1)
    ledger = Ledger.read(store, since=min(chart_start, month_start(now)), now=now)
    month = month_of(ledger, store.autoscaler_list())
    by_cloud = summarise(ledger, by=("cloud",), since=chart_start, until=now, step="day")
    machines = list(reversed(store.machine_list()))
    spent = {row.group["queue"]: row.cost_usd for row in month.report.rows}
    return OverviewPage(
        kpis=_kpis(store, ledger, month, machines),
        chart=stacked(by_cloud, "cloud", title="Spend by cloud, 30 days"),
        budget=_budget(month, now),
        budget_data=_budget_data(month),
        month_name=now.strftime("%B"),
        line=_longest(store, now),
        queues=queue_table(store, spent, now, brief=True),
        machines=machine_table(
            machines[:MACHINES_MAX], Now.of(store, machines[:MACHINES_MAX], now)
        ),
        machines_note=_machines_note(machines),
    )


def _kpis(store: Store, ledger: Ledger, month: Month, machines: Sequence[Machine]) -> Sequence[Kpi]:
    totals = month.report.totals
    budget = f"of {fmt.money(month.budget_usd)} budget" if month.budget_usd else "no budget set"
    idle = sum(1 for each in machines if each.idle_since and each.state is MachineState.READY)
    broken = interruptions(ledger.attempts, ledger.now - TREND_WINDOW)
    return (
        Kpi(
            label="Spend today",
            value=fmt.money(month.today_usd),
            note=f"yesterday {fmt.money(month.yesterday_usd)}",
            href=url("cost", by="queue", since="today"),
        ),
        Kpi(
            label="Month to date",
            value=fmt.money(month.spent_usd),
            note=budget,
            href=url("cost", by="queue", since="month"),
        ),
        Kpi(
            label="Projected",
            value=fmt.money(month.projected_usd),
            note="within budget" if month.within_budget else "over budget",
            href=url("cost", by="cloud", since="7d"),
            css="good" if month.within_budget else "bad",
        ),
        Kpi(
            label="Saved by spot",
            value=fmt.money(totals.saved_usd),
            note="vs on-demand",
            href=url("cost", by="market", since="month"),
            css="good" if totals.saved_usd > 0 else "",
        ),
        Kpi(
            label="Idle waste",
            value=fmt.money(totals.idle_usd),
            note=f"{fmt.percent(totals.idle_usd, totals.cost_usd)} of spend",
            href=url("cost", by="machine", since="month", where="queue:(idle)"),
            css="warn" if totals.idle_usd else "",
        ),
        Kpi(
            label="Machines",
            value=str(len(machines)),
            note=f"{idle} idle",
            href=url("machines"),
        ),
        Kpi(
            label="Interruptions",
            value=str(len(broken)),
            note=f"7 days, {_recovered(store, {each.job_id for each in broken})}",
            href=url("machines", show="interrupted"),
        ),
    )


def _recovered(store: Store, job_ids: set[str]) -> str:
    """How many of the jobs that lost a machine did not end of it."""
    lost = 0
    for job_id in job_ids:
        try:
            lost += store.job_get(job_id).state is JobState.EXHAUSTED
        except NotFound:
            continue
    if not job_ids:
        return "no job hit"
    return f"{len(job_ids) - lost} of {len(job_ids)} recovered" if lost else "all recovered"


def _budget(month: Month, now: datetime) -> Markup:
    start, end = month_start(now), month_end(now)
    verdict = "within" if month.within_budget else "over"
    limit = f", {verdict} the budget of {fmt.money(month.budget_usd)}" if month.budget_usd else ""
    return charts.burn_down(
        charts.Burn(
            title="Budget burn-down",
            finding=f"{fmt.money(month.spent_usd)} spent, heading for "
            f"{fmt.money(month.projected_usd)}{limit}",
            spent=running_total(month.report),
            days=(end - start).days,
            projected=float(month.projected_usd),
            budget=float(month.budget_usd),
        )
    )


def _budget_data(month: Month) -> Table:
    start = month.report.since
    return Table(
        columns=(("Until the end of", ""), ("Spent", "num")),
        rows=[
            (Cell(text=f"{start + timedelta(days=i):%m-%d}"), num(f"${usd:,.2f}"))
            for i, (_, usd) in enumerate(running_total(month.report))
        ],
    )


def _longest(store: Store, now: datetime) -> Line | None:
    waiting = [each for each in store.queue_stats().values() if each.waiting]
    if not waiting:
        return None
    longest = max(waiting, key=lambda each: (each.waiting, each.name))
    return line_of(store, longest.name, now, limit=LINE_MAX)


def _machines_note(machines: Sequence[Machine]) -> str:
    ready = sum(1 for each in machines if each.state is MachineState.READY)
    more = f", {MACHINES_MAX} newest shown" if len(machines) > MACHINES_MAX else ""
    return f"{ready} ready, {fmt.money(hour_rate(machines))} an hour{more}"
