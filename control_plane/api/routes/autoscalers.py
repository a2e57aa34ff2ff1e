"""Autoscalers: the declared documents, what they would change, and what was decided for them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from control_plane.api.deps import ApiDeps
from control_plane.api.etags import check, conditional, etag, expected, matches, required
from control_plane.api.explanations import explain
from control_plane.api.names import NAME
from control_plane.api.parameters import (
    Actor,
    Deps,
    IdempotencyKey,
    IfMatch,
    IfNoneMatch,
    Paged,
    PathName,
    Who,
)
from control_plane.api.requests import DocumentRequest
from control_plane.api.views import (
    AutoscalerView,
    Explanation,
    Listing,
    PlanView,
    Preview,
    WorstCase,
    not_modified,
    plan_view,
    send,
    send_all,
    send_page,
)
from control_plane.config.diff import changes, worst_case_usd_hour
from control_plane.config.findings import findings
from control_plane.config.load import load_text
from control_plane.core.access import Role
from control_plane.core.model import Offer
from control_plane.core.policy import Autoscaler, AutoscalerRecord
from control_plane.errors import InvalidInput, NotFound

router = APIRouter(prefix="/v1/autoscalers", tags=["autoscalers"])

_HOW = "send its ETag as `If-Match`, or `If-None-Match: *` for a new one"


@router.get("", response_model=Listing[AutoscalerView], operation_id="list_autoscalers")
def list_autoscalers(deps: Deps, paging: Paged) -> Response:
    """All autoscalers, by name."""
    return send_page(paging.cut(deps.store.autoscaler_list(), lambda each: each.name), paging)


@router.get("/{name}", response_model=AutoscalerView, operation_id="get_autoscaler")
def get_autoscaler(name: PathName, deps: Deps, if_none_match: IfNoneMatch = "") -> Response:
    """The applied version."""
    record = deps.store.autoscaler_get(name)
    if matches(if_none_match, etag(record.version)):
        return not_modified(record.version)
    return _send(record)


@router.put(
    "/{name}",
    response_model=AutoscalerView | Preview,
    responses={201: {"model": AutoscalerView}},
    operation_id="apply_autoscaler",
)
def apply_autoscaler(
    name: PathName,
    body: DocumentRequest,
    deps: Deps,
    actor: Actor,
    dry_run: Annotated[bool, Query(description="Only say what it would change.")] = False,
    if_match: IfMatch = "",
    if_none_match: IfNoneMatch = "",
) -> Response:
    """Make a document the applied one; with `dry_run` nothing is written."""
    wanted = expected(if_match, if_none_match)
    policy = _load(name, body.document)
    current = _current(deps, name)
    if dry_run:
        check(wanted, current.version if current else 0)
        return send(_preview(deps, current, policy))
    wanted = required(wanted, _HOW)
    check(wanted, current.version if current else 0)
    with conditional():
        record = deps.fleet.apply(
            body.document, policy, expected_version=wanted.version, actor=actor
        )
    return _send(record, status=200 if current else 201)


@router.delete(
    "/{name}", response_model=AutoscalerView, status_code=202, operation_id="delete_autoscaler"
)
def delete_autoscaler(name: PathName, deps: Deps, actor: Actor, if_match: IfMatch = "") -> Response:
    """Drain its machines; it goes when the last one is gone."""
    check(expected(if_match), deps.store.autoscaler_get(name).version)
    return _send(deps.fleet.delete(name, actor=actor), status=202)


@router.get(
    "/{name}/history", response_model=Listing[AutoscalerView], operation_id="autoscaler_history"
)
def history(name: PathName, deps: Deps) -> Response:
    """Its last versions, newest first; they stay when it is deleted."""
    records = deps.store.autoscaler_history(name)
    if not records:
        raise NotFound(f"there never was an autoscaler {name}")
    return send_all(records)


@router.post("/{name}/pause", response_model=AutoscalerView, operation_id="pause_autoscaler")
def pause(name: PathName, deps: Deps, actor: Actor, _key: IdempotencyKey = "") -> Response:
    """Buy nothing more; what runs finishes, idle machines still end."""
    return _send(deps.fleet.pause(name, paused=True, actor=actor))


@router.post("/{name}/resume", response_model=AutoscalerView, operation_id="resume_autoscaler")
def resume(name: PathName, deps: Deps, actor: Actor, _key: IdempotencyKey = "") -> Response:
    """Buy again."""
    return _send(deps.fleet.pause(name, paused=False, actor=actor))


@router.get("/{name}/explain", response_model=Explanation, operation_id="explain_queue")
def explain_queue(
    name: PathName, queue: Annotated[str, Query(pattern=NAME)], deps: Deps, who: Who
) -> Response:
    """Why a queue has the machines it has, and why not more."""
    who.require(Role.VIEWER, queue)
    return send(explain(deps.store, name, queue))


@router.get("/{name}/plans", response_model=Listing[PlanView], operation_id="list_plans")
def plans(name: PathName, deps: Deps, limit: Annotated[int, Query(ge=1, le=200)] = 20) -> Response:
    """The last plans that did or refused something, newest first."""
    deps.store.autoscaler_get(name)
    return send_all(plan_view(each) for each in deps.store.plan_list(name, limit=limit))


def _send(record: AutoscalerRecord, *, status: int = 200) -> Response:
    location = f"/v1/autoscalers/{record.name}" if status == 201 else ""
    return send(record, status, version=record.version, location=location)


def _load(name: str, document: str) -> Autoscaler:
    policy = load_text(document, name=f"{name}.yaml")
    if policy.name != name:
        raise InvalidInput(
            f"the document is of autoscaler {policy.name}, the path says {name}",
            fix="use one name in both",
        )
    return policy


def _current(deps: ApiDeps, name: str) -> AutoscalerRecord | None:
    try:
        return deps.store.autoscaler_get(name)
    except NotFound:
        return None


def _preview(deps: ApiDeps, current: AutoscalerRecord | None, policy: Autoscaler) -> Preview:
    old = current.policy if current else None
    offers = _offers(deps, policy, old)
    worst = worst_case_usd_hour(policy, offers)
    return Preview(
        changes=changes(old, policy, offers),
        worst_case_usd_hour=WorstCase(
            old=worst_case_usd_hour(old, offers) if old else None, new=worst
        ),
        budget_usd_hour=policy.budget.hour_usd,
        within_budget=worst <= policy.budget.hour_usd,
        right_now=deps.preview(policy),
        findings=findings(policy, offers),
    )


def _offers(deps: ApiDeps, *policies: Autoscaler | None) -> list[Offer]:
    clouds = [cloud for policy in policies if policy for cloud in policy.clouds]
    return list(deps.prices.offers(clouds))
