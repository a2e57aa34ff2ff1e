"""The control plane's side of the agent protocol (`agent_bootstrap.wire`): who a machine is, what
it gets to run, what it reports. A machine can touch only its own leases.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from agent_bootstrap import wire
from control_plane.core.lifecycle import MACHINE_ENDED
from control_plane.core.model import (
    Artifact,
    Capacity,
    Job,
    JobState,
    Lease,
    Machine,
    MachineState,
    Reason,
)
from control_plane.core.policy import AutoscalerRecord
from control_plane.core.snapshot import Timing
from control_plane.direct import THROUGH_THE_API, Direct, Elsewhere
from control_plane.errors import Conflict, Denied, NotFound, OrchctlError, StaleEpoch, Unavailable
from control_plane.identity.verifier import Verifier
from control_plane.interruptions import hint, take
from control_plane.ports import Blobs, Ending
from control_plane.service import Service, final_state
from control_plane.tokens import MachineTokens

CLAIM_LIMIT = 32
"""Jobs handed out in one claim at most: bounds what a lost answer has to send again."""

TAKEN_S_MIN = 5.0
"""What an agent is given at least to end its jobs and say so, whenever its cloud wants the machine:
as long as it answers, there is time."""

REFUSALS_KEPT = 1_000
"""Machines of which it is remembered that a wrong proof was noted."""
REFUSAL_MAX = 200
"""Characters of such a note; part of it may come from whoever sent the proof."""


class Gone(OrchctlError):
    """The machine's record is closed: its agent ends the machine."""

    code = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """How agents are to behave, in seconds; what a pool says comes on top."""

    wait_s: float = 20.0
    """How long a claim may wait for work. 0 where a waiting request costs money."""
    poll_s: float = 5.0
    poll_longest_s: float = 0.0
    """What `poll_s` grows to: a quarter of the time that a machine has been idle. 0 = it stays."""
    contact_timeout_s: float = 600.0


class Agents:
    """Answers to agents."""

    def __init__(
        self,
        service: Service,
        blobs: Blobs,
        tokens: MachineTokens,
        timing: Timing,
        settings: AgentSettings,
        verifiers: Mapping[str, Verifier] | None = None,
        direct: Direct = THROUGH_THE_API,
    ) -> None:
        """`verifiers` by provider: its machines prove themselves, all others have a one-time
        token."""
        self._service = service
        self._store = service.store
        self._clock = service.clock
        self._blobs = blobs
        self._tokens = tokens
        self._timing = timing
        self._settings = settings
        self._verifiers = {} if verifiers is None else verifiers
        self._direct = direct
        self._refused: deque[str] = deque(maxlen=REFUSALS_KEPT)

    # ------------------------------------------------------------------------ identity

    def register(self, message: wire.Register) -> wire.Session:
        """Exchange the proof for a session, once per machine; the same instance may repeat it.
        Raises `Denied` for a wrong proof, `Conflict` for a second instance, `Gone` when the machine
        is no longer expected, `Unavailable` when it is too early."""
        machine = self._known(message.machine_id)
        self._check_proof(machine, message.proof)
        if machine.registered_at is None:
            machine = self._admit(machine, message)
        elif machine.instance != message.instance:
            self._service.note(
                "access", machine.id, "a second agent tried to register", code="second-instance"
            )
            raise Conflict("this machine's agent has registered already")
        return wire.Session(
            token=self._tokens.session(machine.id, machine.instance),
            advice=self._advice(machine, self._document(machine), self._clock.now()),
        )

    def nonce(self, message: wire.Hello) -> wire.Nonce:
        """What the proof of a machine must carry; tells nobody whether there is such a machine."""
        return wire.Nonce(nonce=self._tokens.nonce(message.machine_id, self._clock.now()))

    def _check_proof(self, machine: Machine, proof: Mapping[str, str]) -> None:
        verifier = self._verifiers.get(machine.offer.provider)
        if verifier is None:
            self._tokens.check_one_time(machine, proof.get("token", ""))
            return
        _check_launched(machine)
        if not machine.provider_id:
            raise Unavailable(f"what the cloud calls machine {machine.id} is not known yet")
        try:
            self._tokens.check_nonce(machine.id, proof.get("nonce", ""), self._clock.now())
            verifier.check(machine, proof, proof["nonce"])
        except Denied as error:
            self._note_refusal(machine, error)
            raise

    def _note_refusal(self, machine: Machine, error: Denied) -> None:
        """Once for a machine, since anybody can send wrong proofs, as often as they like."""
        if machine.registered_at is None and machine.id not in self._refused:
            self._refused.append(machine.id)
            text = f"a proof of its identity was refused: {error.message[:REFUSAL_MAX]}"
            self._service.note("access", machine.id, text, code="proof-refused")

    def _admit(self, machine: Machine, message: wire.Register) -> Machine:
        if machine.state not in (MachineState.LAUNCHING, MachineState.BOOTING):
            raise Gone(f"machine {machine.id} is {machine.state}, not expected to register")
        _check_launched(machine)
        now = self._clock.now()
        registered = replace(
            machine,
            state=MachineState.READY,
            instance=message.instance,
            registered_at=now,
            last_beat_at=now,
            idle_since=now,
            capacity=_found_capacity(machine, message.found),
        )
        registered = self._store.machine_put(
            registered, expected_version=machine.version, fence=None
        )
        self._service.note("machine", machine.id, "registered, ready for work")
        self._service.changed()
        return registered

    def authenticate(self, token: str) -> Machine:
        """The machine a session token belongs to. Raises `Denied`, or `Gone` when its record is
        closed."""
        try:
            machine = self._store.machine_get(self._tokens.machine_id(token))
        except NotFound as error:
            raise Denied("unknown machine") from error
        self._tokens.check_session(machine, token)
        if machine.state not in (MachineState.READY, MachineState.DRAINING):
            raise Gone(f"machine {machine.id} is {machine.state}")
        return machine

    def _known(self, machine_id: str) -> Machine:
        try:
            machine = self._store.machine_get(machine_id)
        except NotFound as error:
            raise Denied("unknown machine") from error
        if machine.state in MACHINE_ENDED:
            raise Gone(f"machine {machine_id} is {machine.state}")
        return machine

    # ------------------------------------------------------------------------ work

    def claim(self, machine: Machine, message: wire.Claim) -> wire.Claimed:
        """Lease what fits; leases whose answer was lost are sent again."""
        now, document = self._clock.now(), self._document(machine)
        leases = self._store.job_leases(machine_id=machine.id)
        held = set(message.running)
        again = [lease for lease in leases if f"{lease.job_id}:{lease.epoch}" not in held]
        jobs = [self._store.job_get(lease.job_id) for lease in again]
        drain = machine.state is not MachineState.READY
        if not jobs and not drain:
            jobs = list(
                self._store.job_claim(
                    machine.id,
                    self._queues(machine, document, now),
                    free_capacity(machine, leases),
                    limit=max(1, min(message.limit, CLAIM_LIMIT)),
                    now=now,
                )
            )
        return wire.Claimed(
            jobs=[_work(job) for job in jobs],
            drain=drain,
            taken_in_s=_taken_in_s(machine, now),
            advice=self._advice(machine, document, now),
        )

    def beat(self, machine: Machine, message: wire.Beat) -> wire.Beaten:
        """Note that the machine lives; tell it what to end."""
        now = self._clock.now()
        self._store.machine_beat(machine.id, now=now)
        leases = {
            f"{lease.job_id}:{lease.epoch}": lease
            for lease in self._store.job_leases(machine_id=machine.id)
        }
        return wire.Beaten(
            cancel=[lease.job_id for lease in leases.values() if lease.cancel_requested],
            lost=[name for name in message.running if name not in leases],
            drain=machine.state is not MachineState.READY,
            taken_in_s=_taken_in_s(machine, now),
            advice=self._advice(machine, self._document(machine), now),
        )

    def start(self, machine: Machine, job_id: str, message: wire.Started) -> None:
        """A job's command is about to run."""
        self._store.job_start(job_id, message.epoch, now=self._clock.now(), machine_id=machine.id)

    def log(self, machine: Machine, job_id: str, epoch: int, offset: int, data: bytes) -> int:
        """Add to the log of an attempt and return its size. Raises `StaleEpoch`."""
        self._own(machine, job_id, epoch)
        return self._blobs.append(log_key(job_id, epoch), offset, data)

    def artifact(self, machine: Machine, job_id: str, epoch: int, name: str, data: bytes) -> None:
        """Store one file of an attempt. Raises `StaleEpoch`."""
        self._own(machine, job_id, epoch)
        self._blobs.put(artifact_key(job_id, epoch, name), data)

    def upload(
        self, machine: Machine, job_id: str, name: str, message: wire.Upload
    ) -> wire.UploadTo:
        """Where to put one file of an attempt. Raises `StaleEpoch`, and `InvalidInput` when it is
        too large altogether."""
        self._own(machine, job_id, message.epoch)
        key = artifact_key(job_id, message.epoch, name)
        to = self._direct.upload(key, size=message.size_bytes, sha256=message.sha256)
        return wire.UploadTo(url=to.url, headers=dict(to.headers)) if to else wire.UploadTo()

    def source(self, machine: Machine, job_id: str, epoch: int) -> bytes | Elsewhere:
        """The archive of a job's files. Raises `NotFound` when it has none."""
        job = self._own(machine, job_id, epoch)
        if job.spec.source is None or not job.spec.source.blob:
            raise NotFound(f"job {job_id} has no source archive")
        key = job.spec.source.blob
        # Read for its size too: S3 takes for a question about it what it takes for a dozen reads.
        data = self._blobs.get(key)
        return self._direct.download(key, size=len(data), name="source.tar.gz") or data

    def finish(self, machine: Machine, job_id: str, message: wire.Finished) -> None:
        """An attempt has ended. Repeating it changes nothing. Raises `StaleEpoch`."""
        reason = Reason(code=message.outcome, sentence=_ending_sentence(machine, message))
        # Success is final whatever the job's record says, so it need not be read.
        final: JobState | None = JobState.SUCCEEDED
        if message.outcome != "succeeded":
            final = self._final(machine, job_id, message, reason)
        if final is None:
            return
        ending = Ending(
            outcome=message.outcome,
            exit_code=message.exit_code,
            reason=reason,
            artifacts=tuple(
                Artifact(
                    name=each.name,
                    size_bytes=each.size_bytes,
                    sha256=each.sha256,
                    blob=artifact_key(job_id, message.epoch, each.name),
                )
                for each in message.artifacts
            ),
        )
        self._store.job_finish(
            job_id,
            message.epoch,
            ending,
            state=final,
            now=self._clock.now(),
            machine_id=machine.id,
        )
        if final is not JobState.SUCCEEDED:
            self._service.ended(self._store.job_get(job_id))
        self._service.changed()

    def _final(
        self, machine: Machine, job_id: str, message: wire.Finished, reason: Reason
    ) -> JobState | None:
        """The state this ending leaves the job in; None when it was given back instead."""
        job = self._attempted(machine, job_id, message.epoch)
        final = final_state(job, message.outcome)
        if final not in (None, JobState.EXHAUSTED):
            return final
        self._service.give_back(
            job, message.epoch, outcome=message.outcome, reason=reason, exit_code=message.exit_code
        )
        return None

    def _attempted(self, machine: Machine, job_id: str, epoch: int) -> Job:
        """The job, held by this machine or ended on it."""
        job = self._store.job_get(job_id)
        if job.machine_id != machine.id or job.epoch != epoch:
            raise StaleEpoch(f"job {job_id} is not leased to {machine.id} at epoch {epoch}")
        return job

    def _own(self, machine: Machine, job_id: str, epoch: int) -> Job:
        job = self._attempted(machine, job_id, epoch)
        if job.state not in (JobState.LEASED, JobState.RUNNING):
            raise StaleEpoch(f"job {job_id} is not leased to {machine.id} at epoch {epoch}")
        return job

    # ------------------------------------------------------------------------ ending

    def notice(self, machine: Machine, message: wire.Notice) -> None:
        """The cloud takes this machine, as its agent has seen."""
        if message.kind == "rebalance":
            hint(self._service, machine)
        else:
            at = self._clock.now() + timedelta(seconds=message.seconds_left)
            take(self._service, machine, message.kind, at)

    def leave(self, machine: Machine, message: wire.Leave) -> wire.Left:
        """Whether a machine may end itself. First it is closed to new claims, then its leases are
        looked at, so that no job slips in between."""
        if message.why == "idle" and _is_kept(machine, self._clock.now()):
            return wire.Left(agreed=False, why="this machine is to be kept")
        reason = machine.reason or Reason(
            code=message.why, sentence=f"it ended itself: {message.why}"
        )
        was_ready = machine.state is MachineState.READY
        if was_ready:
            machine = self._move(replace(machine, state=MachineState.DRAINING, reason=reason))
        if self._store.job_leases(machine_id=machine.id):
            if was_ready:
                self._move(replace(machine, state=MachineState.READY, reason=None))
            return wire.Left(agreed=False, why="it holds a job")
        # The time is noted as if the provider had been asked: the machine gets that long to end
        # by itself before it is ended from outside.
        now = self._clock.now()
        self._move(
            replace(machine, state=MachineState.TERMINATING, reason=reason, terminating_at=now)
        )
        self._service.note("machine", machine.id, f"ends itself: {message.why}")
        self._service.changed()
        return wire.Left(agreed=True)

    def _move(self, machine: Machine) -> Machine:
        return self._store.machine_put(machine, expected_version=machine.version, fence=None)

    # ------------------------------------------------------------------------ advice

    def _advice(
        self, machine: Machine, document: AutoscalerRecord | None, now: datetime
    ) -> wire.Advice:
        pool = document.policy.pools.get(machine.pool) if document else None
        idle = pool.idle_timeout_s if pool else 0
        return wire.Advice(
            beat_s=self._timing.lease_s / 3,
            wait_s=self._settings.wait_s,
            poll_s=self._poll_s(machine, now),
            idle_timeout_s=-1.0 if _is_kept(machine, now) else float(idle),
            contact_timeout_s=self._settings.contact_timeout_s,
            direct_above_bytes=self._direct.above_bytes,
            # A machine whose pool was taken out of the document ends its jobs first; its own life
            # limit holds on.
            max_lifetime_s=float(pool.max_lifetime_s) if pool else wire.Advice.max_lifetime_s,
        )

    def _poll_s(self, machine: Machine, now: datetime) -> float:
        shortest, longest = self._settings.poll_s, self._settings.poll_longest_s
        if machine.idle_since is None or longest <= shortest:
            return shortest
        idle_s = (now - machine.idle_since).total_seconds()
        return max(shortest, min(idle_s / 4, longest))

    def _queues(
        self, machine: Machine, document: AutoscalerRecord | None, now: datetime
    ) -> Sequence[str]:
        """The queues this machine serves, the most urgent first."""
        policies = document.policy.queues if document else {}
        serving = {name: queue for name, queue in policies.items() if machine.pool in queue.pools}
        if len(serving) < 2:
            return list(serving)
        heads = self._store.queue_heads(sorted(serving))
        urgency = {name: serving[name].aged_priority(heads[name], now) for name in heads}
        return sorted(urgency, key=lambda name: (-urgency[name], name))

    def _document(self, machine: Machine) -> AutoscalerRecord | None:
        return self._service.document(machine.autoscaler)


def _taken_in_s(machine: Machine, now: datetime) -> float:
    """As `wire.Beaten.taken_in_s`."""
    if machine.interruption_at is None:
        return -1.0
    return max((machine.interruption_at - now).total_seconds(), TAKEN_S_MIN)


def _is_kept(machine: Machine, now: datetime) -> bool:
    """Whether somebody wants it to stay."""
    return machine.protected or (machine.hold_until is not None and machine.hold_until > now)


def _check_launched(machine: Machine) -> None:
    """An agent can be faster than the record of its own launch. It comes again."""
    if machine.state is MachineState.LAUNCHING:
        raise Unavailable(f"the launch of machine {machine.id} is not recorded yet")


def log_key(job_id: str, epoch: int) -> str:
    """Where the log of an attempt is kept."""
    return f"jobs/{job_id}/{epoch}/log"


def artifact_key(job_id: str, epoch: int, name: str) -> str:
    """Where an artifact of an attempt is kept: by a digest, since a user's file name may hold
    what a key may not."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    return f"jobs/{job_id}/{epoch}/artifacts/{digest}"


def free_capacity(machine: Machine, leases: Sequence[Lease]) -> Capacity:
    """What a machine has left besides what it runs."""
    free = machine.total
    for lease in leases:
        free = free.less(lease.need)
    return free


def _found_capacity(machine: Machine, found: wire.Found) -> Capacity:
    """What the agent found, on the market the machine was bought on. A machine that has less than
    was bought is used for what it has; one that has more is used for all of it."""
    return Capacity(
        gpus=found.gpus,
        # The catalogue's name, which jobs ask by; drivers call the same card other things.
        gpu_name=(machine.offer.capacity.gpu_name or found.gpu_name) if found.gpus else "",
        gpu_memory_gib=found.gpu_memory_gib,
        cpus=found.cpus,
        memory_mib=found.memory_mib,
        disk_gib=found.disk_gib,
        market=machine.offer.market,
    )


def _work(job: Job) -> wire.Work:
    spec = job.spec
    source = wire.SourceRef()
    if spec.source is not None:
        source = wire.SourceRef(
            kind=spec.source.kind,
            remote=spec.source.remote,
            commit=spec.source.commit,
            sha256=spec.source.sha256,
        )
    return wire.Work(
        job_id=job.id,
        epoch=job.epoch,
        attempt=job.attempt,
        command=spec.command,
        queue=job.queue,
        name=job.name,
        env=dict(spec.env),
        source=source,
        python=spec.python,
        requirements=list(spec.requirements),
        artifacts=list(spec.artifacts),
        gpus=spec.need.gpus,
        timeout_s=spec.timeout_s,
        grace_s=spec.grace_s,
    )


def _ending_sentence(machine: Machine, message: wire.Finished) -> str:
    if message.reason:
        return message.reason
    if message.outcome == "interrupted":
        return f"machine {machine.id} was interrupted"
    if message.outcome == "returned":
        return f"machine {machine.id} gave it back"
    return f"exit code {message.exit_code}"
