"""What each store operation makes of one record: pure, so that every store does the same.

Each function returns the very object it was given when there is nothing to change, so a store can
tell a repeat from a change by identity. Nothing here locks: making a step atomic is the store's own
affair.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from control_plane.core.codec import to_json
from control_plane.core.lifecycle import (
    IN_FLIGHT,
    JOB_ENDED,
    IllegalTransition,
    check_job,
    check_machine,
)
from control_plane.core.model import (
    Attempt,
    Job,
    JobState,
    Lease,
    Machine,
    Need,
    PriceInterval,
    Reason,
)
from control_plane.errors import Conflict, InvalidInput, Refused, StaleEpoch
from control_plane.ports import Ending

HELD = frozenset({JobState.LEASED, JobState.RUNNING})
"""States in which a machine has the job."""

ANSWER_IN_FLIGHT_S = 60.0
"""A request that has not answered for this long is taken for dead."""

JOB_BYTES_MAX = 256 * 1024
"""As JSON. One bound for every store, so that what one holds any other can take over; it leaves
room in the 400 KB of a DynamoDB item for what a job gathers later."""


def leased(job: Job, machine_id: str, now: datetime) -> Job:
    """The job as claimed: next epoch, next attempt."""
    check_job(job.state, JobState.LEASED)
    return replace(
        job,
        state=JobState.LEASED,
        version=job.version + 1,
        epoch=job.epoch + 1,
        attempt=job.attempt + 1,
        machine_id=machine_id,
        leased_at=now,
        reason=None,
    )


def check_new(job: Job) -> None:
    """Raise `InvalidInput` unless a job makes sense by itself and is small enough to be kept."""
    if job.id in job.depends_on:
        raise InvalidInput(f"job {job.id} cannot depend on itself")
    if len(set(job.depends_on)) < len(job.depends_on):
        raise InvalidInput(f"job {job.id} names a job it depends on twice")
    text = json.dumps(to_json(job), separators=(",", ":"), ensure_ascii=False)
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput(f"job {job.id} holds text that is no Unicode: {error}") from error
    if size > JOB_BYTES_MAX:
        raise InvalidInput(
            f"job {job.id} is {size:,} bytes large, more than the {JOB_BYTES_MAX:,} a job may have",
            fix="Put large inputs into its source or a file that it reads.",
        )


def enqueued(job: Job, dependencies: Sequence[Job], position: float) -> Job:
    """A new job as it is stored: blocked while a job it depends on has not succeeded. Raises
    `Refused` when one of them has ended without success."""
    for dependency in dependencies:
        if dependency.state in JOB_ENDED and dependency.state is not JobState.SUCCEEDED:
            raise Refused(
                f"job {dependency.id} ended as {dependency.state}: what depends on it would never "
                "start",
                fix=f"retry it (`orchctl job retry {dependency.id}`) and depend on the new job",
            )
    waits = any(dependency.state is not JobState.SUCCEEDED for dependency in dependencies)
    state = JobState.BLOCKED if waits else JobState.QUEUED
    return replace(job, state=state, position=position)


def unblocked(job: Job, dependencies: Sequence[Job], now: datetime) -> Job:
    """A blocked job after one of its dependencies has ended: queued when all have succeeded,
    cancelled when one never will, else as it was."""
    if job.state is not JobState.BLOCKED:
        return job
    for dependency in dependencies:
        if dependency.state in JOB_ENDED and dependency.state is not JobState.SUCCEEDED:
            sentence = f"job {dependency.id}, which it depends on, ended as {dependency.state}"
            reason = Reason(
                code="dependency-failed", sentence=sentence, numbers={"job": dependency.id}
            )
            return cancelled(job, reason, now)
    if any(dependency.state is not JobState.SUCCEEDED for dependency in dependencies):
        return job
    # It could not have started before: wait times count from here.
    return replace(job, state=JobState.QUEUED, version=job.version + 1, queued_at=now)


def delayed(job: Job, now: datetime) -> bool:
    """Whether a queued job has to wait for a time of day still."""
    return job.not_before is not None and job.not_before > now


def held_back(job: Job) -> bool:
    """Whether a job stands apart from the line when it joins it: until a look finds its time come.
    One that a machine had once does not: its time had come."""
    return job.attempt == 0 and delayed(job, job.queued_at)


def waited_since(job: Job) -> datetime:
    """Since when a job has waited for a machine: what its wait time is counted from."""
    return max(job.queued_at, job.not_before or job.queued_at)


def ages_since(job: Job, promoted_at: datetime | None) -> datetime:
    """Since when a job has waited at its priority; `promoted_at` is when ageing last raised it."""
    return max(waited_since(job), promoted_at or job.queued_at)


def wait_s(attempt: Attempt) -> float | None:
    """How long a job had waited when it was claimed first, in seconds; None for a later attempt.
    A clock that went back meanwhile makes it 0, not less."""
    if attempt.number != 1 or attempt.queued_at is None:
        return None
    return max(0.0, (attempt.leased_at - attempt.queued_at).total_seconds())


def attempt_of(job: Job, now: datetime) -> Attempt:
    """The open attempt of a job just claimed."""
    return Attempt(
        job_id=job.id,
        number=job.attempt,
        epoch=job.epoch,
        queue=job.queue,
        owner=job.owner,
        machine_id=job.machine_id,
        need=job.spec.need,
        queued_at=waited_since(job),
        leased_at=now,
    )


def lease_of(job: Job) -> Lease:
    """The lease that a held job stands for."""
    return Lease(
        job_id=job.id,
        epoch=job.epoch,
        machine_id=job.machine_id,
        queue=job.queue,
        need=job.spec.need,
        leased_at=job.leased_at or job.queued_at,
        cancel_requested=job.cancel_requested,
    )


def started(job: Job, epoch: int, now: datetime, machine_id: str = "") -> Job:
    """The job as its command begins. Raises `StaleEpoch`."""
    if job.epoch != epoch or job.state not in HELD or machine_id not in ("", job.machine_id):
        raise _stale(job, epoch)
    if job.state is JobState.RUNNING:
        return job
    return replace(
        job, state=JobState.RUNNING, version=job.version + 1, started_at=_after_lease(job, now)
    )


def finished(
    job: Job, epoch: int, ending: Ending, state: JobState, now: datetime, machine_id: str = ""
) -> Job:
    """The job as it ends for good. Raises `StaleEpoch`, `IllegalTransition`."""
    if machine_id not in ("", job.machine_id):
        raise _stale(job, epoch)
    if job.epoch == epoch and job.state in JOB_ENDED and job.machine_id:
        return job
    if job.epoch != epoch or job.state not in HELD:
        raise _stale(job, epoch)
    if state not in JOB_ENDED:
        raise IllegalTransition(f"a job does not end as {state}")
    # What somebody gave as the reason to cancel still explains the end when the agent gives none.
    kept = job.reason if state is JobState.CANCELLED else None
    return replace(
        _counted(job, ending),
        state=state,
        version=job.version + 1,
        finished_at=_after_lease(job, now),
        exit_code=ending.exit_code,
        reason=ending.reason or kept,
    )


def given_back(job: Job, epoch: int, ending: Ending, need: Need) -> Job:
    """The job back in its place. Raises `StaleEpoch`."""
    # Only giving back takes the machine off a job that was claimed before.
    if job.epoch == epoch > 0 and not job.machine_id:
        return job
    if job.epoch != epoch or job.state not in HELD:
        raise _stale(job, epoch)
    return replace(
        _counted(job, ending),
        state=JobState.QUEUED,
        version=job.version + 1,
        spec=job.spec if need == job.spec.need else replace(job.spec, need=need),
        machine_id="",
        leased_at=None,
        started_at=None,
        reason=ending.reason,
    )


def cancelled(job: Job, reason: Reason, now: datetime) -> Job:
    """The job as cancelled, or as asked to be while a machine has it."""
    if job.state in JOB_ENDED or (job.cancel_requested and job.state in HELD):
        return job
    if job.state in HELD:
        return replace(job, version=job.version + 1, cancel_requested=True, reason=reason)
    check_job(job.state, JobState.CANCELLED)
    return replace(
        job,
        state=JobState.CANCELLED,
        version=job.version + 1,
        finished_at=now,
        reason=reason,
    )


def ended(attempt: Attempt, ending: Ending, now: datetime) -> Attempt:
    """The attempt as closed."""
    return replace(
        attempt,
        ended_at=max(now, attempt.leased_at),
        outcome=ending.outcome,
        exit_code=ending.exit_code,
        reason=ending.reason,
    )


def movable(job: Job, expected_version: int | None) -> None:
    """Raise `Conflict` or `Refused` unless the job may be put elsewhere."""
    if expected_version is not None and job.version != expected_version:
        raise Conflict(
            f"job {job.id} is at version {job.version}, not {expected_version}",
            fix="Read the job again and repeat.",
        )
    if job.state is not JobState.QUEUED:
        raise Refused(f"job {job.id} is {job.state}: only a waiting job can be moved")


def merged(stored: Machine | None, machine: Machine, expected_version: int) -> Machine:
    """The machine record to write over `stored`.

    Agents beat and jobs come and go without counting the version up, so that they never make a
    controller's write fail; in return a write must not undo what they recorded meanwhile: the newer
    `last_beat_at` stays, and from the moment the machine first serves `idle_since` belongs to the
    job operations. Until then the record given decides, so registering starts the idle time.
    Raises `Conflict`, `IllegalTransition`.
    """
    have = stored.version if stored else 0
    if have != expected_version:
        raise Conflict(
            f"machine {machine.id} is at version {have}, not {expected_version}",
            fix="Read the machine again and repeat.",
        )
    if stored is None:
        return replace(machine, version=1)
    check_machine(stored.state, machine.state)
    beats = [at for at in (stored.last_beat_at, machine.last_beat_at) if at is not None]
    return replace(
        machine,
        version=expected_version + 1,
        last_beat_at=max(beats, default=None),
        idle_since=machine.idle_since if stored.state in IN_FLIGHT else stored.idle_since,
    )


def check_version(what: str, stored: int, given: int, expected: int) -> None:
    """Raise `Conflict` unless the stored version is the expected one (0 = there is none yet), and
    `InvalidInput` unless the record given carries the next."""
    if stored != expected:
        raise Conflict(
            f"{what} is at version {stored}, not {expected}", fix="Read it again and repeat."
        )
    if given != expected + 1:
        raise InvalidInput(f"{what} must be written as version {expected + 1}, not {given}")


def same_interval(one: PriceInterval, other: PriceInterval) -> bool:
    """Whether both say the same of one machine, closed or not."""
    return replace(one, ended_at=None) == replace(other, ended_at=None)


def _after_lease(job: Job, now: datetime) -> datetime:
    """Nothing happens to an attempt before it began, even when the clock went back."""
    return max(now, job.leased_at or now)


def _counted(job: Job, ending: Ending) -> Job:
    if ending.outcome in ("interrupted", "lost"):
        return replace(job, machine_losses=job.machine_losses + 1)
    if ending.outcome == "failed":
        return replace(job, failures=job.failures + 1)
    return job


def _stale(job: Job, epoch: int) -> StaleEpoch:
    return StaleEpoch(
        f"lease {epoch} of job {job.id} is over: the job is {job.state} at epoch {job.epoch}"
    )
