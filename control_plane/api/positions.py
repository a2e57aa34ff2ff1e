"""The place of waiting jobs in their queues, as far as it is cheap to know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from control_plane.core.model import Job, JobState
from control_plane.ports import Store

POSITIONS_MAX = 1000
"""Further back a number says no more than "very many", and would be dear to find."""

COUNTED_MAX = 100
"""So far back the place of a new job is counted; whoever wants to know more asks for the job."""


def of_new_job(store: Store, job: Job, now: datetime) -> int | None:
    """The place of a job just submitted, behind all of its priority, from counts that end at
    `COUNTED_MAX`: a submission costs the same at every depth. None further back."""
    if not _is_in_line(job, now):
        return None
    groups = store.waiting_groups([job.queue], ripe_before={}, now=now, limit=COUNTED_MAX)
    ahead = [group for group in groups if group.priority >= job.priority]
    place = max(1, sum(group.count for group in ahead))
    counted = all(group.exact for group in ahead) and place <= COUNTED_MAX
    return place if counted else None


def of_jobs(store: Store, jobs: Sequence[Job], now: datetime) -> Mapping[str, int]:
    """The places of those of the jobs that stand in a line, by job id. One whose time has not come
    stands beside it."""
    waiting = [job for job in jobs if _is_in_line(job, now)]
    return {
        job_id: place
        for queue in sorted({job.queue for job in waiting})
        for job_id, place in _places(store, [job for job in waiting if job.queue == queue])
    }


def _places(store: Store, jobs: Sequence[Job]) -> Iterator[tuple[str, int]]:
    """The places of jobs of one queue: the line is read as far as to the last of them."""
    last = max(jobs, key=lambda job: (-job.priority, job.position, job.id))
    line = [*store.queue_line(last.queue, before=last, limit=POSITIONS_MAX), last.id]
    places = {job_id: place for place, job_id in enumerate(line[:POSITIONS_MAX], start=1)}
    return ((job.id, places[job.id]) for job in jobs if job.id in places)


def _is_in_line(job: Job, now: datetime) -> bool:
    return job.state is JobState.QUEUED and (job.not_before is None or job.not_before <= now)
