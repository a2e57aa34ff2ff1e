"""Jobs in memory: submitting, claiming, ending and reading them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from control_plane.core.model import (
    Artifact,
    Attempt,
    Capacity,
    Job,
    JobState,
    Lease,
    MachineState,
    Need,
    Reason,
)
from control_plane.errors import Conflict
from control_plane.ports import Ending, Page, Place
from control_plane.stores import cursors, transitions
from control_plane.stores.memory.tables import Tables, atomic
from control_plane.stores.placing import spot


class Jobs(Tables):
    """`ports.JobStore`."""

    @atomic
    def job_enqueue(self, job: Job, *, idempotency_key: str = "") -> tuple[Job, bool]:
        if idempotency_key in self._jobs_by_key:
            return self._jobs[self._jobs_by_key[idempotency_key]], False
        self._queue(job.queue)
        if job.id in self._jobs:
            raise Conflict(f"there is a job {job.id} already")
        placed = replace(job, position=self._fresh_position())
        self._save(placed)
        if idempotency_key:
            self._jobs_by_key[idempotency_key] = job.id
        return placed, True

    @atomic
    def job_get(self, job_id: str) -> Job:
        return self._job(job_id)

    @atomic
    def job_list(
        self,
        *,
        queue: str = "",
        states: frozenset[JobState] = frozenset(),
        machine_id: str = "",
        cursor: str = "",
        limit: int = 100,
    ) -> Page[Job]:
        scope = ("jobs", queue, ",".join(sorted(states)), machine_id)
        if queue and states == {JobState.QUEUED} and not machine_id:
            return self._ready_page(queue, scope, cursor, limit)
        jobs: list[Job] = []
        for job in self._newest(scope, cursor):
            if len(jobs) > limit:
                break
            if (
                queue in ("", job.queue)
                and machine_id in ("", job.machine_id)
                and (not states or job.state in states)
            ):
                jobs.append(job)
        return cursors.page(
            scope, jobs, limit, lambda job: (job.submitted_at.astimezone(UTC).isoformat(), job.id)
        )

    @atomic
    def job_claim(
        self,
        machine_id: str,
        queues: Sequence[str],
        free: Capacity,
        *,
        limit: int,
        now: datetime,
    ) -> Sequence[Job]:
        machine = self._machine(machine_id)
        if machine.state is not MachineState.READY:
            return ()
        claimed: list[Job] = []
        for queue in queues:
            while len(claimed) < limit and (job := self._next_fitting(queue, free, now)):
                leased = transitions.leased(job, machine_id, now)
                self._save(leased)
                self._attempts.setdefault(job.id, []).append(transitions.attempt_of(leased, now))
                free = free.less(job.spec.need)
                claimed.append(leased)
        if claimed:
            self._machines[machine_id] = replace(machine, idle_since=None)
        return tuple(claimed)

    @atomic
    def job_start(self, job_id: str, epoch: int, *, now: datetime) -> Job:
        job = self._job(job_id)
        started = transitions.started(job, epoch, now)
        if started is not job:
            self._save(started)
            self._attempts[job_id][-1] = replace(self._attempts[job_id][-1], started_at=now)
        return started

    @atomic
    def job_finish(
        self, job_id: str, epoch: int, ending: Ending, *, state: JobState, now: datetime
    ) -> Job:
        job = self._job(job_id)
        finished = transitions.finished(job, epoch, ending, state, now)
        return self._end(job, finished, ending, now)

    @atomic
    def job_requeue(
        self, job_id: str, epoch: int, ending: Ending, *, need: Need, now: datetime
    ) -> Job:
        job = self._job(job_id)
        return self._end(job, transitions.given_back(job, epoch, ending, need), ending, now)

    @atomic
    def job_cancel(self, job_id: str, *, reason: Reason, now: datetime) -> Job:
        job = self._job(job_id)
        cancelled = transitions.cancelled(job, reason, now)
        if cancelled is not job:
            self._save(cancelled)
        return cancelled

    @atomic
    def job_move(
        self,
        job_id: str,
        *,
        queue: str,
        place: Place,
        expected_version: int | None,
        now: datetime,  # noqa: ARG002 - part of the port: a store may stamp its rows
    ) -> Job:
        transitions.movable(self._job(job_id), expected_version)
        self._queue(queue)
        priority, position = spot(_MemoryLine(self, queue), self._job(job_id), place)
        # Read again: making room may have numbered this very job anew.
        job = self._job(job_id)
        moved = replace(
            job, queue=queue, priority=priority, position=position, version=job.version + 1
        )
        self._save(moved)
        return moved

    @atomic
    def job_leases(self, *, machine_id: str = "") -> Sequence[Lease]:
        if machine_id:
            held = [self._jobs[job_id] for job_id in self._held.get(machine_id, ())]
        else:
            held = list(self._held_jobs())
        leases = [transitions.lease_of(job) for job in held]
        return tuple(sorted(leases, key=lambda lease: (lease.leased_at, lease.job_id)))

    @atomic
    def job_attempts(self, job_id: str) -> Sequence[Attempt]:
        return tuple(self._attempts.get(job_id, ()))

    @atomic
    def job_artifacts(self, job_id: str) -> Sequence[Artifact]:
        ended = [each for each in self._attempts.get(job_id, ()) if each.ended_at is not None]
        return self._artifacts.get((job_id, ended[-1].number), ()) if ended else ()

    @atomic
    def attempts_between(self, start: datetime, end: datetime) -> Sequence[Attempt]:
        found = [
            attempt
            for attempts in self._attempts.values()
            for attempt in attempts
            if attempt.leased_at < end and (attempt.ended_at is None or attempt.ended_at > start)
        ]
        return tuple(sorted(found, key=lambda each: (each.leased_at, each.job_id, each.number)))

    def _next_fitting(self, queue: str, free: Capacity, now: datetime) -> Job | None:
        record, waiting = self._queues.get(queue), self._waiting.get(queue)
        if record is None or record.paused or waiting is None:
            return None

        def may_start(job_id: str) -> bool:
            not_before = self._jobs[job_id].not_before
            return not_before is None or not_before <= now

        found = waiting.next_fitting(free, may_start)
        return None if found is None else self._jobs[found]

    def _end(self, job: Job, ended: Job, ending: Ending, now: datetime) -> Job:
        """Write the end of an attempt, unless it is a repeat."""
        if ended is job:
            return job
        self._save(ended)
        attempts = self._attempts[job.id]
        attempts[-1] = transitions.ended(attempts[-1], ending, now)
        self._artifacts[job.id, attempts[-1].number] = ending.artifacts
        machine = self._machines.get(job.machine_id)
        if machine is not None and job.machine_id not in self._held:
            self._machines[machine.id] = replace(machine, idle_since=now)
        return ended

    def _newest(self, scope: cursors.Scope, cursor: str) -> Iterator[Job]:
        """Jobs behind the cursor, newest first."""
        behind: tuple[datetime, str] | None = None
        if cursor:
            at, job_id = cursors.read(scope, cursor, ("", ""))
            behind = (datetime.fromisoformat(at), job_id)
        for spot_in_time in reversed(self._jobs_by_time):
            if behind is None or spot_in_time < behind:
                yield self._jobs[spot_in_time[1]]

    def _ready_page(self, queue: str, scope: cursors.Scope, cursor: str, limit: int) -> Page[Job]:
        """Claim order: priority, position, id."""

        def key(job: Job) -> cursors.Key:
            return (-job.priority, job.position, job.id)

        jobs = self._waiting_in_order(queue)
        if cursor:
            behind = cursors.read(scope, cursor, (0, 0.0, ""))
            jobs = [job for job in jobs if key(job) > behind]
        return cursors.page(scope, jobs, limit, key)


class _MemoryLine:
    """`placing.Line` over the dicts."""

    def __init__(self, jobs: Jobs, queue: str) -> None:
        self._jobs = jobs
        self._queue = queue

    def waiting(self, job_id: str) -> Job | None:
        job = self._jobs._jobs.get(job_id)
        waits = job is not None and job.queue == self._queue and job.state is JobState.QUEUED
        return job if waits else None

    def priorities(self) -> tuple[int, int] | None:
        present = [job.priority for job in self._jobs._waiting_jobs(self._queue)]
        return (min(present), max(present)) if present else None

    def first(self, priority: int) -> float | None:
        placed = self._placed(priority)
        return placed[0][0] if placed else None

    def beside(self, job: Job, *, before: bool) -> float | None:
        spots = self._placed(job.priority)
        here = spots.index((job.position, job.id))
        if before:
            return spots[here - 1][0] if here > 0 else None
        return spots[here + 1][0] if here + 1 < len(spots) else None

    def fresh(self) -> float:
        return self._jobs._fresh_position()

    def respace(self, priority: int) -> None:
        for _, job_id in self._placed(priority):
            job = self._jobs._jobs[job_id]
            self._jobs._save(replace(job, position=self.fresh(), version=job.version + 1))

    def _placed(self, priority: int) -> list[tuple[float, str]]:
        """Waiting and held jobs of one priority, in order."""
        waiting = self._jobs._waiting_jobs(self._queue)
        return sorted(
            (job.position, job.id)
            for job in (*waiting, *self._jobs._held_jobs())
            if job.queue == self._queue and job.priority == priority
        )
