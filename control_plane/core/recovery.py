"""Making the books and the clouds agree: launches left open, machines gone, silent, late or
unknown.

Only positive answers count. What a provider did not answer is unknown, and unknown means: hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from control_plane.core import reasons
from control_plane.core.cooldowns import last_refusal
from control_plane.core.lifecycle import COUNTED
from control_plane.core.model import Lease, Machine, MachineState, Reason, Sighting
from control_plane.core.plan import Adopt, Mark, Reap, Refusal, Requeue, Resume, Terminate
from control_plane.core.snapshot import Snapshot

_OVER = frozenset(
    {
        MachineState.TERMINATING,
        MachineState.BOOT_FAILED,
        MachineState.INTERRUPTED,
        MachineState.LOST,
    }
)
"""Not to be used again; only the proof that it is gone is missing."""


@dataclass(slots=True)
class Recovery:
    """What has to be repaired, and what can be planned with."""

    adoptions: list[Adopt] = field(default_factory=list)
    resumes: list[Resume] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    requeues: list[Requeue] = field(default_factory=list)
    terminations: list[Terminate] = field(default_factory=list)
    reaps: list[Reap] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    serving: list[Machine] = field(default_factory=list)
    """Machines that serve or will serve: the supply."""
    books_wrong: Reason | None = None
    """Machines of ours that no record explains: nothing is bought until that is cleared up."""


def recover(snapshot: Snapshot) -> Recovery:
    """Compare records with what the providers show."""
    found = Recovery()
    sightings = _by_machine(snapshot)
    leases = _leases_by_machine(snapshot.leases)
    for machine in snapshot.machines:
        if machine.state in COUNTED:
            _Case(snapshot, found, machine, sightings, leases.pop(machine.id, [])).settle()
    for machine_id, orphans in sorted(leases.items()):
        _give_back(found, orphans, "lost", reasons.no_machine(machine_id))
    _reap(snapshot, found, sightings)
    return found


class _Case:
    """One machine's record against what is seen of it."""

    def __init__(
        self,
        snapshot: Snapshot,
        found: Recovery,
        machine: Machine,
        sightings: Mapping[str, list[Sighting]],
        leases: list[Lease],
    ) -> None:
        self.snapshot = snapshot
        self.found = found
        self.machine = machine
        self.leases = leases
        self.seen = _same(machine, sightings.get(machine.id, []))

    def settle(self) -> None:
        state = self.machine.state
        if state in _OVER:
            self._finish_ending()
        elif state in (MachineState.PLANNED, MachineState.LAUNCHING):
            self._finish_launch()
        elif self.seen is not None and self.seen.state == "gone":
            self._gone()
        elif state is MachineState.BOOTING:
            self._boot()
        elif self._silent():
            self._silence()
        elif state is MachineState.READY:
            self.found.serving.append(self.machine)

    def _finish_launch(self) -> None:
        machine, planned = self.machine, self.machine.state is MachineState.PLANNED
        unwanted = self._unwanted() or (None if self.seen else self._unanswered())
        if planned and (unwanted or self.snapshot.paused):
            reason = unwanted or reasons.paused(self.snapshot.policy.name)
            self._mark(MachineState.LAUNCH_FAILED, reason)
            return
        if not planned and self.seen is not None:
            # Even one that is gone again: it has cost money from its first moment.
            self._adopt(self.seen)
        elif not unwanted:
            self.found.resumes.append(
                Resume(machine_id=machine.id, reason=reasons.resumed(machine))
            )
        self._keep_or_end(unwanted)

    def _boot(self) -> None:
        unwanted = self._unwanted()
        if unwanted is None and self._overdue():
            reason = reasons.boot_failed(self.machine, self.snapshot.now)
            self._mark(MachineState.BOOT_FAILED, reason)
            self._end_early(reason)
        else:
            self._keep_or_end(unwanted)

    def _keep_or_end(self, unwanted: Reason | None) -> None:
        if unwanted:
            self._end_early(unwanted)
        else:
            self.found.serving.append(self.machine)

    def _end_early(self, reason: Reason) -> None:
        """End a machine that never served. Not hard: its agent may register and get a job at this
        very moment."""
        _give_back(self.found, self.leases, "lost", reason)
        self._terminate(reason, hard=False)

    def _unwanted(self) -> Reason | None:
        """Why a machine that does not serve yet never should."""
        if self.snapshot.deleting:
            return reasons.deleting(self.snapshot.policy.name)
        declared = self.machine.pool in self.snapshot.policy.pools
        return None if declared else reasons.pool_removed(self.machine)

    def _unanswered(self) -> Reason | None:
        """A launch has as long to become clear as a machine has to boot; then its slot is freed as
        soon as the cloud shows that nothing came of it."""
        if not self._overdue():
            return None
        cooldowns = {rest.key: rest for rest in self.snapshot.cooldowns}
        code = last_refusal(self.machine.offer, cooldowns)
        return reasons.launch_unanswered(self.machine, code, self.snapshot.now)

    def _finish_ending(self) -> None:
        machine, seen = self.machine, self.seen
        reason = machine.reason or reasons.ended(machine)
        _give_back(self.found, self.leases, _outcome(machine), reason)
        if seen is not None and not machine.provider_id:
            self._adopt(seen)
        elif seen is not None and seen.state == "gone":
            self._mark(MachineState.TERMINATED, reason)
        elif machine.provider_id or machine.terminating_at is None:
            if self._repeat_terminate():
                self._terminate(reason)
        elif self._never_launched():
            self._mark(MachineState.TERMINATED, reasons.never_launched(machine))

    def _adopt(self, seen: Sighting) -> None:
        self.found.adoptions.append(
            Adopt(
                machine_id=self.machine.id,
                provider_id=seen.provider_id,
                created_at=seen.created_at,
                reason=reasons.adopted(self.machine, seen),
            )
        )

    def _never_launched(self) -> bool:
        """No id was ever recorded, the place has answered, and a listing had time to show it since
        its last launch call, which was before its end began."""
        offer = self.machine.offer
        grace = timedelta(seconds=self.snapshot.timing.unknown_grace_s)
        since = self.machine.terminating_at or self.machine.planned_at
        settled = self.snapshot.now - since > grace
        return settled and any(
            seen.provider == offer.provider and seen.knows(offer.region, offer.zone)
            for seen in self.snapshot.observations
        )

    def _repeat_terminate(self) -> bool:
        last = self.machine.terminating_at
        pause = timedelta(seconds=self.snapshot.timing.terminate_repeat_s)
        return last is None or self.snapshot.now - last >= pause

    def _gone(self) -> None:
        machine = self.machine
        if self._was_interrupted():
            reason = reasons.interrupted(machine)
            self._mark(MachineState.INTERRUPTED, reason)
            outcome = "interrupted"
        elif machine.state is MachineState.BOOTING:
            reason = reasons.gone_while_booting(machine)
            self._mark(MachineState.BOOT_FAILED, reason)
            outcome = "lost"
        else:
            reason = machine.reason or reasons.gone(machine)
            self._mark(MachineState.LOST, reason)
            outcome = "lost"
        _give_back(self.found, self.leases, outcome, reason)
        self._mark(MachineState.TERMINATED, reason)

    def _was_interrupted(self) -> bool:
        by_cloud = self.seen is not None and self.seen.end_reason == "interrupted"
        return by_cloud or self.machine.interruption_at is not None

    def _overdue(self) -> bool:
        limit_s = self.snapshot.policy.pools[self.machine.pool].boot_timeout_s
        since = self.machine.launched_at or self.machine.planned_at
        return self.snapshot.now - since > timedelta(seconds=limit_s)

    def _silent(self) -> bool:
        last = self.machine.last_beat_at or self.machine.registered_at or self.machine.planned_at
        heard = max(last, self.snapshot.reachable_since or last)
        return self.snapshot.now - heard > timedelta(seconds=self.snapshot.timing.lease_s)

    def _silence(self) -> None:
        if self.machine.interruption_at is not None:
            state, outcome = MachineState.INTERRUPTED, "interrupted"
            reason = reasons.interrupted(self.machine)
        else:
            state, outcome = MachineState.LOST, "lost"
            reason = reasons.silent(self.machine, self.snapshot.now)
        self._mark(state, reason)
        _give_back(self.found, self.leases, outcome, reason)
        self._terminate(reason)

    def _mark(self, state: MachineState, reason: Reason) -> None:
        self.found.marks.append(Mark(machine_id=self.machine.id, state=state, reason=reason))

    def _terminate(self, reason: Reason, *, hard: bool = True) -> None:
        self.found.terminations.append(
            Terminate(machine_id=self.machine.id, reason=reason, hard=hard)
        )


def _outcome(machine: Machine) -> str:
    """What the end of a machine means for what it runs: only a loss counts against a job."""
    if machine.state is MachineState.INTERRUPTED:
        return "interrupted"
    if machine.reason is not None and machine.reason.code in ("by-hand", "max-lifetime"):
        return "returned"
    return "lost"


def _same(machine: Machine, seen: list[Sighting]) -> Sighting | None:
    """The sighting that is this record's machine: by the cloud's id once it is known."""
    if machine.provider_id:
        return next((each for each in seen if each.provider_id == machine.provider_id), None)
    alive = [each for each in seen if each.state != "gone"]
    return min(alive or seen, key=lambda each: each.provider_id, default=None)


def _give_back(found: Recovery, leases: Iterable[Lease], outcome: str, reason: Reason) -> None:
    for lease in leases:
        found.requeues.append(
            Requeue(job_id=lease.job_id, epoch=lease.epoch, outcome=outcome, reason=reason)
        )


def _reap(snapshot: Snapshot, found: Recovery, sightings: Mapping[str, list[Sighting]]) -> None:
    records = {machine.id: machine for machine in snapshot.machines}
    grace = timedelta(seconds=snapshot.timing.unknown_grace_s)
    for sighting in _alive(sightings):
        record = records.get(sighting.machine_id)
        if record is not None and _same(record, sightings[sighting.machine_id]) is sighting:
            continue
        if snapshot.now - sighting.created_at <= grace:
            continue
        reason = reasons.unknown(sighting, snapshot.now)
        found.books_wrong = reasons.books_wrong(sighting)
        found.reaps.append(
            Reap(
                provider=sighting.provider,
                provider_id=sighting.provider_id,
                region=sighting.region,
                zone=sighting.zone,
                machine_id=sighting.machine_id,
                reason=reason,
            )
        )


def _alive(sightings: Mapping[str, list[Sighting]]) -> Iterator[Sighting]:
    for _, group in sorted(sightings.items()):
        for sighting in group:
            if sighting.state in ("pending", "running"):
                yield sighting


def _by_machine(snapshot: Snapshot) -> dict[str, list[Sighting]]:
    found: dict[str, list[Sighting]] = {}
    for observation in snapshot.observations:
        for sighting in sorted(observation.sightings, key=lambda s: (s.machine_id, s.provider_id)):
            found.setdefault(sighting.machine_id, []).append(sighting)
    return found


def _leases_by_machine(leases: Iterable[Lease]) -> dict[str, list[Lease]]:
    found: dict[str, list[Lease]] = {}
    for lease in leases:
        found.setdefault(lease.machine_id, []).append(lease)
    return found


def unknown_places(snapshot: Snapshot) -> Mapping[str, frozenset[str]]:
    """By provider: the regions and zones that did not answer (`*` = none did)."""
    return {seen.provider: frozenset(seen.unknown) for seen in snapshot.observations}
