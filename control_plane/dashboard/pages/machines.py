"""Machines: what runs, what it costs, and one machine's whole story."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from markupsafe import Markup

from control_plane.core.cost import Charge, ChargeKind, hour_rate, part_of, spend
from control_plane.core.lifecycle import COUNTED, MACHINE_ENDED
from control_plane.core.model import AUDIT, Job, JobState, Lease, Machine, MachineState, Market
from control_plane.dashboard import charts
from control_plane.dashboard import format as fmt
from control_plane.dashboard.deps import Deps
from control_plane.dashboard.pages.activity import event_table
from control_plane.dashboard.parts import (
    Action,
    Cell,
    Empty,
    Fact,
    Table,
    badge,
    colour,
    dot,
    fact,
    num,
    url,
)
from control_plane.ports import Store
from control_plane.reports.costs import Ledger

ROWS_MAX = 200
LANES_MAX = 8
RUNNING = frozenset({JobState.LEASED, JobState.RUNNING})

_STATE_CSS = {
    MachineState.READY: "good",
    MachineState.DRAINING: "warn",
    MachineState.INTERRUPTED: "warn",
    MachineState.LOST: "bad",
    MachineState.BOOT_FAILED: "bad",
    MachineState.LAUNCH_FAILED: "bad",
}
_KIND_CSS = {"boot": "s3", "work": "s1", "idle": "sx pale"}
_SHOWS: Mapping[str, tuple[str, Callable[[Machine], bool]]] = {
    "open": ("Not ended", lambda m: m.state in COUNTED),
    "ended": ("Ended", lambda m: m.state in MACHINE_ENDED),
    "idle": ("Idle", lambda m: m.idle_since is not None and m.state is MachineState.READY),
    "interrupted": ("Interrupted", lambda m: _was_interrupted(m)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MachinesPage:
    """The list."""

    title: str
    note: str
    tabs: Sequence[tuple[str, str, bool]]
    table: Table


@dataclass(frozen=True, slots=True, kw_only=True)
class MachinePage:
    """One machine."""

    machine_id: str
    state: Markup
    facts: Sequence[Fact]
    actions: Sequence[Action]
    chart: Markup
    moments: Sequence[Fact]
    jobs: Table
    events: Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """What a table of machines looks at besides the machines."""

    at: datetime
    leases: Mapping[str, Sequence[Lease]]
    jobs: Mapping[str, Job]
    cost_usd: Mapping[str, Decimal]

    @staticmethod
    def of(store: Store, machines: Sequence[Machine], at: datetime) -> Now:
        """Read for these machines."""
        leases: dict[str, list[Lease]] = {}
        for lease in store.job_leases():
            leases.setdefault(lease.machine_id, []).append(lease)
        running = store.job_list(states=RUNNING, limit=1000).items
        return Now(
            at=at,
            leases=leases,
            jobs={job.id: job for job in running},
            cost_usd=_costs(store, machines, at),
        )


def machines_page(deps: Deps, show: str) -> MachinesPage:
    """Machines of one kind of state, the newest first."""
    title, wanted = _SHOWS.get(show, _SHOWS["open"])
    now = deps.clock.now()
    live = show not in ("ended", "interrupted")
    found = [each for each in deps.store.machine_list(open_only=live) if wanted(each)]
    found.reverse()
    rate = fmt.money(hour_rate(found))
    return MachinesPage(
        title=title,
        note=f"{fmt.plural(len(found), 'machine')}, {rate} an hour" if live else str(len(found)),
        tabs=[
            (text, url("machines", show=name), name == show or (not show and name == "open"))
            for name, (text, _) in _SHOWS.items()
        ],
        table=machine_table(found[:ROWS_MAX], Now.of(deps.store, found[:ROWS_MAX], now)),
    )


def machine_table(machines: Sequence[Machine], now: Now) -> Table:
    """A row for each machine."""
    return Table(
        columns=(
            ("Machine", ""),
            ("Cloud", ""),
            ("Type", ""),
            ("GPU", ""),
            ("Market", ""),
            ("State", ""),
            ("Queue", ""),
            ("Job", ""),
            ("In use", ""),
            ("Age", "num"),
            ("Idle", "num"),
            ("$/h", "num"),
            ("Cost", "num"),
            ("", ""),
        ),
        rows=[_row(each, now) for each in machines],
        empty=Empty(
            text="No machine runs, so nothing costs anything. One is bought when a job waits.",
            command='orchctl run -- echo "hello from a machine"',
        ),
    )


def machine_page(deps: Deps, machine_id: str) -> MachinePage:
    """One machine with its story. Raises `NotFound`."""
    machine = deps.store.machine_get(machine_id)
    now = deps.clock.now()
    ledger = Ledger.read(deps.store, since=machine.planned_at, now=now)
    mine = [c for c in ledger.charges(machine.planned_at, now) if c.machine_id == machine_id]
    found = deps.store.event_list(subject=machine_id, limit=50).items
    events = [each for each in found if each.kind != AUDIT]
    return MachinePage(
        machine_id=machine_id,
        state=state_badge(machine),
        facts=_facts(machine, mine, now),
        actions=_actions(machine),
        chart=charts.timeline(_timeline(machine, mine, now)),
        moments=[fact(name, fmt.clock(at)) for at, name in _moments(machine)],
        jobs=_job_table(mine),
        events=event_table(events),
    )


def state_badge(machine: Machine) -> Markup:
    """Its state as a coloured word."""
    words = machine.state.value.replace("_", " ")
    return badge(words, _STATE_CSS.get(machine.state, ""))


def market_badge(market: Market) -> Markup:
    """Spot or on-demand."""
    return badge(market.value, "good" if market is Market.SPOT else "warn")


# ------------------------------------------------------------------------------------ the list


def _row(machine: Machine, now: Now) -> Sequence[Cell]:
    offer, leases = machine.offer, now.leases.get(machine.id, ())
    jobs = [now.jobs[lease.job_id] for lease in leases if lease.job_id in now.jobs]
    queues = sorted({lease.queue for lease in leases})
    end = machine.ended_at or now.at
    return (
        Cell(text=machine.id, href=url("machines", machine.id), css="id"),
        Cell(text=dot(offer.provider, colour(offer.provider, 6)), sub=offer.zone or offer.region),
        Cell(text=offer.instance_type),
        Cell(text=fmt.gpus(machine.total)),
        Cell(text=market_badge(offer.market)),
        Cell(text=state_badge(machine), tip=machine.reason.sentence if machine.reason else ""),
        _names(queues, "queues"),
        _jobs_cell(machine, jobs, leases),
        Cell(text=_used(machine, leases)),
        num(fmt.since(machine.launched_at, end)),
        _idle(machine, now.at),
        num(fmt.money(offer.price_usd_hour)),
        num(
            fmt.money(now.cost_usd.get(machine.id, Decimal(0))),
            href=url("cost", by="job", since="90d", where=f"machine:{machine.id}"),
        ),
        Cell(actions=_row_actions(machine)),
    )


def _names(names: Sequence[str], noun: str) -> Cell:
    if not names:
        return Cell(text=fmt.NOTHING)
    more = f"+{len(names) - 1}" if len(names) > 1 else ""
    return Cell(text=names[0], href=url(noun, names[0]), sub=more)


def _jobs_cell(machine: Machine, jobs: Sequence[Job], leases: Sequence[Lease]) -> Cell:
    if not leases:
        return Cell(text=fmt.NOTHING)
    if len(leases) > 1 or not jobs:
        text = fmt.plural(len(leases), "job")
        return Cell(text=text, href=url("jobs", machine=machine.id))
    return Cell(text=jobs[0].name or jobs[0].id, href=url("jobs", jobs[0].id))


def _used(machine: Machine, leases: Sequence[Lease]) -> Markup:
    parts = sum((part_of(lease.need, machine.total) for lease in leases), Fraction(0))
    used = min(1.0, float(parts))
    return charts.meter(used, title=f"{used:.0%} of the machine is taken by jobs")


def _idle(machine: Machine, now: datetime) -> Cell:
    if machine.idle_since is None or machine.state not in COUNTED:
        return num(fmt.NOTHING)
    return num(fmt.since(machine.idle_since, now), css="warn strong")


def _row_actions(machine: Machine) -> Sequence[Action]:
    return [
        Action(
            label="drain",
            name=f"drain {machine.id}",
            url=url("machines", machine.id, "drain"),
        )
    ] * (machine.state is MachineState.READY)


def _costs(store: Store, machines: Sequence[Machine], now: datetime) -> Mapping[str, Decimal]:
    start = min((each.planned_at for each in machines), default=now)
    ids = {each.id for each in machines}
    mine = [each for each in store.prices_between(start, now) if each.machine_id in ids]
    return {
        machine_id: spend((i for i in mine if i.machine_id == machine_id), start, now)
        for machine_id in ids
    }


def _was_interrupted(machine: Machine) -> bool:
    said = machine.reason.code if machine.reason else ""
    return machine.state is MachineState.INTERRUPTED or "interrupt" in said


# ---------------------------------------------------------------------------------- one machine


def _facts(machine: Machine, mine: Sequence[Charge], now: datetime) -> Sequence[Fact]:
    offer = machine.offer
    place = " / ".join(part for part in (offer.provider, offer.region, offer.zone) if part)
    on_demand = offer.on_demand_usd_hour
    return [
        fact("Autoscaler", machine.autoscaler, href=url("autoscalers", machine.autoscaler)),
        fact("Pool", machine.pool, href=url("offers", pool=machine.pool)),
        fact("Place", dot(place, colour(offer.provider, 6))),
        fact("Type", offer.instance_type, sub=fmt.capacity(machine.total)),
        fact("Market", market_badge(offer.market)),
        fact(
            "Price",
            f"{fmt.money(offer.price_usd_hour)} an hour",
            sub=f"{fmt.money(on_demand)} on demand" if on_demand else "",
        ),
        fact(
            "Cost so far",
            fmt.cents(_sum(mine)),
            href=url("cost", by="job", since="90d", where=f"machine:{machine.id}"),
        ),
        fact("of that idle", fmt.cents(_sum(c for c in mine if c.kind is ChargeKind.IDLE))),
        fact("Age", fmt.since(machine.launched_at, machine.ended_at or now)),
        fact("Cloud id", machine.provider_id, css="id"),
        fact("Bought because", machine.launch_reason.sentence if machine.launch_reason else ""),
        fact("Why this state", machine.reason.sentence if machine.reason else ""),
    ]


def _actions(machine: Machine) -> Sequence[Action]:
    if machine.state not in COUNTED:
        return []
    at = ("machines", machine.id)
    protect = "unprotect" if machine.protected else "protect"
    return [
        *[Action(label="drain", url=url(*at, "drain"))] * (machine.state is MachineState.READY),
        Action(label=protect, url=url(*at, protect)),
        Action(label="terminate…", url=url(*at, "terminate"), css="danger", asks=True),
    ]


def _moments(machine: Machine) -> Sequence[tuple[datetime, str]]:
    named = (
        (machine.planned_at, "planned"),
        (machine.launched_at, "launched"),
        (machine.registered_at, "ready"),
        (machine.interruption_at, "to be taken"),
        (machine.terminating_at, "stopping"),
        (machine.ended_at, "gone"),
    )
    return sorted((at, name) for at, name in named if at is not None)


def _timeline(machine: Machine, mine: Sequence[Charge], now: datetime) -> charts.Timeline:
    end = machine.ended_at or max(now, machine.planned_at + timedelta(seconds=1))
    whole = end - machine.planned_at

    def at(moment: datetime) -> float:
        return min(1.0, max(0.0, (moment - machine.planned_at) / whole))

    launching = machine.launched_at or end
    spans = [
        charts.Span(start=0, end=at(launching), css="sx", tip="launching", lane=0),
        *_state_spans(mine, at),
    ]
    jobs = _job_spans(mine, at)
    return charts.Timeline(
        title=f"Timeline of {machine.id}",
        finding=f"{fmt.duration(whole.total_seconds())} from the decision to buy it",
        spans=[*spans, *jobs],
        marks=[(at(moment), name) for moment, name in _moments(machine)],
        lanes=1 + max((each.lane for each in jobs), default=0),
    )


def _state_spans(mine: Sequence[Charge], at: Callable[[datetime], float]) -> list[charts.Span]:
    """Booting, idle, or busy when anything ran; next to each other of one kind become one."""
    kinds: dict[tuple[datetime, datetime], str] = {}
    for each in mine:
        span = (each.started_at, each.ended_at)
        kinds[span] = "work" if "work" in (kinds.get(span), each.kind) else each.kind.value
    merged: list[tuple[datetime, datetime, str]] = []
    for (start, end), kind in sorted(kinds.items()):
        if merged and merged[-1][2] == kind and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], end, kind)
        else:
            merged.append((start, end, kind))
    return [
        charts.Span(
            start=at(start),
            end=at(end),
            css=_KIND_CSS[kind],
            tip=f"{kind} {fmt.duration((end - start).total_seconds())}",
        )
        for start, end, kind in merged
    ]


def _job_spans(mine: Sequence[Charge], at: Callable[[datetime], float]) -> list[charts.Span]:
    """A lane for each job that ran beside others; the last lane takes the rest."""
    found: list[charts.Span] = []
    lane_ends: list[datetime] = []
    for job_id, pieces in _by_job(mine).items():
        start, end = pieces[0].started_at, pieces[-1].ended_at
        free = (i for i, until in enumerate(lane_ends) if until <= start)
        lane = next(free, min(len(lane_ends), LANES_MAX - 1))
        lane_ends[lane:] = [end, *lane_ends[lane + 1 :]]
        tip = f"{job_id} {fmt.duration((end - start).total_seconds())} {fmt.money(_sum(pieces))}"
        found.append(charts.Span(start=at(start), end=at(end), css="s0", tip=tip, lane=lane + 1))
    return found


def _job_table(mine: Sequence[Charge]) -> Table:
    return Table(
        columns=(("Job", ""), ("Queue", ""), ("Owner", ""), ("From", ""), ("Cost", "num")),
        rows=[
            (
                Cell(text=job_id, href=url("jobs", job_id), css="id"),
                Cell(text=pieces[0].queue, href=url("queues", pieces[0].queue)),
                Cell(text=pieces[0].owner or fmt.NOTHING),
                Cell(text=fmt.clock(pieces[0].started_at)),
                num(fmt.cents(_sum(pieces))),
            )
            for job_id, pieces in reversed(_by_job(mine).items())
        ],
        empty=Empty(text="It has run no job yet."),
    )


def _by_job(mine: Iterable[Charge]) -> dict[str, list[Charge]]:
    found: dict[str, list[Charge]] = {}
    for each in mine:
        if each.job_id:
            found.setdefault(each.job_id, []).append(each)
    return found


def _sum(mine: Iterable[Charge]) -> Decimal:
    return sum((each.cost_usd for each in mine), Decimal(0))
