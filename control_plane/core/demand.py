"""Waiting work against what serves or will serve: what is left over has to be bought.

Everything in flight counts as supply, so nothing is bought twice, and the same supply serves all
queues that share a pool, so two queues never both buy for the room that one machine has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from control_plane.core.lifecycle import SUPPLY
from control_plane.core.model import Lease, Machine, MachineState, WaitingGroup
from control_plane.core.policy import QueuePolicy
from control_plane.core.recovery import Recovery
from control_plane.core.snapshot import Snapshot
from control_plane.core.supply import Rank, Supply


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmet:
    """Jobs of one kind for which there is no room."""

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
    result = Demand(supply=_supply(recovery.serving, snapshot.leases))
    for queue in _by_urgency(snapshot):
        tally = result.tallies.setdefault(queue.name, Tally())
        for group in _groups(snapshot, queue):
            _serve(result, tally, queue, group)
    return result


def _serve(result: Demand, tally: Tally, queue: QueuePolicy, group: WaitingGroup) -> None:
    tally.waiting += group.count
    tally.ripe += group.ripe
    left = group.count
    for pool in queue.pools:
        taken = result.supply.take(pool, group.need, left)
        for rank, machines in taken.items():
            jobs = sum(machines.values())
            left -= jobs
            result.used.update(machines)
            if rank is Rank.READY:
                tally.on_ready += jobs
            else:
                tally.on_booting += jobs
    # The oldest are served first, so it is the youngest that are left: only those among the
    # ripe that outnumber the served are worth buying for.
    ripe_left = max(0, group.ripe - (group.count - left))
    if ripe_left:
        result.unmet.append(Unmet(group=group, count=ripe_left))


def _supply(serving: Iterable[Machine], leases: Iterable[Lease]) -> Supply:
    supply = Supply()
    free = {machine.id: machine.total for machine in serving}
    for lease in leases:
        if lease.machine_id in free:
            free[lease.machine_id] = free[lease.machine_id].less(lease.need)
    for machine in serving:
        if machine.state in SUPPLY:
            rank = Rank.READY if machine.state is MachineState.READY else Rank.BOOTING
            supply.add(machine.pool, rank, machine.id, free[machine.id])
    return supply


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
        served, key=lambda q: (-aged_priority(q, oldest.get(q.name), snapshot.now), q.name)
    )


def aged_priority(queue: QueuePolicy, oldest_at: datetime | None, now: datetime) -> int:
    """A queue's priority, one step higher each time its longest waiter has waited `ageing_s`."""
    if oldest_at is None:
        return queue.priority
    return queue.priority + int((now - oldest_at).total_seconds() // queue.ageing_s)


def _groups(snapshot: Snapshot, queue: QueuePolicy) -> list[WaitingGroup]:
    """A queue's waiting jobs: by priority, then the large ones first, which wastes least room."""

    def order(group: WaitingGroup) -> tuple[object, ...]:
        need = group.need
        size = (-need.gpus, -need.share_ppm, -need.cpus, -need.memory_mib, -need.disk_gib)
        return (-group.priority, *size, need.gpu_name, need.gpu_memory_gib, need.on_demand_only)

    return sorted((g for g in snapshot.waiting if g.queue == queue.name), key=order)
