"""Queues in memory: their records, their depth, and what is done to a whole queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import Job, QueueRecord, QueueStats, Reason, WaitingGroup
from control_plane.errors import Refused
from control_plane.stores import transitions
from control_plane.stores.memory.tables import Tables, Waiting, atomic


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
        running = Counter(job.queue for job in self._held_jobs())
        return {name: self._stats(name, running[name]) for name in sorted(self._queues)}

    @atomic
    def queue_clear(self, name: str, *, now: datetime, reason: Reason) -> Sequence[str]:
        self._queue(name)
        waiting = self._waiting_in_order(name)
        for job in waiting:
            self._save(transitions.cancelled(job, reason, now))
        return tuple(job.id for job in waiting)

    @atomic
    def queue_promote(self, name: str, *, waiting_since: datetime, now: datetime) -> int:
        aged = [
            job
            for job in self._waiting_jobs(name)
            if max(job.queued_at, self._promoted_at.get(job.id, job.queued_at)) < waiting_since
        ]
        for job in aged:
            self._save(replace(job, priority=job.priority + 1, version=job.version + 1))
            self._promoted_at[job.id] = now
        return len(aged)

    @atomic
    def waiting_groups(
        self, queues: Sequence[str], *, ripe_before: Mapping[str, datetime], now: datetime
    ) -> Sequence[WaitingGroup]:
        return tuple(
            group
            for queue in queues
            for group in self._groups(queue, ripe_before.get(queue, now), now)
        )

    def _stats(self, name: str, running: int) -> QueueStats:
        queued = [job.queued_at for job in self._waiting_jobs(name)]
        return QueueStats(
            name=name, waiting=len(queued), running=running, oldest_at=min(queued, default=None)
        )

    def _groups(self, queue: str, ripe_before: datetime, now: datetime) -> list[WaitingGroup]:
        """Groups of one queue in the order in which the first job of each would be claimed."""
        waiting = self._waiting.get(queue, Waiting())
        found: list[tuple[tuple[int, float, str], WaitingGroup]] = []
        for (priority, need), spots in waiting.groups.items():
            jobs = [job for _, job_id in spots if _may_start(job := self._jobs[job_id], now)]
            if jobs:
                group = WaitingGroup(
                    queue=queue,
                    priority=priority,
                    need=need,
                    count=len(jobs),
                    ripe=sum(job.queued_at <= ripe_before for job in jobs),
                    oldest_at=min(job.queued_at for job in jobs),
                )
                found.append(((-priority, jobs[0].position, jobs[0].id), group))
        return [group for _, group in sorted(found, key=lambda each: each[0])]


def _may_start(job: Job, now: datetime) -> bool:
    return job.not_before is None or job.not_before <= now
