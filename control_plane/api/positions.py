"""The place of waiting jobs in their queues, as far as it is cheap to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from control_plane.core.model import Job, JobState
from control_plane.ports import Store

POSITIONS_MAX = 1000
"""Further back a number says no more than "very many", and would be dear to find."""

COUNTED_MAX = 100
"""So far back the place of a new job is counted; whoever wants to know more asks for the job."""

_PAGE = 500


def of_new_job(store: Store, job: Job, now: datetime) -> int | None:
    """The place of a job just submitted, behind all of its priority, from counts that end at
    `COUNTED_MAX`: a submission costs the same at every depth. None further back."""
    if job.state is not JobState.QUEUED:
        return None
    groups = store.waiting_groups([job.queue], ripe_before={}, now=now, limit=COUNTED_MAX)
    ahead = [group for group in groups if group.priority >= job.priority]
    place = max(1, sum(group.count for group in ahead))
    counted = all(group.exact for group in ahead) and place <= COUNTED_MAX
    return place if counted else None


def of_jobs(store: Store, jobs: Sequence[Job]) -> Mapping[str, int]:
    """The places of those of the jobs that wait, by job id."""
    queues = {job.queue for job in jobs if job.state is JobState.QUEUED}
    return {
        job_id: place
        for queue in sorted(queues)
        for place, job_id in enumerate(_in_order(store, queue), start=1)
    }


def _in_order(store: Store, queue: str) -> Sequence[str]:
    found: list[str] = []
    cursor = ""
    while len(found) < POSITIONS_MAX:
        page = store.job_list(
            queue=queue, states=frozenset({JobState.QUEUED}), cursor=cursor, limit=_PAGE
        )
        found.extend(job.id for job in page.items)
        cursor = page.cursor
        if not cursor:
            break
    return found[:POSITIONS_MAX]
