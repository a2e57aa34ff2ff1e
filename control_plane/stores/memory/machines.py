"""Machine records in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from control_plane.core.lifecycle import MACHINE_ENDED
from control_plane.core.model import Lease, Machine
from control_plane.ports import Fence
from control_plane.stores import transitions
from control_plane.stores.memory.tables import ALL, Tables, atomic


class Machines(Tables):
    """`ports.MachineStore`."""

    @atomic
    def machine_put(
        self, machine: Machine, *, expected_version: int, fence: Fence | None
    ) -> Machine:
        if fence is not None:
            self._check_fence(fence)
        merged = transitions.merged(self._machines.get(machine.id), machine, expected_version)
        self._machines[machine.id] = merged
        return merged

    @atomic
    def machine_get(self, machine_id: str) -> Machine:
        return self._machine(machine_id)

    @atomic
    def machine_list(
        self, *, autoscaler: str = "", open_only: bool = True, limit: int = 10_000
    ) -> Sequence[Machine]:
        found = [
            machine
            for machine in self._machines.values()
            if autoscaler in ("", machine.autoscaler)
            and not (open_only and machine.state in MACHINE_ENDED)
        ]
        return tuple(sorted(found, key=lambda each: (each.planned_at, each.id))[:limit])

    @atomic
    def fleet_read(
        self,
        *,
        sure: bool = True,  # noqa: ARG002 - nothing here ever lags behind
    ) -> tuple[Sequence[Machine], Sequence[Lease]]:
        return self.machine_list(limit=ALL), self._leases_of(self._held_jobs())

    @atomic
    def machine_beat(self, machine_id: str, *, now: datetime) -> None:
        machine = self._machine(machine_id)
        beaten = replace(machine, last_beat_at=max(now, machine.last_beat_at or now))
        self._machines[machine_id] = beaten
