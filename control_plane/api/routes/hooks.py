"""Webhooks: which outside systems start which jobs, what they send, and what was told to others."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from control_plane.access.who import Identity
from control_plane.api.auth import sender_of
from control_plane.api.deps import ApiDeps
from control_plane.api.etags import check, expected
from control_plane.api.idempotency import REPEATED
from control_plane.api.parameters import (
    Actor,
    Deps,
    IdempotencyKey,
    IfMatch,
    IfNoneMatch,
    PathName,
    Who,
)
from control_plane.api.problems import Malformed, Unauthenticated
from control_plane.api.requests import HookRequest
from control_plane.api.views import (
    DeliveryView,
    HookAnswer,
    HookView,
    Listing,
    SecretView,
    send,
    send_all,
)
from control_plane.core.access import Role
from control_plane.core.hooks import Hook
from control_plane.errors import Denied, InvalidInput, NotFound

router = APIRouter(prefix="/v1", tags=["hooks"])

DELIVERIES_MAX = 200
SECRET = "^secret://[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$"

_RAW = {
    "security": [],
    "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}},
}


@router.post(
    "/hooks/{name}",
    response_model=HookAnswer,
    status_code=201,
    responses={200: {"model": HookAnswer, "description": "It came before, or starts nothing."}},
    operation_id="receive_hook",
    openapi_extra=_RAW,
)
async def receive_hook(name: PathName, request: Request, deps: Deps) -> Response:
    """Take a webhook, signed with the hook's secret as GitHub or Standard Webhooks say it. A repeat
    is answered with the same job."""
    sender, known_by = sender_of(request), f"hook {name} of {sender_of(request)}"
    deps.failures.check(sender, known_by)
    return await run_in_threadpool(_receive, deps, name, request, await request.body(), known_by)


def _receive(deps: ApiDeps, name: str, request: Request, body: bytes, known_by: str) -> Response:
    try:
        received = deps.hooks.receive(name, request.headers, body)
    except Denied as error:
        deps.failures.failed(sender_of(request))
        raise Unauthenticated(
            error.message, fix=f"compare with `orchctl hook secret {name}`"
        ) from error
    except InvalidInput as error:
        raise Malformed(error.message, fix=error.fix) from error
    deps.failures.succeeded(known_by)
    if received.job is None:
        return send(HookAnswer(ignored=received.why))
    answer, job = HookAnswer(job=received.job.id), f"/v1/jobs/{received.job.id}"
    if received.is_new:
        return send(answer, 201, location=job)
    return send(answer, location=job, headers=REPEATED)


@router.get("/hooks", response_model=Listing[HookView], operation_id="list_hooks")
def list_hooks(deps: Deps, who: Who) -> Response:
    """Hooks to queues that you may look at, by name."""
    return send_all(each for each in deps.store.hook_list() if who.sees(each.queue))


@router.get("/hooks/{name}", response_model=HookView, operation_id="get_hook")
def get_hook(name: PathName, deps: Deps, who: Who) -> Response:
    """One hook."""
    record = _found(deps, who, name, Role.VIEWER)
    return send(record, version=record.version)


@router.put(
    "/hooks/{name}",
    response_model=HookView,
    responses={201: {"model": HookView}},
    operation_id="apply_hook",
)
def apply_hook(
    name: PathName,
    body: HookRequest,
    deps: Deps,
    who: Who,
    if_match: IfMatch = "",
    if_none_match: IfNoneMatch = "",
) -> Response:
    """Say what starts which job. A hook that was there keeps its secret."""
    who.require(Role.OPERATOR, body.job.queue)
    version = _version(deps, who, name)
    seen = expected(if_match, if_none_match)
    check(seen, version)
    wanted = body.hook(name, now=deps.clock.now(), actor=who.actor)
    record = deps.hooks.apply(
        wanted, expected_version=seen.version if seen else None, actor=who.actor
    )
    return send(record, 200 if version else 201, version=record.version)


@router.delete("/hooks/{name}", status_code=204, operation_id="delete_hook")
def delete_hook(name: PathName, deps: Deps, who: Who, if_match: IfMatch = "") -> Response:
    """Take nothing for it any more. One made later under its name has another secret."""
    check(expected(if_match), _found(deps, who, name, Role.OPERATOR).version)
    deps.hooks.remove(name, actor=who.actor)
    return Response(status_code=204)


@router.get("/hooks/{name}/secret", response_model=SecretView, operation_id="hook_secret")
def hook_secret(name: PathName, deps: Deps, who: Who) -> Response:
    """What the sender signs with. That you looked stands in the log."""
    _found(deps, who, name, Role.OPERATOR)
    return send(SecretView(secret=deps.hooks.secret(name, actor=who.actor)))


@router.post("/hooks/{name}/rotate", response_model=HookView, operation_id="rotate_hook")
def rotate_hook(name: PathName, deps: Deps, who: Who, _key: IdempotencyKey = "") -> Response:
    """Give it another secret; the former one is taken for another day."""
    _found(deps, who, name, Role.OPERATOR)
    record = deps.hooks.rotate(name, actor=who.actor)
    return send(record, version=record.version)


@router.get("/alert-secret", response_model=SecretView, operation_id="alert_secret")
def alert_secret(
    deps: Deps,
    actor: Actor,
    target: Annotated[
        str,
        Query(pattern=SECRET, description="As the document names the receiver: `secret://pager`."),
    ],
) -> Response:
    """What our messages to a receiver are signed with. That you looked stands in the log."""
    return send(SecretView(secret=deps.hooks.alert_secret(target, actor=actor)))


@router.get("/deliveries", response_model=Listing[DeliveryView], operation_id="list_deliveries")
def list_deliveries(
    deps: Deps, limit: Annotated[int, Query(ge=1, le=DELIVERIES_MAX)] = 100
) -> Response:
    """Alerts that were sent or are to be, newest first."""
    found = sorted(deps.store.delivery_list(limit=limit), key=lambda each: each.created_at)
    return send_all(reversed(found))


def _found(deps: ApiDeps, who: Identity, name: str, role: Role) -> Hook:
    """A hook that somebody has this role for. Raises `NotFound`, `RoleNeeded`."""
    record = deps.store.hook_get(name)
    who.require(role, record.queue)
    return record


def _version(deps: ApiDeps, who: Identity, name: str) -> int:
    try:
        return _found(deps, who, name, Role.OPERATOR).version
    except NotFound:
        return 0
