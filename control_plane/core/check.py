"""A second pair of eyes on a plan: written apart from the planner, run before every execution.

A finding means that the planner broke a promise. Nothing of such a plan is carried out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from control_plane.core.lifecycle import COUNTED, MACHINE_EDGES
from control_plane.core.model import Machine, MachineState, Offer
from control_plane.core.plan import Plan
from control_plane.core.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One promise a plan would break."""

    code: str
    sentence: str


def check(plan: Plan, snapshot: Snapshot) -> tuple[Finding, ...]:
    """Everything that is wrong with a plan; empty = it may be carried out."""
    return (
        *_launch_findings(plan, snapshot),
        *_cap_findings(plan, snapshot),
        *_ending_findings(plan, snapshot),
        *_requeue_findings(plan, snapshot),
    )


def _launch_findings(plan: Plan, snapshot: Snapshot) -> Iterator[Finding]:
    known = {machine.id for machine in snapshot.machines}
    ids = Counter(launch.machine_id for launch in plan.launches)
    for launch in plan.launches:
        pool = snapshot.policy.pools.get(launch.pool)
        if ids[launch.machine_id] > 1 or launch.machine_id in known:
            yield Finding(code="duplicate-id", sentence=f"{launch.machine_id} is not a new id")
        if not launch.offers:
            yield Finding(code="no-offer", sentence=f"{launch.machine_id} has no offer to buy")
        if pool is None:
            yield Finding(code="no-pool", sentence=f"there is no pool {launch.pool}")
        elif not all(pool.accepts(offer) for offer in launch.offers):
            yield Finding(
                code="wrong-offer", sentence=f"pool {pool.name} does not accept every offer chosen"
            )
    if plan.launches and (snapshot.paused or snapshot.deleting):
        yield Finding(code="paused", sentence="a paused autoscaler must not buy")


def _cap_findings(plan: Plan, snapshot: Snapshot) -> Iterator[Finding]:
    counted = [machine for machine in snapshot.machines if machine.state in COUNTED]
    rate = sum((_worst(_may_become(m)) for m in counted), Decimal(0))
    rate += sum((_worst(launch.offers) for launch in plan.launches), Decimal(0))
    cap = snapshot.policy.budget.hour_usd
    if plan.launches and rate > cap:
        yield Finding(code="cap-hour", sentence=f"{rate} USD/hour is over {cap} USD/hour")
    for name, pool in snapshot.policy.pools.items():
        bought = [launch for launch in plan.launches if launch.pool == name]
        if not bought:
            continue
        mine = [machine for machine in counted if machine.pool == name]
        if len(mine) + len(bought) > pool.machines_max:
            yield Finding(code="cap-machines", sentence=f"pool {name} would pass its maximum")
        gpus = sum(max(o.capacity.gpus for o in _may_become(m)) for m in mine)
        gpus += sum(max((o.capacity.gpus for o in launch.offers), default=0) for launch in bought)
        if gpus > pool.gpus_max:
            yield Finding(code="cap-gpus", sentence=f"pool {name} would pass its GPU maximum")


def _may_become(machine: Machine) -> tuple[Offer, ...]:
    open_launch = machine.state in (MachineState.PLANNED, MachineState.LAUNCHING)
    return (machine.offer, *machine.offers[machine.attempt :]) if open_launch else (machine.offer,)


def _worst(offers: tuple[Offer, ...]) -> Decimal:
    return max((offer.price_usd_hour for offer in offers), default=Decimal(0))


def _ending_findings(plan: Plan, snapshot: Snapshot) -> Iterator[Finding]:
    machines = {machine.id: machine for machine in snapshot.machines}
    given_back = {requeue.job_id for requeue in plan.requeues}
    states = {machine.id: machine.state for machine in snapshot.machines}
    for mark in plan.marks:
        old = states.get(mark.machine_id)
        if old is None or (mark.state is not old and mark.state not in MACHINE_EDGES[old]):
            yield Finding(
                code="illegal-edge", sentence=f"{mark.machine_id} may not become {mark.state}"
            )
        else:
            states[mark.machine_id] = mark.state
    for ending in plan.terminations:
        if ending.machine_id not in machines:
            yield Finding(code="no-machine", sentence=f"{ending.machine_id} has no record")
            continue
        busy = [
            lease
            for lease in snapshot.leases
            if lease.machine_id == ending.machine_id and lease.job_id not in given_back
        ]
        if busy and not ending.hard:
            yield Finding(code="busy", sentence=f"{ending.machine_id} still runs {busy[0].job_id}")


def _requeue_findings(plan: Plan, snapshot: Snapshot) -> Iterator[Finding]:
    leases = {(lease.job_id, lease.epoch) for lease in snapshot.leases}
    seen = Counter((requeue.job_id, requeue.epoch) for requeue in plan.requeues)
    for key, times in sorted(seen.items()):
        if key not in leases:
            yield Finding(code="no-lease", sentence=f"{key[0]} is not leased at epoch {key[1]}")
        if times > 1:
            yield Finding(code="twice", sentence=f"{key[0]} would be given back twice")
