"""What people do to autoscalers and machines. Nothing here talks to a cloud: it changes what the
loop will find at its next look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from control_plane.core.lifecycle import MACHINE_ENDED
from control_plane.core.model import Machine, MachineState, QueueRecord, Reason
from control_plane.core.policy import Autoscaler, AutoscalerRecord
from control_plane.errors import Conflict, NotFound, Refused
from control_plane.service import Service

_TRIES = 5
"""A person's wish is worth repeating against a loop that wrote the same row a moment before."""


class Fleet:
    """Autoscaler and machine operations."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._store = service.store

    # ------------------------------------------------------------------------ autoscalers

    def apply(
        self, document: str, policy: Autoscaler, *, expected_version: int | None, actor: str = ""
    ) -> AutoscalerRecord:
        """Make a document the one in force; the same text again changes nothing. With an
        `expected_version` (0 = new) raises `Conflict` when somebody else applied in between.
        Raises `Refused` for a queue that another autoscaler declares."""
        current = self._current(policy.name)
        version = current.version if current else 0
        if expected_version is not None and expected_version != version:
            raise Conflict(
                f"autoscaler {policy.name} is at version {version}, not {expected_version}",
                fix="read it again, then apply",
            )
        self._refuse_foreign_queues(policy)
        if current is not None and current.document == document and not current.deleting:
            self._claim_queues(policy, actor)  # a crash may have come between, the last time
            return current
        record = AutoscalerRecord(
            name=policy.name,
            version=version + 1,
            document=document,
            policy=policy,
            applied_at=self._service.clock.now(),
            applied_by=actor,
            paused=current.paused if current else False,
        )
        self._store.autoscaler_put(record, expected_version=version)
        self._service.forget()
        self._claim_queues(policy, actor)
        self._service.note("autoscaler", policy.name, f"applied version {version + 1}", actor=actor)
        self._service.changed()
        return record

    def pause(self, name: str, *, paused: bool, actor: str = "") -> AutoscalerRecord:
        """Stop or resume buying; what runs goes on and still ends when idle."""
        return self._change(
            name, "paused" if paused else "resumed", actor, lambda r: replace(r, paused=paused)
        )

    def delete(self, name: str, *, actor: str = "") -> AutoscalerRecord:
        """Drain everything; the loop removes the autoscaler when its last machine is gone."""
        return self._change(name, "deleting", actor, lambda r: replace(r, deleting=True))

    def _change(
        self,
        name: str,
        what: str,
        actor: str,
        change: Callable[[AutoscalerRecord], AutoscalerRecord],
    ) -> AutoscalerRecord:
        old = self._store.autoscaler_get(name)
        new = change(old)
        if new == old:
            return old
        new = replace(new, version=old.version + 1)
        self._store.autoscaler_put(new, expected_version=old.version)
        self._service.forget()
        self._service.note("autoscaler", name, what, actor=actor)
        self._service.changed()
        return new

    def _current(self, name: str) -> AutoscalerRecord | None:
        try:
            return self._store.autoscaler_get(name)
        except NotFound:
            return None

    def _refuse_foreign_queues(self, policy: Autoscaler) -> None:
        for record in self._store.queue_list():
            foreign = record.autoscaler not in ("", policy.name)
            if record.name in policy.queues and foreign and self._declares(record):
                raise Refused(
                    f"queue {record.name} belongs to autoscaler {record.autoscaler}",
                    fix="name the queue differently, or take it out of the other document first",
                )

    def _claim_queues(self, policy: Autoscaler, actor: str) -> None:
        """Make the records of its queues say what the document says of them."""
        records = {record.name: record for record in self._store.queue_list()}
        claimed = {name for name, record in records.items() if record.autoscaler == policy.name}
        now = self._service.clock.now()
        for name in sorted(claimed | set(policy.queues)):
            old = records.get(name) or QueueRecord(name=name, version=0, created_at=now)
            new = _as_declared(old, policy)
            if new != old:
                what = f"declared by {policy.name}" if old.version else "created"
                self._service.queue_write(replace(new, version=old.version + 1), what, actor=actor)

    def _declares(self, record: QueueRecord) -> bool:
        owner = self._current(record.autoscaler)
        return owner is not None and record.name in owner.policy.queues

    # ------------------------------------------------------------------------ machines

    def drain(self, machine_id: str, *, actor: str = "") -> Machine:
        """Give it no more jobs; it ends when its last one has. One that drains or ends already is
        returned as it is. Raises `Refused` for a machine that is not up yet."""

        def change(machine: Machine) -> Machine:
            if machine.state in _ENDING:
                return machine
            if machine.state is not MachineState.READY:
                raise Refused(
                    f"machine {machine_id} is {machine.state}, there is nothing to drain",
                    fix=f"orchctl machine terminate {machine_id}",
                )
            reason = _by(actor, "drained")
            return replace(machine, state=MachineState.DRAINING, reason=reason, hold_until=None)

        return self._change_machine(machine_id, "drained by hand", actor, change)

    def protect(self, machine_id: str, *, protected: bool, actor: str = "") -> Machine:
        """Forbid or allow ending a machine for idleness."""
        what = "protected" if protected else "no longer protected"
        return self._change_machine(
            machine_id, what, actor, lambda m: replace(m, protected=protected)
        )

    def terminate(self, machine_id: str, *, actor: str = "") -> Machine:
        """End a machine now; its jobs are given back. Repeating it changes nothing."""

        def change(machine: Machine) -> Machine:
            if machine.state in MACHINE_ENDED or machine.state is MachineState.TERMINATING:
                return machine
            if machine.state is MachineState.PLANNED:
                reason = _by(actor, "taken back before it was launched")
                return replace(machine, state=MachineState.LAUNCH_FAILED, reason=reason)
            reason = _by(actor, "terminated")
            return replace(machine, state=MachineState.TERMINATING, reason=reason)

        return self._change_machine(machine_id, "terminated by hand", actor, change)

    def _change_machine(
        self, machine_id: str, what: str, actor: str, change: Callable[[Machine], Machine]
    ) -> Machine:
        for last in (False,) * (_TRIES - 1) + (True,):
            old = self._store.machine_get(machine_id)
            new = change(old)
            if new == old:
                return old
            try:
                new = self._store.machine_put(new, expected_version=old.version, fence=None)
            except Conflict:
                if last:
                    raise
                continue
            break
        self._service.note("machine", machine_id, what, actor=actor)
        self._service.changed()
        return new


def _as_declared(record: QueueRecord, policy: Autoscaler) -> QueueRecord:
    """A queue that the document no longer names keeps its jobs and loses its limits."""
    queue = policy.queues.get(record.name)
    return replace(
        record,
        autoscaler=policy.name,
        max_running=queue.max_running if queue else None,
        max_running_per_owner=queue.max_running_per_owner if queue else None,
    )


def _by(actor: str, what: str) -> Reason:
    return Reason(code="by-hand", sentence=f"{what} by {actor or 'request'}")


_ENDING: Sequence[MachineState] = (
    MachineState.DRAINING,
    MachineState.TERMINATING,
    MachineState.BOOT_FAILED,
    MachineState.INTERRUPTED,
    MachineState.LOST,
    *MACHINE_ENDED,
)
