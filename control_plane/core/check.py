"""A second pair of eyes on a plan: written apart from the planner, run before every execution.

A finding means that the planner broke a promise. Nothing of such a plan is carried out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from control_plane.core.lifecycle import COUNTED, MACHINE_EDGES
from control_plane.core.model import MachineState, Offer
from control_plane.core.plan import Plan
from control_plane.core.snapshot import Snapshot

_OPEN_LAUNCH = frozenset({MachineState.PLANNED, MachineState.LAUNCHING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One promise a plan would break."""

    code: str
    sentence: str


def check(plan: Plan, snapshot: Snapshot) -> tuple[Finding, ...]:
    """Everything that is wrong with a plan; empty = it may be carried out."""
    states = {machine.id: machine.state for machine in snapshot.machines}
    return (
        *_launch_findings(plan, snapshot, states),
        *_cap_findings(plan, snapshot),
        *_mark_findings(plan, states),
        *_ending_findings(plan, snapshot, states),
        *_requeue_findings(plan, snapshot),
    )


def _launch_findings(
    plan: Plan, snapshot: Snapshot, states: Mapping[str, MachineState]
) -> Iterator[Finding]:
    ids = Counter(launch.machine_id for launch in plan.launches)
    wrong = _wrong_offers(plan, snapshot)
    for launch in plan.launches:
        pool = snapshot.policy.pools.get(launch.pool)
        if ids[launch.machine_id] > 1 or launch.machine_id in states:
            yield Finding(code="duplicate-id", sentence=f"{launch.machine_id} is not a new id")
        if not launch.offers:
            yield Finding(code="no-offer", sentence=f"{launch.machine_id} has no offer to buy")
        if pool is None:
            yield Finding(code="no-pool", sentence=f"there is no pool {launch.pool}")
        elif (launch.pool, id(launch.offers)) in wrong:
            yield Finding(
                code="wrong-offer", sentence=f"pool {pool.name} does not accept every offer chosen"
            )
    if plan.launches and (snapshot.paused or snapshot.deleting):
        yield Finding(code="paused", sentence="a paused autoscaler must not buy")


def _wrong_offers(plan: Plan, snapshot: Snapshot) -> set[tuple[str, int]]:
    """Pools, and choices of offers that they do not accept, by identity: equal machines of a plan
    share their choice, so it is looked at once."""
    choices = {(launch.pool, id(launch.offers)): launch.offers for launch in plan.launches}
    pools = snapshot.policy.pools
    return {
        (name, choice)
        for (name, choice), offers in choices.items()
        if name in pools and not all(pools[name].accepts(offer) for offer in offers)
    }


def _cap_findings(plan: Plan, snapshot: Snapshot) -> Iterator[Finding]:
    if not plan.launches:
        return
    machines: Counter[str] = Counter()
    gpus: Counter[str] = Counter()
    rate = Decimal(0)
    for (pool_name, most, usd_hour), count in (_there(snapshot) + _bought(plan)).items():
        machines[pool_name] += count
        gpus[pool_name] += count * most
        rate += count * usd_hour
    cap = snapshot.policy.budget.hour_usd
    if rate > cap:
        yield Finding(code="cap-hour", sentence=f"{rate} USD/hour is over {cap} USD/hour")
    growing = {launch.pool for launch in plan.launches}
    for name, pool in snapshot.policy.pools.items():
        if name in growing and machines[name] > pool.machines_max:
            yield Finding(code="cap-machines", sentence=f"pool {name} would pass its maximum")
        if name in growing and gpus[name] > pool.gpus_max:
            yield Finding(code="cap-gpus", sentence=f"pool {name} would pass its GPU maximum")


_Worst = tuple[str, int, Decimal]
"""A pool, and the most GPUs and US dollars an hour that one machine of it may come to."""


def _there(snapshot: Snapshot) -> Counter[_Worst]:
    """Machines share their offers, so each is looked at once."""
    worst: Counter[_Worst] = Counter()
    settled: dict[tuple[str, int], list[Offer]] = defaultdict(list)
    for machine in snapshot.machines:
        if machine.state in _OPEN_LAUNCH:
            offers = (machine.offer, *machine.offers[machine.attempt :])
            worst[machine.pool, *_at_worst(offers)] += 1
        elif machine.state in COUNTED:
            offer = machine.offer
            settled[machine.pool, id(offer)].append(offer)
    for (pool, _), same in settled.items():
        worst[pool, *_at_worst(same[:1])] += len(same)
    return worst


def _bought(plan: Plan) -> Counter[_Worst]:
    """Equal machines share their choice of offers, so it is looked at once."""
    choices = {id(launch.offers): launch.offers for launch in plan.launches}
    machines = Counter([(launch.pool, id(launch.offers)) for launch in plan.launches])
    worst: Counter[_Worst] = Counter()
    for (pool, choice), count in machines.items():
        worst[pool, *_at_worst(choices[choice])] += count
    return worst


def _at_worst(offers: Sequence[Offer]) -> tuple[int, Decimal]:
    """The most GPUs and the highest price that one of these offers has."""
    gpus, usd_hour = 0, Decimal(0)
    for offer in offers:
        if offer.capacity.gpus > gpus:
            gpus = offer.capacity.gpus
        if offer.price_usd_hour > usd_hour:
            usd_hour = offer.price_usd_hour
    return gpus, usd_hour


def _mark_findings(plan: Plan, states: Mapping[str, MachineState]) -> Iterator[Finding]:
    marked = dict(states)
    for mark in plan.marks:
        old = marked.get(mark.machine_id)
        if old is None or (mark.state is not old and mark.state not in MACHINE_EDGES[old]):
            yield Finding(
                code="illegal-edge", sentence=f"{mark.machine_id} may not become {mark.state}"
            )
        else:
            marked[mark.machine_id] = mark.state


def _ending_findings(
    plan: Plan, snapshot: Snapshot, states: Mapping[str, MachineState]
) -> Iterator[Finding]:
    given_back = {requeue.job_id for requeue in plan.requeues}
    ended = {ending.machine_id for ending in plan.terminations}
    busy: dict[str, str] = {}
    for lease in snapshot.leases:
        if lease.machine_id in ended and lease.job_id not in given_back:
            busy.setdefault(lease.machine_id, lease.job_id)
    for ending in plan.terminations:
        name = ending.machine_id
        if name not in states:
            yield Finding(code="no-machine", sentence=f"{name} has no record")
        elif name in busy and not ending.hard:
            yield Finding(code="busy", sentence=f"{name} still runs {busy[name]}")


def _requeue_findings(plan: Plan, snapshot: Snapshot) -> Iterator[Finding]:
    seen = Counter((requeue.job_id, requeue.epoch) for requeue in plan.requeues)
    job_ids = {job_id for job_id, _ in seen}
    leases = {(each.job_id, each.epoch) for each in snapshot.leases if each.job_id in job_ids}
    for key, times in sorted(seen.items()):
        if key not in leases:
            yield Finding(code="no-lease", sentence=f"{key[0]} is not leased at epoch {key[1]}")
        if times > 1:
            yield Finding(code="twice", sentence=f"{key[0]} would be given back twice")
