"""Making the books and the clouds agree: launches left open, machines gone, silent, late or
unknown.

Only positive answers count. What a provider did not answer is unknown, and unknown means: hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from operator import attrgetter
from typing import TypeVar

from control_plane.core import reasons
from control_plane.core.cooldowns import last_refusal
from control_plane.core.lifecycle import COUNTED
from control_plane.core.model import (
    Lease,
    Machine,
    MachineState,
    Observation,
    Offer,
    Reason,
    Sighting,
)
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

_OPEN = frozenset({MachineState.PLANNED, MachineState.LAUNCHING})
"""Being launched: what has come of it is not recorded yet."""

_ALIVE = frozenset({"pending", "running"})
_LIVELINESS = {"running": 0, "pending": 0, "stopping": 1, "gone": 2}
"""An earlier attempt of the same machine may still be shown, on its way out."""
"""States of a sighting in which it costs money and will go on."""

_READY = MachineState.READY
_OfMachine = TypeVar("_OfMachine", Lease, Sighting)


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
    found, limits = Recovery(), _Limits(snapshot)
    records = {machine.id: machine for machine in snapshot.machines}
    seen, strays = _matched(records, _remarkable(records, snapshot.observations))
    gone = {machine_id for machine_id, sighting in seen.items() if sighting.state == "gone"}
    calm = {
        machine.id
        for machine in snapshot.machines
        if machine.state is _READY and not limits.silent(machine) and machine.id not in gone
    }
    leases = _grouped(lease for lease in snapshot.leases if lease.machine_id not in calm)
    for machine in snapshot.machines:
        if machine.id in calm:
            found.serving.append(machine)
        elif machine.state in COUNTED:
            mine = leases.pop(machine.id, ())
            _Case(snapshot, found, limits, machine, seen.get(machine.id), mine).settle()
    for machine_id, orphans in sorted(leases.items()):
        _give_back(found, orphans, "lost", reasons.no_machine(machine_id))
    _reap(snapshot, found, strays)
    return found


class _Limits:
    """Times that are the same for all machines."""

    def __init__(self, snapshot: Snapshot) -> None:
        pools = snapshot.policy.pools.values()
        self.boot = {pool.name: timedelta(seconds=pool.boot_timeout_s) for pool in pools}
        lease_began = snapshot.now - timedelta(seconds=snapshot.timing.lease_s)
        back = snapshot.reachable_since
        self._silent_before = lease_began if back is None or back < lease_began else None

    def silent(self, machine: Machine) -> bool:
        """Whether a machine has let its leases run out. After an outage of the control plane itself
        nobody has."""
        last = machine.last_beat_at or machine.registered_at or machine.planned_at
        return self._silent_before is not None and last < self._silent_before


class _Case:
    """One machine's record against what is seen of it."""

    def __init__(
        self,
        snapshot: Snapshot,
        found: Recovery,
        limits: _Limits,
        machine: Machine,
        seen: Sighting | None,
        leases: Sequence[Lease],
    ) -> None:
        self.snapshot = snapshot
        self.found = found
        self.limits = limits
        self.machine = machine
        self.seen = seen
        self.leases = leases

    def settle(self) -> None:
        state = self.machine.state
        if state in _OVER:
            self._finish_ending()
        elif state in _OPEN:
            self._finish_launch()
        elif self.seen is not None and self.seen.state == "gone":
            self._gone()
        elif state is MachineState.BOOTING:
            self._boot()
        elif self.limits.silent(self.machine):
            self._silence()

    def _finish_launch(self) -> None:
        machine, planned = self.machine, self.machine.state is MachineState.PLANNED
        unwanted = self._unwanted() or (None if self.seen else self._unanswered())
        if planned and (unwanted or self.snapshot.paused):
            reason = unwanted or reasons.paused(self.snapshot.policy.name)
            self._mark(MachineState.LAUNCH_FAILED, reason)
            return
        if not planned and self.seen is not None and (unwanted or not self._goes_on(self.seen)):
            # Even one that is gone again: it has cost money from its first moment.
            self._adopt(self.seen)
        elif not unwanted:
            self.found.resumes.append(
                Resume(
                    machine_id=machine.id,
                    provider=machine.offer.provider,
                    region=machine.offer.region,
                    pending=bool(machine.operation),
                    reason=reasons.resumed(machine),
                )
            )
        self._keep_or_end(unwanted)

    def _goes_on(self, seen: Sighting) -> bool:
        """Whether the cloud is to be asked what becomes of the launch. What a listing shows as
        pending may yet fail, or have failed, and only its key or its operation says so."""
        return seen.state == "pending" and not self._overdue()

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
        if seen is not None and self._is_news(seen):
            self._adopt(seen)
        elif seen is not None and seen.state == "gone":
            self._mark(MachineState.TERMINATED, reason)
        elif machine.provider_id or machine.terminating_at is None:
            if self._repeat_terminate():
                self._terminate(reason)
        elif self._never_launched():
            self._mark(MachineState.TERMINATED, reasons.never_launched(machine))

    def _is_news(self, seen: Sighting) -> bool:
        """Whether a launch that was given up has come to something after all: from its first moment
        it has cost money, and is in no bill."""
        pending = bool(self.machine.operation) and seen.state != "gone"
        return pending or not self.machine.provider_id

    def _adopt(self, seen: Sighting) -> None:
        self.found.adoptions.append(
            Adopt(
                machine_id=self.machine.id,
                provider_id=seen.provider_id,
                created_at=seen.created_at,
                offer=_bought(self.machine, seen),
                identity=seen.identity,
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
        since = self.machine.launched_at or self.machine.planned_at
        return self.snapshot.now - since > self.limits.boot[self.machine.pool]

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


def _bought(machine: Machine, seen: Sighting) -> Offer:
    """The offer that a sighting shows: a call that may buy one of several does not tell which one
    when its answer is lost."""
    shown = (seen.region, seen.instance_type, seen.market)
    alike = (
        offer
        for offer in (machine.offer, *machine.offers)
        if (offer.region, offer.instance_type, offer.market) == shown
        and offer.zone in ("", seen.zone)
    )
    return next(alike, machine.offer)


def _give_back(found: Recovery, leases: Iterable[Lease], outcome: str, reason: Reason) -> None:
    for lease in sorted(leases, key=attrgetter("job_id", "epoch")):
        found.requeues.append(
            Requeue(job_id=lease.job_id, epoch=lease.epoch, outcome=outcome, reason=reason)
        )


def _reap(snapshot: Snapshot, found: Recovery, strays: Iterable[Sighting]) -> None:
    """End what carries our label and is no record's machine. One that is stopping may stay so, and
    cost money, until it is told to go."""
    grace = timedelta(seconds=snapshot.timing.unknown_grace_s)
    for sighting in sorted(strays, key=attrgetter("machine_id")):
        if sighting.state == "gone" or snapshot.now - sighting.created_at <= grace:
            continue
        reason = reasons.unknown(sighting, snapshot.now)
        if sighting.state in _ALIVE:
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


def _remarkable(
    records: Mapping[str, Machine], observations: Sequence[Observation]
) -> dict[str, list[Sighting]]:
    """What is shown of each machine, by provider and the cloud's id. A machine that is shown once,
    alive and as its record says, is left out: there is nothing to learn about it."""
    several = _repeated([each.machine_id for seen in observations for each in seen.sightings])
    shown: list[Sighting] = []
    for observation in observations:
        news = []
        for each in observation.sightings:
            record = records.get(each.machine_id)
            if (
                record is None
                or record.provider_id != each.provider_id
                or each.state not in _ALIVE
                or record.state in _OPEN
                or record.operation
                or each.machine_id in several
            ):
                news.append(each)
        shown += sorted(news, key=attrgetter("provider_id"))
    return _grouped(shown)


def _repeated(names: Sequence[str]) -> set[str]:
    if len(set(names)) == len(names):
        return set()
    return {name for name, times in Counter(names).items() if times > 1}


def _matched(
    records: Mapping[str, Machine], shown: Mapping[str, Sequence[Sighting]]
) -> tuple[dict[str, Sighting], list[Sighting]]:
    """What is seen of the machines on record, and the sightings that are of none of them."""
    seen: dict[str, Sighting] = {}
    strays: list[Sighting] = []
    for machine_id, sightings in shown.items():
        record = records.get(machine_id)
        same = _same(record, sightings) if record else None
        if same:
            seen[machine_id] = same
        strays += [each for each in sightings if each is not same]
    return seen, strays


def _same(machine: Machine, seen: Sequence[Sighting]) -> Sighting | None:
    """The sighting that is this record's machine: by the cloud's id once it is known."""
    if machine.provider_id:
        for each in seen:
            if each.provider_id == machine.provider_id:
                return each
        return None
    return min(seen, key=lambda each: (_LIVELINESS[each.state], each.provider_id), default=None)


def _grouped(each_of_a_machine: Iterable[_OfMachine]) -> dict[str, list[_OfMachine]]:
    found: dict[str, list[_OfMachine]] = {}
    for each in each_of_a_machine:
        group = found.get(each.machine_id)
        if group is None:
            found[each.machine_id] = [each]
        else:
            group.append(each)
    return found


def unknown_places(snapshot: Snapshot) -> Mapping[str, frozenset[str]]:
    """By provider: the regions and zones that did not answer (`*` = none did)."""
    return {seen.provider: frozenset(seen.unknown) for seen in snapshot.observations}
