"""Queues: depth and waits, and one queue with its order to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from markupsafe import Markup

from control_plane.core.model import Job, JobState, QueueRecord, QueueStats
from control_plane.core.policy import QueuePolicy
from control_plane.dashboard import charts
from control_plane.dashboard import format as fmt
from control_plane.dashboard.deps import Deps
from control_plane.dashboard.figures import Waits, month_start, waits_by_queue
from control_plane.dashboard.pages.jobs import STATES, job_table
from control_plane.dashboard.pages.plans import plan_table
from control_plane.dashboard.parts import Action, Cell, Empty, Fact, Table, badge, fact, num, url
from control_plane.ports import Store
from control_plane.reports.costs import Ledger, summarise
from control_plane.reports.quantiles import quantile

WAITING_MAX = 100
RECENT_MAX = 2000
"""Jobs looked at for wait times; the newest ones, so a busy fleet sees less than two days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiter:
    """One waiting job and the places it can go to."""

    job_id: str
    version: int
    name: str
    note: str
    waited: str
    place: int
    above: str
    """The job before it; empty for the first."""
    below: str
    """The job after it; empty for the last."""

    @property
    def moves(self) -> Sequence[Action]:
        """To the top, up, down, to the bottom."""
        wanted = (
            ("⤒", "to the top", "top", "", not self.above),
            ("↑", "up", "before", self.above, not self.above),
            ("↓", "down", "after", self.below, not self.below),
            ("⤓", "to the bottom", "bottom", "", not self.below),
        )
        return [
            Action(
                label=label,
                name=f"move {self.name} {name}",
                url=url("jobs", self.job_id, "move"),
                fields={"place": place, "of": of, "version": str(self.version)},
                disabled=disabled,
            )
            for label, name, place, of, disabled in wanted
        ]

    @property
    def cancel(self) -> Action:
        """Take it out."""
        return Action(label="✕", name=f"cancel {self.name}", url=url("jobs", self.job_id, "cancel"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The waiting jobs of one queue, in the order they will be taken."""

    queue: str
    waiters: Sequence[Waiter]
    note: str
    rest: str
    """How many more there are; empty = these are all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuesPage:
    """The list."""

    table: Table


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePage:
    """One queue."""

    name: str
    state: Markup | None
    actions: Sequence[Action]
    facts: Sequence[Fact]
    line: Line
    running: Table
    plan: Table


def queues_page(deps: Deps) -> QueuesPage:
    """All queues."""
    now = deps.clock.now()
    ledger = Ledger.read(deps.store, since=month_start(now), now=now)
    return QueuesPage(table=queue_table(deps.store, spent_by_queue(ledger), now))


def spent_by_queue(ledger: Ledger) -> Mapping[str, Decimal]:
    """This month's cost of each queue's work, in US dollars."""
    report = summarise(
        ledger, by=("queue",), since=month_start(ledger.now), until=ledger.now, step="month"
    )
    return {row.group["queue"]: row.cost_usd for row in report.rows}


def queue_table(
    store: Store, spent: Mapping[str, Decimal], now: datetime, *, brief: bool = False
) -> Table:
    """A row for each queue; a brief one leaves out the longest wait."""
    stats = store.queue_stats()
    waits = waits_by_queue(recent_jobs(store), now)
    dearest = max(spent.values(), default=Decimal(0))
    return Table(
        columns=(
            ("Queue", ""),
            ("Waiting", "num"),
            ("Running", "num"),
            *((("Longest", "num"),) * (not brief)),
            ("p50", "num"),
            ("p95", "num"),
            ("Wait", ""),
            ("Spent this month", ""),
        ),
        rows=[
            _row(
                each,
                stats.get(each.name) or QueueStats(name=each.name, waiting=0, running=0),
                waits.get(each.name, Waits()),
                _Spent(spent.get(each.name, Decimal(0)), dearest),
                None if brief else now,
            )
            for each in store.queue_list()
        ],
        empty=Empty(
            text="No queue yet. An autoscaler declares its queues; one can also be made by hand.",
            command="orchctl queue create default",
        ),
    )


def recent_jobs(store: Store) -> Sequence[Job]:
    """The newest jobs that got as far as a machine."""
    begun = frozenset(JobState) - {JobState.DRAFT, JobState.BLOCKED, JobState.QUEUED}
    return store.job_list(states=begun, limit=RECENT_MAX).items


def line_of(store: Store, queue: str, now: datetime, *, limit: int = WAITING_MAX) -> Line:
    """The waiting jobs of a queue."""
    found = store.job_list(queue=queue, states=STATES["waiting"], limit=limit + 1).items
    shown = found[:limit]
    ids = ["", *(each.id for each in found), ""]
    total = store.queue_stats()[queue].waiting if queue in store.queue_stats() else len(found)
    more = total - len(shown)
    return Line(
        queue=queue,
        waiters=[_waiter(job, i, (ids[i], ids[i + 2]), now) for i, job in enumerate(shown)],
        note=f"{total} waiting" + (" · drag, or use the arrows" if total > 1 else ""),
        rest=f"{more} more" if more > 0 else "",
    )


def queue_page(deps: Deps, name: str) -> QueuePage:
    """One queue. Raises `NotFound`."""
    record = deps.store.queue_get(name)
    now = deps.clock.now()
    found = deps.service.policy_of(name)
    running = deps.store.job_list(queue=name, states=STATES["running"], limit=50).items
    stats = deps.store.queue_stats().get(name) or QueueStats(name=name, waiting=0, running=0)
    return QueuePage(
        name=name,
        state=badge("paused", "warn") if record.paused else None,
        actions=_actions(record),
        facts=[
            *_facts(record, stats, deps.store.queue_waits(name)),
            *(_policy_facts(found[0]) if found else ()),
        ],
        line=line_of(deps.store, name, now),
        running=job_table(running, now),
        plan=plan_table(
            deps.store,
            record.autoscaler,
            now,
            about={name, *(found[0].pools if found else ())},
        ),
    )


# ------------------------------------------------------------------------------------- pieces


@dataclass(frozen=True, slots=True)
class _Spent:
    usd: Decimal
    dearest: Decimal


def _row(
    record: QueueRecord, stats: QueueStats, waits: Waits, spent: _Spent, now: datetime | None
) -> Sequence[Cell]:
    name = record.name
    share = float(spent.usd / spent.dearest) if spent.dearest else 0.0
    bar = charts.meter(share, title=f"{fmt.money(spent.usd)} this month")
    return (
        Cell(text=name, href=url("queues", name), sub="paused" if record.paused else ""),
        num(str(stats.waiting), href=url("jobs", queue=name, state="waiting")),
        num(str(stats.running), href=url("jobs", queue=name, state="running")),
        *([num(fmt.since(stats.oldest_at, now))] if now else ()),
        num(_seconds(waits.p50_s)),
        num(_seconds(waits.p95_s)),
        Cell(text=charts.sparkline(waits.trend, title=f"waits in {name} over 48 hours")),
        Cell(
            text=Markup("{} {}").format(bar, fmt.money(spent.usd)),
            href=url("cost", by="job", since="month", where=f"queue:{name}"),
            css="meterc",
        ),
    )


def _seconds(seconds: float | None) -> str:
    return fmt.NOTHING if seconds is None else fmt.duration(seconds)


def _waiter(job: Job, index: int, beside: tuple[str, str], now: datetime) -> Waiter:
    owner = [job.owner] if job.owner else []
    priority = [f"priority {job.priority}"] if job.priority else []
    return Waiter(
        job_id=job.id,
        version=job.version,
        name=job.name or job.id,
        note=" · ".join([*owner, fmt.need(job.spec.need), *priority, *_until(job, now)]),
        waited=fmt.since(job.queued_at, now),
        place=index + 1,
        above=beside[0],
        below=beside[1],
    )


def _until(job: Job, now: datetime) -> Sequence[str]:
    ahead = job.not_before is not None and job.not_before > now
    return [f"not before {fmt.moment(job.not_before)}"] if ahead else []


def _actions(record: QueueRecord) -> Sequence[Action]:
    at = ("queues", record.name)
    switch = "resume" if record.paused else "pause"
    return [
        Action(label=switch, url=url(*at, switch)),
        Action(label="clear…", url=url(*at, "clear"), css="danger", asks=True),
    ]


def _facts(record: QueueRecord, stats: QueueStats, waits: Sequence[float]) -> Sequence[Fact]:
    last = f"of the last {len(waits)} jobs" if waits else ""
    return [
        fact(
            "Autoscaler",
            record.autoscaler or "none: served by own workers only",
            href=url("autoscalers", record.autoscaler) if record.autoscaler else "",
        ),
        fact("Running", _of_limit(stats.running, record.max_running), sub=_per_owner(record)),
        fact("Delayed", _at_least(stats.delayed, stats), sub="wait for a time"),
        fact(
            "Blocked",
            _at_least(stats.blocked, stats),
            href=url("jobs", queue=record.name, state="blocked"),
            sub="wait for other jobs",
        ),
        fact("Wait, median", _seconds(quantile(waits, 0.5)), sub=last),
        fact("Wait, p90", _seconds(quantile(waits, 0.9)), sub=last),
    ]


def _policy_facts(policy: QueuePolicy) -> Sequence[Fact]:
    return [
        fact("Pools", ", ".join(policy.pools)),
        fact("Priority", str(policy.priority)),
        fact("Buys after", fmt.duration(policy.launch_after_s) if policy.launch_after_s else "0 s"),
        fact("Jobs on a machine", str(policy.jobs_per_machine or "what fits")),
    ]


def _of_limit(running: int, limit: int | None) -> str:
    return str(running) if limit is None else f"{running} of at most {limit}"


def _per_owner(record: QueueRecord) -> str:
    limit = record.max_running_per_owner
    return "" if limit is None else f"at most {limit} of one owner"


def _at_least(count: int, stats: QueueStats) -> str:
    """A count; `+` where counting stopped."""
    return f"{count}{'' if stats.exact else '+'}"
