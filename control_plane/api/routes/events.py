"""What happened, and the bell that wakes the loop."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from control_plane.api.cursors import Paged
from control_plane.api.deps import Deps
from control_plane.api.fields import LINE
from control_plane.api.idempotency import IdempotencyKey
from control_plane.api.views import Accepted, Listing, send, send_page
from control_plane.core.model import Event

Kind = Literal["", "job", "machine", "queue", "autoscaler", "plan", "access", "error"]

router = APIRouter(prefix="/v1", tags=["events"])


@router.get("/events", response_model=Listing[Event], operation_id="list_events")
def list_events(
    deps: Deps,
    paging: Paged,
    kind: Kind = "",
    subject: Annotated[str, Query(pattern=LINE, max_length=100)] = "",
) -> Response:
    """What happened, newest first."""
    page = deps.store.event_list(
        kind=kind, subject=subject, cursor=paging.cursor, limit=paging.limit
    )
    return send_page(page, paging)


@router.post("/reconcile", response_model=Accepted, status_code=202, operation_id="reconcile")
def reconcile(deps: Deps, _key: IdempotencyKey = "") -> Response:
    """Wake the loop now instead of at its next tick."""
    deps.service.changed()
    return send(Accepted(), 202)
