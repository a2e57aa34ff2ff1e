"""Queues: look, create, pause, clear, remove."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from control_plane.api.deps import ApiDeps
from control_plane.api.etags import check, expected
from control_plane.api.parameters import Actor, Deps, IdempotencyKey, IfMatch, Paged, PathName, Who
from control_plane.api.requests import LimitsRequest, QueueRequest
from control_plane.api.views import (
    Cleared,
    Listing,
    QueueView,
    Redriven,
    WaitsView,
    WouldClear,
    oldest_wait_s,
    send,
    send_page,
)
from control_plane.core.model import QueueRecord, QueueStats
from control_plane.core.policy import QueuePolicy
from control_plane.errors import Conflict, NotFound
from control_plane.ports import Page
from control_plane.reports.quantiles import quantile

router = APIRouter(prefix="/v1/queues", tags=["queues"])


@router.get("", response_model=Listing[QueueView], operation_id="list_queues")
def list_queues(deps: Deps, paging: Paged, who: Who) -> Response:
    """All queues that you may look at, by name."""
    seen = [each for each in deps.store.queue_list() if who.sees(each.name)]
    page = paging.cut(seen, lambda record: record.name)
    views = tuple(_views(deps, page.items))
    return send_page(Page(items=views, cursor=page.cursor), paging)


@router.post("", response_model=QueueView, status_code=201, operation_id="create_queue")
def create_queue(
    body: QueueRequest, deps: Deps, actor: Actor, _key: IdempotencyKey = ""
) -> Response:
    """Make a queue that no autoscaler declares, for own workers."""
    if _exists(deps, body.name):
        raise Conflict(f"queue {body.name} exists already")
    record = deps.service.queue_create(
        body.name,
        max_running=body.max_running,
        max_running_per_owner=body.max_running_per_owner,
        actor=actor,
    )
    return _send(deps, record, status=201)


@router.get("/{name}", response_model=QueueView, operation_id="get_queue")
def get_queue(name: PathName, deps: Deps) -> Response:
    """One queue."""
    return _send(deps, deps.store.queue_get(name))


@router.delete("/{name}", status_code=204, operation_id="delete_queue")
def delete_queue(name: PathName, deps: Deps, actor: Actor, if_match: IfMatch = "") -> Response:
    """Remove an empty queue that no autoscaler declares."""
    check(expected(if_match), deps.store.queue_get(name).version)
    deps.service.queue_delete(name, actor=actor)
    return Response(status_code=204)


@router.post("/{name}/pause", response_model=QueueView, operation_id="pause_queue")
def pause_queue(name: PathName, deps: Deps, actor: Actor, _key: IdempotencyKey = "") -> Response:
    """Hand out no more of its jobs; what runs goes on."""
    return _send(deps, deps.service.queue_pause(name, paused=True, actor=actor))


@router.post("/{name}/resume", response_model=QueueView, operation_id="resume_queue")
def resume_queue(name: PathName, deps: Deps, actor: Actor, _key: IdempotencyKey = "") -> Response:
    """Hand out its jobs again."""
    return _send(deps, deps.service.queue_pause(name, paused=False, actor=actor))


@router.post("/{name}/clear", response_model=Cleared | WouldClear, operation_id="clear_queue")
def clear_queue(
    name: PathName,
    deps: Deps,
    actor: Actor,
    dry_run: Annotated[bool, Query()] = False,
    _key: IdempotencyKey = "",
) -> Response:
    """Cancel all its waiting jobs; with `dry_run` only say how many that would be."""
    deps.store.queue_get(name)
    if dry_run:
        stats = deps.store.queue_stats().get(name)
        return send(WouldClear(would_cancel=stats.waiting + stats.blocked if stats else 0))
    return send(Cleared(cancelled=tuple(deps.service.queue_clear(name, actor=actor))))


@router.put("/{name}/limits", response_model=QueueView, operation_id="limit_queue")
def limit_queue(
    name: PathName, body: LimitsRequest, deps: Deps, actor: Actor, if_match: IfMatch = ""
) -> Response:
    """Set how many of its jobs may run at a time. A declared queue has its limits in the
    document."""
    check(expected(if_match), deps.store.queue_get(name).version)
    record = deps.service.queue_limit(
        name,
        max_running=body.max_running,
        max_running_per_owner=body.max_running_per_owner,
        actor=actor,
    )
    return _send(deps, record)


@router.get("/{name}/waits", response_model=WaitsView, operation_id="queue_waits")
def queue_waits(name: PathName, deps: Deps) -> Response:
    """How long the jobs waited that were taken from it last."""
    deps.store.queue_get(name)
    waits = deps.store.queue_waits(name)
    return send(
        WaitsView(
            queue=name,
            count=len(waits),
            p50_s=quantile(waits, 0.5),
            p90_s=quantile(waits, 0.9),
            p99_s=quantile(waits, 0.99),
            max_s=max(waits, default=None),
        )
    )


@router.post("/{name}/redrive", response_model=Redriven, operation_id="redrive_queue")
def redrive_queue(name: PathName, deps: Deps, actor: Actor, _key: IdempotencyKey = "") -> Response:
    """Hand in again every failed or exhausted job of it, as new jobs; each only once."""
    return send(Redriven(jobs=tuple(deps.service.redrive(name, actor=actor))))


def _exists(deps: ApiDeps, name: str) -> bool:
    try:
        deps.store.queue_get(name)
    except NotFound:
        return False
    return True


def _send(deps: ApiDeps, record: QueueRecord, *, status: int = 200) -> Response:
    (view,) = _views(deps, [record])
    location = f"/v1/queues/{record.name}" if status == 201 else ""
    return send(view, status, version=record.version, location=location)


def _views(deps: ApiDeps, records: Sequence[QueueRecord]) -> Iterator[QueueView]:
    stats = deps.store.queue_stats()
    policies = _policies(deps)
    for record in records:
        yield _view(
            deps,
            record,
            stats.get(record.name) or QueueStats(name=record.name, waiting=0, running=0),
            policies.get((record.autoscaler, record.name)),
        )


def _policies(deps: ApiDeps) -> Mapping[tuple[str, str], QueuePolicy]:
    return {
        (document.name, name): policy
        for document in deps.store.autoscaler_list()
        for name, policy in document.policy.queues.items()
    }


def _view(
    deps: ApiDeps, record: QueueRecord, stats: QueueStats, policy: QueuePolicy | None
) -> QueueView:
    return QueueView(
        name=record.name,
        autoscaler=record.autoscaler,
        paused=record.paused,
        version=record.version,
        created_at=record.created_at,
        priority=policy.priority if policy else 0,
        pools=policy.pools if policy else (),
        waiting=stats.waiting,
        running=stats.running,
        oldest_at=stats.oldest_at,
        oldest_wait_s=oldest_wait_s(stats, deps.clock.now()),
        delayed=stats.delayed,
        blocked=stats.blocked,
        exact=stats.exact,
        max_running=record.max_running,
        max_running_per_owner=record.max_running_per_owner,
    )
