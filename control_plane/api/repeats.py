"""Whether a job that came with an idempotency key before is the one that is handed in now."""

from __future__ import annotations

from dataclasses import replace

from control_plane.core.model import Job
from control_plane.service import Submission


def is_repeat(job: Job, submission: Submission) -> bool:
    """Whether `job` was made from the same submission. What others may have changed since, its
    place and what it needs, is compared only as long as nobody has touched it."""
    touched = job.version > 1
    return _lasting(job) == _lasting(submission) and (
        touched or _changing(job) == _changing(submission)
    )


def _lasting(of: Job | Submission) -> tuple[object, ...]:
    # The share of a machine comes from the queue's policy.
    need = replace(of.spec.need, share_ppm=0, on_demand_only=False)
    spec = replace(of.spec, need=need)
    return spec, of.name, of.owner, dict(of.labels), of.not_before, of.depends_on, of.cloned_from


def _changing(of: Job | Submission) -> tuple[object, ...]:
    """A job can be moved, grows older, and may be kept off spot machines after some losses."""
    return of.queue, of.priority, of.spec.need.on_demand_only
