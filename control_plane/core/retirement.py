"""Which machines are no longer needed: idle, past their life, over budget, superfluous.

A machine that waiting jobs will use is never idle; a machine that holds a lease is drained, not
ended, unless its hard limit has passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import nsmallest

from control_plane.core import reasons
from control_plane.core.budget import Caps
from control_plane.core.demand import Demand
from control_plane.core.model import Machine, MachineState, Reason
from control_plane.core.placement import warm_machines
from control_plane.core.plan import Hold, Mark, Terminate
from control_plane.core.policy import AtLimit, PoolPolicy
from control_plane.core.recovery import Recovery
from control_plane.core.schedule import open_windows
from control_plane.core.snapshot import Snapshot

HOLD_S = 1800
"""A hold lasts this long and is renewed at half of it: when the control plane dies, a kept machine
goes idle like any other instead of running for ever."""

UNDECLARED_LIFETIME_S = 86_400
"""Of a machine whose pool was taken out of the document: the default of a pool, in which what it
runs may end."""


@dataclass(slots=True)
class Retirement:
    """Machines to keep and to end."""

    holds: list[Hold] = field(default_factory=list)
    terminations: list[Terminate] = field(default_factory=list)


def drain(snapshot: Snapshot, recovery: Recovery, caps: Caps) -> list[Mark]:
    """Machines that must take no new job: from here on they do not count as serving."""
    leaving = _leaving(snapshot, recovery)
    leaving |= _superfluous(snapshot, recovery, leaving)
    used_up = caps.used_up() if snapshot.policy.budget.at_limit is AtLimit.DRAIN else None
    marks, staying = [], []
    for machine in recovery.serving:
        why = leaving.get(machine.id, used_up)
        if why and machine.state is MachineState.READY:
            marks.append(Mark(machine_id=machine.id, state=MachineState.DRAINING, reason=why))
        else:
            staying.append(machine)
    recovery.serving = staying
    return marks


def retire(snapshot: Snapshot, recovery: Recovery, demand: Demand) -> Retirement:
    """Look at every machine that serves, and at those that drain since an earlier plan."""
    result, leased = Retirement(), _leased(snapshot)
    needed = demand.used | _held(snapshot, recovery, leased, result)
    for machine in recovery.serving:
        free = machine.id not in leased and machine.id not in needed and not machine.protected
        if free and machine.state is MachineState.READY:
            _end_if_idle(snapshot, machine, result)
    _end_drained(snapshot, recovery, leased, result)
    return result


def _leased(snapshot: Snapshot) -> set[str]:
    return {lease.machine_id for lease in snapshot.leases}


def _leaving(snapshot: Snapshot, recovery: Recovery) -> dict[str, Reason]:
    """Machines that may not stay, whatever there is to do."""
    pools = snapshot.policy.pools
    if snapshot.deleting:
        deleting = reasons.deleting(snapshot.policy.name)
        return {machine.id: deleting for machine in recovery.serving}
    limits = {pool.name: timedelta(seconds=pool.max_lifetime_s) for pool in pools.values()}
    found = {}
    for machine in recovery.serving:
        limit = limits.get(machine.pool)
        if limit is None:
            found[machine.id] = reasons.pool_removed(machine)
        elif snapshot.now - (machine.launched_at or machine.planned_at) >= limit:
            limit_s = pools[machine.pool].max_lifetime_s
            found[machine.id] = reasons.max_lifetime(machine, limit_s)
    return found


def _end_if_idle(snapshot: Snapshot, machine: Machine, result: Retirement) -> None:
    pool = snapshot.policy.pools[machine.pool]
    since = machine.idle_since or machine.registered_at
    if since is None:
        return
    idle = snapshot.now - since
    if idle >= timedelta(seconds=pool.idle_timeout_s + snapshot.timing.idle_grace_s):
        reason = reasons.idle(machine, int(idle.total_seconds()), pool.idle_timeout_s)
        result.terminations.append(Terminate(machine_id=machine.id, reason=reason))


def _end_drained(
    snapshot: Snapshot, recovery: Recovery, leased: set[str], result: Retirement
) -> None:
    settled, draining = {mark.machine_id for mark in recovery.marks}, MachineState.DRAINING
    for machine in snapshot.machines:
        if machine.state is not draining or machine.id in settled:
            continue
        if machine.id not in leased:
            reason = machine.reason or reasons.ended(machine)
            result.terminations.append(Terminate(machine_id=machine.id, reason=reason))
        elif _past_hard_limit(snapshot, machine):
            reason = reasons.max_lifetime(machine, _lifetime_s(snapshot, machine))
            result.terminations.append(Terminate(machine_id=machine.id, reason=reason, hard=True))


def _past_hard_limit(snapshot: Snapshot, machine: Machine) -> bool:
    limit_s = _lifetime_s(snapshot, machine) + snapshot.timing.lifetime_grace_s
    return snapshot.now - (machine.launched_at or machine.planned_at) >= timedelta(seconds=limit_s)


def _lifetime_s(snapshot: Snapshot, machine: Machine) -> int:
    pool = snapshot.policy.pools.get(machine.pool)
    return pool.max_lifetime_s if pool else UNDECLARED_LIFETIME_S


def _superfluous(
    snapshot: Snapshot, recovery: Recovery, leaving: Mapping[str, Reason]
) -> dict[str, Reason]:
    """Machines beyond a pool's maximum (it was lowered): the idle ones go first, then the
    youngest."""
    found: dict[str, Reason] = {}
    there = Counter([m.pool for m in recovery.serving if m.id not in leaving])
    for pool in snapshot.policy.pools.values():
        excess = there[pool.name] - pool.machines_max
        if excess > 0:
            leased, why = _leased(snapshot), reasons.superfluous(pool, there[pool.name])
            mine = [m for m in recovery.serving if m.pool == pool.name and m.id not in leaving]
            ready = [machine for machine in mine if machine.state is MachineState.READY]
            ready.sort(key=lambda m: (m.id in leased, -m.planned_at.timestamp(), m.id))
            found |= {machine.id: why for machine in ready[:excess]}
    return found


def _held(snapshot: Snapshot, recovery: Recovery, leased: set[str], result: Retirement) -> set[str]:
    """The machines that a minimum or a warm window keeps; holds are written where they change."""
    kept: set[str] = set()
    held = Counter([m.pool for m in recovery.serving if m.hold_until is not None])
    for pool in snapshot.policy.pools.values():
        wanted, why = _wanted(snapshot, pool)
        if not wanted and not held[pool.name]:
            continue
        # Those held already come first, so that the choice does not wander from tick to tick.
        mine = nsmallest(
            max(wanted, held[pool.name]),
            (machine for machine in recovery.serving if machine.pool == pool.name),
            key=lambda m: (m.hold_until is None, m.id not in leased, m.planned_at, m.id),
        )
        kept.update(machine.id for machine in mine[:wanted])
        for machine in mine[:wanted]:
            _renew(snapshot.now, machine, why, result)
        for machine in mine[wanted:]:
            result.holds.append(Hold(machine_id=machine.id, until=None, reason=why))
    return kept


def _wanted(snapshot: Snapshot, pool: PoolPolicy) -> tuple[int, Reason]:
    wanted, why = warm_machines(pool, snapshot.now)
    resting = snapshot.paused or snapshot.deleting or open_windows(pool.closed, snapshot.now)
    return (0 if resting else wanted), why


def _renew(now: datetime, machine: Machine, why: Reason, result: Retirement) -> None:
    until = now + timedelta(seconds=HOLD_S)
    if machine.hold_until is None or until - machine.hold_until >= timedelta(seconds=HOLD_S / 2):
        result.holds.append(Hold(machine_id=machine.id, until=until, reason=why))
