"""Waiting work against what serves or will serve: what is left over has to be bought.

Everything in flight counts as supply, so nothing is bought twice, and the same supply serves all
queues that share a pool, so two queues never both buy for the room that one machine has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from control_plane.core.model import Lease, Machine, MachineState, Need, WaitingGroup
from control_plane.core.policy import QueuePolicy
from control_plane.core.recovery import Recovery
from control_plane.core.snapshot import Snapshot
from control_plane.core.supply import (
    NOTHING,
    Amounts,
    Rank,
    Room,
    Supply,
    amounts_of,
    both,
    room_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmet:
    """Jobs of one kind that have waited long enough and for which there is no room."""

    group: WaitingGroup
    count: int


@dataclass(slots=True)
class Tally:
    """One queue's waiting jobs and where they go: the figures of its report."""

    waiting: int = 0
    ripe: int = 0
    on_ready: int = 0
    on_booting: int = 0
    bought_for: int = 0
    left: int = 0
    exact: bool = True
    """False: more wait than were counted."""


@dataclass(slots=True)
class Demand:
    """What is wanted beyond what is there."""

    supply: Supply
    unmet: list[Unmet] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    """Machines that waiting jobs will go to: not idle, whatever their clock says."""
    tallies: dict[str, Tally] = field(default_factory=dict)


def demand(snapshot: Snapshot, recovery: Recovery) -> Demand:
    """Put the waiting jobs onto the supply, the most urgent first; list what does not fit."""
    queues = _by_urgency(snapshot)
    groups = [(queue, group) for queue in queues for group in _groups(snapshot, queue)]
    asked = {pool for queue, _ in groups for pool in queue.pools}
    serving = (machine for machine in recovery.serving if machine.pool in asked)
    result = Demand(supply=_supply(serving, snapshot.leases))
    result.tallies = {queue.name: Tally() for queue in queues}
    early = []
    for queue, group in groups:
        left = _serve(result, queue, group.need, group.ripe)
        result.tallies[queue.name].waiting += group.count
        result.tallies[queue.name].ripe += group.ripe
        result.tallies[queue.name].exact &= group.exact
        if left:
            result.unmet.append(Unmet(group=group, count=left))
        else:
            early.append((queue, group))
    # Jobs that may still wait come after all that may not: they must not take the room that was
    # bought for others, or it would be bought again.
    for queue, group in early:
        _serve(result, queue, group.need, group.count - group.ripe)
    return result


def _serve(result: Demand, queue: QueuePolicy, need: Need, count: int) -> int:
    """Put jobs of one need onto the supply; returns how many found no room."""
    tally = result.tallies[queue.name]
    for rank, machines in result.supply.take(queue.pools, need, count).items():
        jobs = sum(machines.values())
        count -= jobs
        result.used.update(machines)
        if rank is Rank.READY:
            tally.on_ready += jobs
        else:
            tally.on_booting += jobs
    return count


def _supply(serving: Iterable[Machine], leases: Iterable[Lease]) -> Supply:
    used, up = _used(leases), MachineState.READY
    # By identity, since many machines share one capacity, and comparing two takes far longer.
    alike: dict[tuple[str, int, Amounts], list[Machine]] = defaultdict(list)
    coming = []
    for machine in serving:
        at_work = used.get(machine.id, NOTHING)
        if machine.state is up:
            alike[machine.pool, id(machine.total), at_work].append(machine)
        else:
            room = room_of(machine.total, at_work)
            coming.append((machine.planned_at, machine.id, machine.pool, room))
    ready: dict[tuple[str, Room], list[str]] = defaultdict(list)
    for (pool, _, at_work), machines in alike.items():
        room = room_of(machines[0].total, at_work)
        ready[pool, room] += [machine.id for machine in machines]
    supply = Supply()
    for (pool, room), machine_ids in ready.items():
        supply.add(pool, Rank.READY, room, sorted(machine_ids))
    for _, machine_id, pool, room in sorted(coming):
        supply.add(pool, Rank.BOOTING, room, [machine_id])
    return supply


def _used(leases: Iterable[Lease]) -> dict[str, Amounts]:
    """What the jobs of each machine use."""
    used: dict[str, Amounts] = {}
    for lease in leases:
        machine_id, amounts = lease.machine_id, amounts_of(lease.need)
        before = used.get(machine_id)
        used[machine_id] = amounts if before is None else both(before, amounts)
    return used


def _by_urgency(snapshot: Snapshot) -> list[QueuePolicy]:
    """Queues in the order in which machines take their jobs."""
    oldest: dict[str, datetime] = {}
    for group in snapshot.waiting:
        oldest[group.queue] = min(group.oldest_at, oldest.get(group.queue, group.oldest_at))
    served = [
        queue
        for queue in snapshot.policy.queues.values()
        if queue.name not in snapshot.queues_paused
    ]
    return sorted(
        served, key=lambda q: (-q.aged_priority(oldest.get(q.name), snapshot.now), q.name)
    )


def _groups(snapshot: Snapshot, queue: QueuePolicy) -> list[WaitingGroup]:
    """A queue's waiting jobs: by priority, then the large ones first, which wastes least room."""

    def order(group: WaitingGroup) -> tuple[object, ...]:
        need = group.need
        size = (-need.gpus, -need.share_ppm, -need.cpus, -need.memory_mib, -need.disk_gib)
        return (-group.priority, *size, need.gpu_name, need.gpu_memory_gib, need.on_demand_only)

    return sorted((g for g in snapshot.waiting if g.queue == queue.name), key=order)
