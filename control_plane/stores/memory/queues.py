"""Queues in memory: their records, their depth, and what is done to a whole queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice, takewhile

from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import (
    Job,
    Need,
    QueueRecord,
    QueueStats,
    Reason,
    WaitingGroup,
)
from control_plane.errors import Refused
from control_plane.stores import transitions
from control_plane.stores.memory.tables import Tables, atomic


class Queues(Tables):
    """`ports.QueueStore`."""

    @atomic
    def queue_put(self, record: QueueRecord, *, expected_version: int) -> None:
        stored = self._queues.get(record.name)
        transitions.check_version(
            f"queue {record.name}",
            stored.version if stored else 0,
            record.version,
            expected_version,
        )
        self._queues[record.name] = record

    @atomic
    def queue_get(self, name: str) -> QueueRecord:
        return self._queue(name)

    @atomic
    def queue_list(self) -> Sequence[QueueRecord]:
        return tuple(self._queues[name] for name in sorted(self._queues))

    @atomic
    def queue_remove(self, name: str) -> None:
        for job in self._jobs.values():
            if job.queue == name and job.state not in JOB_ENDED:
                raise Refused(
                    f"queue {name} is not empty: job {job.id} has not ended",
                    fix="Move or cancel its jobs first.",
                )
        self._queues.pop(name, None)

    @atomic
    def queue_stats(self) -> Mapping[str, QueueStats]:
        return {name: self._stats(name) for name in sorted(self._queues)}

    @atomic
    def queue_heads(self, names: Sequence[str]) -> Mapping[str, datetime]:
        lines = {name: self._waiting[name].line() for name in names}
        return {
            name: min(transitions.waited_since(self._jobs[job_id]) for job_id in line)
            for name, line in lines.items()
            if line
        }

    @atomic
    def queue_line(self, name: str, *, before: Job, limit: int = 1000) -> Sequence[str]:
        place = (-before.priority, before.position, before.id)
        spots = takewhile(lambda spot: spot < place, self._waiting[name].spots())
        return tuple(job_id for _, _, job_id in islice(spots, limit))

    @atomic
    def queue_waits(self, name: str, *, limit: int = 1000) -> Sequence[float]:
        claimed = [
            (attempt.leased_at, attempt.job_id, waited_s)
            for attempts in self._attempts.values()
            for attempt in attempts
            if attempt.queue == name and (waited_s := transitions.wait_s(attempt)) is not None
        ]
        return tuple(waited_s for _, _, waited_s in sorted(claimed, reverse=True)[:limit])

    @atomic
    def queue_clear(self, name: str, *, now: datetime, reason: Reason) -> Sequence[str]:
        self._queue(name)
        cleared = [*self._waiting_jobs(name), *self._blocked_jobs(name)]
        for job in cleared:
            self._save(transitions.cancelled(job, reason, now))
        for job in cleared:
            self._let_dependents_go(job.id, now)
        return tuple(job.id for job in cleared)

    @atomic
    def queue_promote(self, name: str, *, waiting_since: datetime, now: datetime) -> int:
        aged = [
            job
            for job in self._waiting_jobs(name)
            if transitions.ages_since(job, self._promoted_at.get(job.id)) < waiting_since
        ]
        for job in aged:
            self._save(replace(job, priority=job.priority + 1, version=job.version + 1))
            self._promoted_at[job.id] = now
        return len(aged)

    @atomic
    def waiting_groups(
        self,
        queues: Sequence[str],
        *,
        ripe_before: Mapping[str, datetime],
        now: datetime,
        limit: int = 100_000,
    ) -> Sequence[WaitingGroup]:
        return tuple(
            group
            for queue in queues
            if queue in self._queues
            for group in self._groups(queue, ripe_before.get(queue, now), now, limit)
        )

    def _stats(self, name: str) -> QueueStats:
        waiting = self._waiting_jobs(name)
        return QueueStats(
            name=name,
            waiting=len(waiting),
            running=self._running[name].total(),
            oldest_at=min((job.queued_at for job in waiting), default=None),
            delayed=len(self._waiting[name].delayed),
            blocked=len(self._blocked[name]),
        )

    def _groups(
        self, queue: str, ripe_before: datetime, now: datetime, limit: int
    ) -> list[WaitingGroup]:
        """Groups of one queue in the order in which the first job of each would be claimed."""
        room = self._room(queue)
        counted: Counter[Need] = Counter()
        kinds: dict[tuple[int, Need], list[Job]] = {}
        for job in self._startable(queue, now):
            need = job.spec.need
            if not room.admits(job.owner):
                continue
            room.take(job.owner)
            counted[need] += 1
            if counted[need] <= limit:
                kinds.setdefault((job.priority, need), []).append(job)
        # Only the last group of a need is cut short.
        last = {need: priority for priority, need in kinds}
        return [
            self._group(jobs, ripe_before, exact=counted[need] <= limit or priority != last[need])
            for (priority, need), jobs in kinds.items()
        ]

    def _group(self, jobs: Sequence[Job], ripe_before: datetime, *, exact: bool) -> WaitingGroup:
        return WaitingGroup(
            queue=jobs[0].queue,
            priority=jobs[0].priority,
            need=jobs[0].spec.need,
            count=len(jobs),
            ripe=sum(job.queued_at <= ripe_before for job in jobs),
            oldest_at=min(job.queued_at for job in jobs),
            aged_at=min(transitions.ages_since(job, self._promoted_at.get(job.id)) for job in jobs),
            exact=exact,
        )

    def _startable(self, queue: str, now: datetime) -> Sequence[Job]:
        """Waiting jobs whose time has come, in claim order."""
        jobs = [job for job in self._waiting_jobs(queue) if not transitions.delayed(job, now)]
        return sorted(jobs, key=lambda job: (-job.priority, job.position, job.id))
