"""Machines that their cloud takes, whoever says so first: the machine's own agent, which asks the
metadata service, or the cloud from outside.

A delivery may come twice, late, out of order, or be about a machine of somebody else: what is known
already changes nothing, and what has ended stays so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from control_plane.core.model import Machine, MachineState, Reason
from control_plane.errors import Conflict, Denied, Unavailable
from control_plane.ports import CloudNotice, NoticeKind, Told
from control_plane.service import Service

TRIES = 5
"""At a record that others write at the same moment."""

HINTS_KEPT = 1_000
"""Machines of which it is remembered that a hint was noted."""

_NEXT = {
    # Nothing runs on a machine that boots, and nothing should begin to.
    MachineState.BOOTING: MachineState.INTERRUPTED,
    MachineState.READY: MachineState.DRAINING,
    MachineState.DRAINING: MachineState.DRAINING,
}
"""What becomes of a machine that is taken; all others end already, or do not exist yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """How one cloud tells us something from outside."""

    read: Callable[[bytes], Told]
    """Reads a delivery. Raises `InvalidInput`."""
    scope: Callable[[str], str] | None = None
    """What the provider ids of the machines begin with that the sender of a token may speak of.
    Raises `Denied`. None: whoever has this server's token for notices may speak of all."""


class Interruptions:
    """Acts on what clouds tell from outside."""

    def __init__(self, service: Service, sources: Mapping[str, Source]) -> None:
        """`sources` by provider: the clouds that are listened to over HTTP."""
        self._service = service
        self._store = service.store
        self.sources = sources
        self._hinted: deque[str] = deque(maxlen=HINTS_KEPT)

    def hear(
        self, provider: str, notices: Sequence[CloudNotice], *, scope: str = ""
    ) -> Sequence[str]:
        """The ids of the machines of ours that a delivery is about, once all that follows from it
        is done. Raises `Denied` for a machine outside the scope, and `Unavailable` when it may be
        about a launch whose answer is not recorded yet: then it is to be delivered again."""
        if not all(each.provider_id.startswith(scope) for each in notices):
            raise Denied(f"this sender may only speak of {scope}*")
        machines = self._machines(provider) if notices else ()
        known = {each.provider_id.lower(): each for each in machines if each.provider_id}
        heard, early = [], False
        for notice in notices:
            machine = known.get(notice.provider_id.lower())
            if machine is not None and machine.state is not MachineState.LAUNCHING:
                self._act(machine, notice)
                heard.append(machine.id)
            elif notice.kind is NoticeKind.TAKEN:
                early = early or any(_may_be(each, notice) for each in machines)
        if early:
            raise Unavailable("this may be about a machine whose launch is not recorded yet")
        return heard

    def _machines(self, provider: str) -> Sequence[Machine]:
        """All that this cloud may have of ours."""
        return [each for each in self._store.machine_list() if each.offer.provider == provider]

    def _act(self, machine: Machine, notice: CloudNotice) -> None:
        if notice.kind is NoticeKind.TAKEN:
            # By the cloud's clock, but never later than if it had been said just now.
            now, left = self._service.clock.now(), timedelta(seconds=notice.seconds)
            take(self._service, machine, "spot", min(notice.said_at, now) + left)
        elif notice.kind is NoticeKind.ENDING:
            self._service.changed()
        elif machine.id not in self._hinted:
            self._hinted.append(machine.id)
            hint(self._service, machine)


def hint(service: Service, machine: Machine) -> None:
    """The cloud may take a machine soon: noted, nothing more."""
    service.note("machine", machine.id, "the cloud hints at an interruption")


def take(service: Service, machine: Machine, kind: str, at: datetime) -> None:
    """The cloud takes a machine at a time: it gets no new job, its agent ends what runs, and the
    loop looks for another. Nothing happens where that is known, or the machine ends already."""
    for _ in range(TRIES):
        left_s = max(0.0, (at - service.clock.now()).total_seconds())
        sentence = f"{kind} interruption announced, {left_s:.0f} s left"
        taken = _taken(machine, at, Reason(code="interrupted", sentence=sentence))
        if taken is None:
            return
        try:
            service.store.machine_put(taken, expected_version=machine.version, fence=None)
        except Conflict:
            machine = service.store.machine_get(machine.id)
            continue
        if machine.interruption_at is None:
            service.note("machine", machine.id, sentence, code="interruption")
        service.changed()
        return
    raise Conflict(f"machine {machine.id} is being written by others all the time")


def _taken(machine: Machine, at: datetime, reason: Reason) -> Machine | None:
    """What becomes of its record; None when this is no news."""
    state, known = _NEXT.get(machine.state), machine.interruption_at
    if state is None or (state is machine.state and known is not None and known <= at):
        return None
    earliest = at if known is None else min(at, known)
    return replace(machine, state=state, interruption_at=earliest, reason=reason)


def _may_be(machine: Machine, notice: CloudNotice) -> bool:
    """Whether a notice may be about this launch, of which we do not know what has come of it."""
    region = machine.offer.region
    return machine.state is MachineState.LAUNCHING and notice.region in ("", region)
