"""Jobs in memory: submitting, claiming, ending and reading them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from control_plane.core.lifecycle import JOB_ENDED
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
from control_plane.stores.limits import Room
from control_plane.stores.memory.tables import Tables, atomic
from control_plane.stores.placing import spot


class Jobs(Tables):
    """`ports.JobStore`."""

    @atomic
    def job_enqueue(self, job: Job, *, idempotency_key: str = "") -> tuple[Job, bool]:
        if idempotency_key in self._jobs_by_key:
            return self._jobs[self._jobs_by_key[idempotency_key]], False
        transitions.check_new(job)
        self._queue(job.queue)
        if job.id in self._jobs:
            raise Conflict(f"there is a job {job.id} already")
        dependencies = [self._job(each) for each in job.depends_on]
        stored = transitions.enqueued(job, dependencies, self._fresh_position())
        self._save(stored)
        if idempotency_key:
            self._jobs_by_key[idempotency_key] = job.id
            self._keys[job.id] = idempotency_key
        return stored, True

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
        return cursors.page(scope, jobs, limit, lambda job: (job.id,))

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
        self._let_due_go(queues, now)
        claimed: list[Job] = []
        for queue in self._open_queues(queues):
            room = self._room(queue)
            while len(claimed) < limit and (job := self._next_fitting(queue, free, room, now)):
                leased = transitions.leased(job, machine_id, now)
                self._save(leased)
                self._attempts.setdefault(job.id, []).append(transitions.attempt_of(leased, now))
                room.take(job.owner)
                free = free.less(job.spec.need)
                claimed.append(leased)
        if claimed:
            self._machines[machine_id] = replace(machine, idle_since=None)
        return tuple(claimed)

    @atomic
    def job_release(self, *, now: datetime, limit: int = 1000) -> int:
        due = self._let_due_go(sorted(self._waiting), now, limit=limit)
        blocked = sorted(job_id for ids in self._blocked.values() for job_id in ids)
        return due + self._look_again(blocked, now, limit=limit - due)

    @atomic
    def job_start(self, job_id: str, epoch: int, *, now: datetime, machine_id: str = "") -> None:
        job = self._job(job_id)
        started = transitions.started(job, epoch, now, machine_id)
        if started is not job:
            self._save(started)
            attempt = self._attempts[job_id][-1]
            self._attempts[job_id][-1] = replace(attempt, started_at=started.started_at)

    @atomic
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
        job = self._job(job_id)
        finished = transitions.finished(job, epoch, ending, state, now, machine_id)
        self._end(job, finished, ending, now)

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
        if cancelled.state is JobState.CANCELLED:
            self._let_dependents_go(job_id, now)
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
        if not machine_id:
            return self._leases_of(self._held_jobs())
        return self._leases_of(self._jobs[job_id] for job_id in self._held.get(machine_id, ()))

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

    def _open_queues(self, names: Sequence[str]) -> Sequence[str]:
        return [name for name in names if name in self._queues and not self._queues[name].paused]

    def _next_fitting(self, queue: str, free: Capacity, room: Room, now: datetime) -> Job | None:
        def may_start(job_id: str) -> bool:
            job = self._jobs[job_id]
            # A look by a clock that was ahead may have let it go too early.
            return room.admits(job.owner) and not transitions.delayed(job, now)

        found = self._waiting[queue].next_fitting(free, may_start)
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
        if ended.state in JOB_ENDED:
            self._let_dependents_go(ended.id, now)
        return ended

    def _newest(self, scope: cursors.Scope, cursor: str) -> Iterator[Job]:
        """Jobs behind the cursor, newest first."""
        end = len(self._ids)
        if cursor:
            (behind,) = cursors.read(scope, cursor, ("",))
            end = bisect_left(self._ids, behind)
        return (self._jobs[job_id] for job_id in reversed(self._ids[:end]))

    def _ready_page(self, queue: str, scope: cursors.Scope, cursor: str, limit: int) -> Page[Job]:
        """Claim order, the delayed ones last."""
        jobs = self._waiting_jobs(queue)
        if cursor:
            behind = cursors.read(scope, cursor, (0, 0, 0.0, "", ""))
            jobs = [job for job in jobs if self._turn(job) > behind]
        return cursors.page(scope, jobs, limit, self._turn)

    def _turn(self, job: Job) -> cursors.Key:
        """The sort key of a waiting job among all that wait in its queue."""
        if self._held_back(job) and job.not_before is not None:
            return (
                1,
                0,
                0.0,
                job.not_before.astimezone(UTC).isoformat("T", "microseconds"),
                job.id,
            )
        return (0, -job.priority, job.position, "", job.id)


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
        """All jobs with a place in one priority, in order: waiting, blocked and held ones."""
        waiting = self._jobs._waiting_jobs(self._queue)
        blocked = self._jobs._blocked_jobs(self._queue)
        return sorted(
            (job.position, job.id)
            for job in (*waiting, *blocked, *self._jobs._held_jobs())
            if job.queue == self._queue and job.priority == priority
        )
