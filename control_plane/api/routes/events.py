"""What happened, and the bell that wakes the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from control_plane.api.cursors import Paging
from control_plane.api.deps import ApiDeps
from control_plane.api.fields import LINE
from control_plane.api.parameters import Deps, IdempotencyKey, Paged, Who
from control_plane.api.views import Accepted, Listing, send, send_page
from control_plane.core.access import ALL_QUEUES, Role
from control_plane.core.model import AUDIT, Event
from control_plane.errors import InvalidInput, NotFound
from control_plane.ports import Page
from control_plane.reports.stories import job_story

Kind = Literal["", "job", "machine", "queue", "autoscaler", "plan", "access", "audit", "error"]

router = APIRouter(prefix="/v1", tags=["events"])


@router.get("/events", response_model=Listing[Event], operation_id="list_events")
def list_events(
    deps: Deps,
    paging: Paged,
    who: Who,
    kind: Kind = "",
    subject: Annotated[str, Query(pattern=LINE, max_length=100)] = "",
) -> Response:
    """What happened, newest first; who sent which change (`audit`) only when it is asked for, so a
    page may be short with more to come. Of a job its whole life is told; of everything else what
    the event log holds. Who may look at some queues alone asks for one of them or of their jobs."""
    if not who.grant.everywhere:
        who.require(Role.VIEWER, _queue_of(deps, kind, subject))
    story = _story(deps, subject) if kind in ("", "job") and subject else None
    if story is not None:
        return send_page(_newest_first(story, paging), paging)
    page = deps.store.event_list(
        kind=kind, subject=subject, cursor=paging.cursor, limit=paging.limit
    )
    if kind != AUDIT:
        page = replace(page, items=tuple(each for each in page.items if each.kind != AUDIT))
    return send_page(page, paging)


@router.post("/reconcile", response_model=Accepted, status_code=202, operation_id="reconcile")
def reconcile(deps: Deps, _key: IdempotencyKey = "") -> Response:
    """Wake the loop now instead of at its next tick."""
    deps.service.changed()
    return send(Accepted(), 202)


def _queue_of(deps: ApiDeps, kind: str, subject: str) -> str:
    """The queue that the events asked for are about; all where that is not sure."""
    if kind == "queue" and subject:
        return subject
    try:
        return deps.store.job_get(subject).queue if kind == "job" and subject else ALL_QUEUES
    except NotFound:
        return ALL_QUEUES


def _story(deps: ApiDeps, subject: str) -> Sequence[Event] | None:
    try:
        return job_story(deps.store, subject)
    except NotFound:
        return None


def _newest_first(story: Sequence[Event], paging: Paging) -> Page[Event]:
    """A page of it; the cursor counts what is older, since only newer ones can be added."""
    if not (paging.cursor or "0").isdecimal():
        raise InvalidInput("this cursor does not belong to this listing")
    end = min(int(paging.cursor or len(story)), len(story))
    start = max(0, end - paging.limit)
    return Page(items=tuple(story[start:end][::-1]), cursor=str(start) if start else "")
