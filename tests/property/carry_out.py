"""A world in which every action of a plan succeeds at once: enough to ask what comes next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from control_plane.core.lifecycle import MACHINE_ENDED, check_machine
from control_plane.core.model import Lease, Machine, MachineState, Observation, Sighting
from control_plane.core.model import WaitingGroup as Group
from control_plane.core.plan import (
    Action,
    Adopt,
    Hold,
    Launch,
    Mark,
    Plan,
    Reap,
    Requeue,
    Resume,
    Terminate,
    planned_machine,
)
from control_plane.core.snapshot import Snapshot


def carried_out(plan: Plan, snapshot: Snapshot) -> Snapshot:
    """The snapshot of the moment after: same time, every action done, every cloud obedient."""
    world = _World(snapshot)
    for action in plan.actions():
        world.act(action)
    used = {launch.machine_id for launch in plan.launches}
    return replace(
        snapshot,
        machines=tuple(world.machines.values()),
        leases=tuple(world.leases.values()),
        waiting=tuple(world.waiting),
        observations=tuple(world.observations),
        new_machine_ids=tuple(each for each in snapshot.new_machine_ids if each not in used),
    )


class _World:
    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.machines = {machine.id: machine for machine in snapshot.machines}
        self.leases = {lease.job_id: lease for lease in snapshot.leases}
        self.waiting = list(snapshot.waiting)
        self.observations = list(snapshot.observations)

    def act(self, action: Action) -> None:
        match action:
            case Adopt():
                self._adopt(action)
            case Mark():
                self._move(self.machines[action.machine_id], action.state)
            case Requeue():
                self._give_back([self.leases[action.job_id]])
            case Hold():
                machine = self.machines[action.machine_id]
                self.machines[machine.id] = replace(machine, hold_until=action.until)
            case Terminate():
                self._terminate(action)
            case Reap():
                self._show(action.provider, action.provider_id, "gone")
            case Resume():
                self._boot(self.machines[action.machine_id])
            case Launch():
                name = self.snapshot.policy.name
                self._boot(planned_machine(action, name, self.snapshot.now))

    def _move(self, machine: Machine, state: MachineState) -> None:
        check_machine(machine.state, state)
        if state in MACHINE_ENDED:
            del self.machines[machine.id]
        else:
            self.machines[machine.id] = replace(machine, state=state)

    def _adopt(self, action: Adopt) -> None:
        machine = self.machines[action.machine_id]
        state = machine.state
        self.machines[machine.id] = replace(
            machine,
            provider_id=action.provider_id,
            launched_at=action.created_at,
            state=MachineState.BOOTING if state is MachineState.LAUNCHING else state,
        )

    def _terminate(self, action: Terminate) -> None:
        machine = self.machines[action.machine_id]
        held = [lease for lease in self.leases.values() if lease.machine_id == machine.id]
        assert action.hard or not held
        self._give_back(held)
        if machine.provider_id:
            self._show(machine.offer.provider, machine.provider_id, "gone")
            del self.machines[machine.id]
        else:
            now = self.snapshot.now
            self._move(replace(machine, terminating_at=now), MachineState.TERMINATING)

    def _boot(self, machine: Machine) -> None:
        provider_id = f"i-{machine.id}-{machine.attempt}"
        self.machines[machine.id] = replace(
            machine,
            state=MachineState.BOOTING,
            provider_id=provider_id,
            launched_at=self.snapshot.now,
        )
        shown = Sighting(
            machine_id=machine.id,
            provider_id=provider_id,
            provider=machine.offer.provider,
            region=machine.offer.region,
            zone=machine.offer.zone,
            state="running",
            fleet="orchctl-research",
            created_at=self.snapshot.now,
        )
        self.observations = [
            replace(seen, sightings=(*seen.sightings, shown))
            if seen.provider == shown.provider
            else seen
            for seen in self.observations
        ]

    def _show(self, provider: str, provider_id: str, state: str) -> None:
        def changed(seen: Observation) -> Observation:
            sightings = tuple(
                replace(each, state=state) if each.provider_id == provider_id else each
                for each in seen.sightings
            )
            return replace(seen, sightings=sightings) if seen.provider == provider else seen

        self.observations = [changed(seen) for seen in self.observations]

    def _give_back(self, leases: Iterable[Lease]) -> None:
        for lease in list(leases):
            del self.leases[lease.job_id]
            if lease.queue in self.snapshot.policy.queues:
                self._wait(lease)

    def _wait(self, lease: Lease) -> None:
        for place, group in enumerate(self.waiting):
            if (group.queue, group.priority, group.need) == (lease.queue, 0, lease.need):
                self.waiting[place] = replace(group, count=group.count + 1, ripe=group.ripe + 1)
                return
        self.waiting.append(
            Group(
                queue=lease.queue,
                priority=0,
                need=lease.need,
                count=1,
                ripe=1,
                oldest_at=lease.leased_at,
            )
        )
