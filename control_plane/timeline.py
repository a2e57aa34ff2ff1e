"""What happened to one job, first to last.

Its ordinary life stands in the job and its attempts and is written down nowhere else. The event log
holds what people did to it and what was unusual. Here both become one story.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import Attempt, Event, Job, Reason

MOVED = "moved"
"""The code of an event that tells of another place in a queue, or of another queue."""


def job_timeline(job: Job, attempts: Sequence[Attempt], events: Sequence[Event]) -> list[Event]:
    """The events of one job, the oldest first; those that are made here have `seq` 0. `attempts`
    are in their order, `events` what the log holds about it, in any."""
    stored = sorted(events, key=lambda each: each.seq)
    moved = any(each.code == MOVED for each in stored)
    life = [*_waiting(job, moved=moved), *_running(job, attempts)]
    told = {each.text for each in stored}
    # Of two things at one instant the last word of a job is the later.
    story = [
        *(each for each in life if each.text not in told),
        *stored,
        *(each for each in _end(job) if not {each.text, job.state.value} & told),
    ]
    return sorted(story, key=lambda each: each.at)


def _waiting(job: Job, *, moved: bool) -> Iterator[Event]:
    """Before its first attempt. Where it was queued first is forgotten when it has been moved."""
    queued = "queued" if moved else f"queued in {job.queue}"
    yield _event(job, job.submitted_at, queued, actor=job.owner)
    if job.depends_on:
        yield _event(job, job.submitted_at, f"waits for {', '.join(job.depends_on)} to succeed")
        if job.queued_at > job.submitted_at:
            yield _event(job, job.queued_at, "everything it depends on has succeeded")
    if job.not_before is not None and job.not_before > job.submitted_at:
        until = job.not_before.astimezone(UTC)
        yield _event(job, job.submitted_at, f"waits until {until:%Y-%m-%d %H:%M:%S} UTC")


def _running(job: Job, attempts: Sequence[Attempt]) -> Iterator[Event]:
    for attempt in attempts:
        if attempt.started_at is None:
            yield _event(job, attempt.leased_at, f"given to {attempt.machine_id}")
        else:
            yield _event(job, attempt.started_at, f"running on {attempt.machine_id}")
        if attempt.ended_at is not None and not _was_last(job, attempt):
            text = _because(f"given back to {attempt.queue}", attempt.reason)
            yield _event(job, attempt.ended_at, text)


def _end(job: Job) -> Iterator[Event]:
    if job.finished_at is not None:
        yield _event(job, job.finished_at, _because(job.state.value, job.reason))


def _was_last(job: Job, attempt: Attempt) -> bool:
    """Whether the job ended with this attempt: giving it back takes the machine off it."""
    return job.state in JOB_ENDED and bool(job.machine_id) and attempt.epoch == job.epoch


def _because(what: str, reason: Reason | None) -> str:
    return f"{what}: {reason.sentence}" if reason else what


def _event(job: Job, at: datetime, text: str, *, actor: str = "") -> Event:
    return Event(at=at, kind="job", subject=job.id, text=text, actor=actor)
