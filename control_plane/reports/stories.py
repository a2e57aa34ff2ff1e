"""What happened to one job, as every face tells it."""

from __future__ import annotations

from collections.abc import Sequence

from control_plane.core.model import AUDIT, Event
from control_plane.ports import Store
from control_plane.timeline import job_timeline

EVENTS_MAX = 500
"""Of the event log; what people did to one job and what was unusual about it are few."""


def job_story(store: Store, job_id: str) -> Sequence[Event]:
    """Its events, the oldest first. Raises `NotFound`."""
    job = store.job_get(job_id)
    events = store.event_list(subject=job_id, limit=EVENTS_MAX).items
    told = [each for each in events if each.kind != AUDIT]
    return job_timeline(job, store.job_attempts(job_id), told)
