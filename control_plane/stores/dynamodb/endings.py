"""How attempts begin and end: one write of the job each, and what follows from an end.

Only the job says whether its attempt runs. Its machine's run is not touched; the limits it counts
against and the jobs that wait for it are told after the end is written, by whoever wrote it or by
whoever repeats it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeAlias

from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import Artifact, Attempt, Job, JobState, Need, Reason
from control_plane.ports import Ending
from control_plane.stores import transitions
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb import records
from control_plane.stores.dynamodb.dependents import Dependents
from control_plane.stores.dynamodb.items import Value
from control_plane.stores.dynamodb.limits import Limits, limits_parts
from control_plane.stores.dynamodb.records import Stored

Transition: TypeAlias = Callable[[Stored], tuple[Stored, Mapping[str, Value]]]
"""From a job as it is to what becomes of it, and the index attributes that takes."""

INLINE_BYTES = 2048
"""A larger spec, or list of artifacts, has an item of its own: every write of a job pays for all
of its item."""


class Endings(Dependents, Limits):
    """The part of `ports.JobStore` that begins and ends attempts."""

    def job_start(self, job_id: str, epoch: int, *, now: datetime, machine_id: str = "") -> None:
        def transition(old: Stored) -> tuple[Stored, Mapping[str, Value]]:
            job = transitions.started(old.job, epoch, now, machine_id)
            return (old, {}) if job is old.job else (replace(old, job=job), {})

        self._change(job_id, transition)

    def job_finish(
        self,
        job_id: str,
        epoch: int,
        ending: Ending,
        *,
        state: JobState,
        now: datetime,
        machine_id: str = "",
    ) -> None:
        def transition(old: Stored) -> tuple[Stored, Mapping[str, Value]]:
            job = transitions.finished(old.job, epoch, ending, state, now, machine_id)
            if job is old.job:
                return old, {}
            new = replace(
                self._with_artifacts(old, ending.artifacts),
                job=job,
                outcome=ending.outcome,
                kept_reason=job.reason is not None and ending.reason is None,
                expires=self._expiry(),
            )
            return new, self._ended_place(job)

        self._ended(job_id, transition, now)

    def job_requeue(
        self, job_id: str, epoch: int, ending: Ending, *, need: Need, now: datetime
    ) -> Job:
        return self._ended(job_id, self._giving_back(epoch, ending, need, now), now)

    def _giving_back(self, epoch: int, ending: Ending, need: Need, now: datetime) -> Transition:
        def transition(old: Stored) -> tuple[Stored, Mapping[str, Value]]:
            job = transitions.given_back(old.job, epoch, ending, need)
            if job is old.job:
                return old, {}
            assert old.attempt is not None, "a held job has an attempt"
            self._put_aside(old.previous)
            new = replace(
                self._with_artifacts(old, ending.artifacts),
                job=job,
                previous=transitions.ended(old.attempt, ending, now),
            )
            return new, self._place(job)

        return transition

    def _ended(
        self,
        job_id: str,
        transition: Transition,
        now: datetime,
    ) -> Job:
        """Carry out the end of an attempt and what follows from it. A repeat does the latter again:
        the first time a crash may have come in between."""
        ended = self._change(job_id, transition)
        job = ended.job
        if ended.limits:
            mark, flags = limits_parts(ended.limits)
            self._strike(job.queue, job.owner, flags, at.entry(job.id, job.epoch, mark))
        self._tell_dependents(ended, now)
        return job

    def _put_aside(self, attempt: Attempt | None) -> None:
        """Keep an earlier attempt beside its job, whose item has room for one."""
        if attempt is not None:
            pk, sk = at.attempt_key(attempt.job_id, attempt.epoch)
            kept = {at.PACKED: records.pack(attempt), at.TTL: self._expiry_beside()}
            self._table.put({"pk": pk, "sk": sk, **kept})

    def _with_artifacts(
        self, old: Stored, artifacts: Sequence[Artifact], epoch: int | None = None
    ) -> Stored:
        """The job with what its attempt of this epoch, or else its current one, left; many go
        beside it, before the end is."""
        packed = records.pack(list(artifacts))
        if len(packed) <= INLINE_BYTES:
            return replace(old, artifacts=artifacts, artifacts_at=None)
        epoch = epoch or old.job.epoch
        self._put_artifacts(old.job.id, epoch, packed)
        return replace(old, artifacts=(), artifacts_at=epoch)

    def _put_artifacts(self, job_id: str, epoch: int, packed: bytes) -> None:
        pk, sk = at.artifacts_key(job_id, epoch)
        self._table.put({"pk": pk, "sk": sk, at.PACKED: packed, at.TTL: self._expiry_beside()})

    def _ended_place(self, job: Job) -> Mapping[str, Value]:
        """A held job is in no index: it need not be taken out of one."""
        return self._place(job) if records.is_letter(job) else {}

    def job_cancel(self, job_id: str, *, reason: Reason, now: datetime) -> Job:
        return self._cancelled(job_id, reason, now).job

    def _cancelled(self, job_id: str, reason: Reason, now: datetime) -> Stored:
        def transition(old: Stored) -> tuple[Stored, Mapping[str, Value]]:
            job = transitions.cancelled(old.job, reason, now)
            if job is old.job:
                return old, {}
            if job.state not in JOB_ENDED:
                return replace(old, job=job), {}
            return replace(old, job=job, expires=self._expiry()), self._place(job)

        cancelled = self._change(job_id, transition)
        if cancelled.job.state is JobState.CANCELLED:
            self._tell_dependents(cancelled, now)
        return cancelled
