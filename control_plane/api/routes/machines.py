"""Machines and offers: what there is, what it costs, and the few things a person may do to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from control_plane.api.deps import ApiDeps
from control_plane.api.etags import etag, matches
from control_plane.api.parameters import (
    Actor,
    Deps,
    IdempotencyKey,
    IfNoneMatch,
    Paged,
    PathId,
    QueryName,
)
from control_plane.api.views import (
    Listing,
    MachineView,
    OfferView,
    machine_view,
    not_modified,
    offer_view,
    send,
    send_page,
)
from control_plane.core.cost import interval_cost
from control_plane.core.lifecycle import MACHINE_ENDED
from control_plane.core.model import AUDIT, Cooldown, Event, Machine, Offer
from control_plane.core.policy import PoolPolicy
from control_plane.ports import Page

router = APIRouter(prefix="/v1", tags=["machines"])


@router.get("/machines", response_model=Listing[MachineView], operation_id="list_machines")
def list_machines(
    deps: Deps,
    paging: Paged,
    every: Annotated[bool, Query(alias="all", description="Ended ones too.")] = False,
) -> Response:
    """Machines, oldest first."""
    machines = deps.store.machine_list(open_only=not every)
    page = paging.cut(machines, _age_key)
    views = tuple(_views(deps, page.items))
    return send_page(Page(items=views, cursor=page.cursor), paging)


@router.get("/machines/{machine_id}", response_model=MachineView, operation_id="get_machine")
def get_machine(machine_id: PathId, deps: Deps, if_none_match: IfNoneMatch = "") -> Response:
    """One machine."""
    machine = deps.store.machine_get(machine_id)
    # What an open machine costs and for how long it idles changes without its record.
    if machine.state in MACHINE_ENDED and matches(if_none_match, etag(machine.version)):
        return not_modified(machine.version)
    return _send(deps, machine)


@router.get(
    "/machines/{machine_id}/events", response_model=Listing[Event], operation_id="machine_events"
)
def machine_events(machine_id: PathId, deps: Deps, paging: Paged) -> Response:
    """What happened to it, newest first."""
    deps.store.machine_get(machine_id)
    page = deps.store.event_list(subject=machine_id, cursor=paging.cursor, limit=paging.limit)
    told = tuple(each for each in page.items if each.kind != AUDIT)
    return send_page(replace(page, items=told), paging)


@router.post("/machines/{machine_id}/drain", response_model=MachineView, operation_id="drain")
def drain(machine_id: PathId, deps: Deps, actor: Actor, _key: IdempotencyKey = "") -> Response:
    """Give it no more jobs; it ends when its last one has."""
    return _send(deps, deps.fleet.drain(machine_id, actor=actor))


@router.post("/machines/{machine_id}/protect", response_model=MachineView, operation_id="protect")
def protect(machine_id: PathId, deps: Deps, actor: Actor, _key: IdempotencyKey = "") -> Response:
    """Forbid ending it for idleness."""
    return _send(deps, deps.fleet.protect(machine_id, protected=True, actor=actor))


@router.post(
    "/machines/{machine_id}/unprotect", response_model=MachineView, operation_id="unprotect"
)
def unprotect(machine_id: PathId, deps: Deps, actor: Actor, _key: IdempotencyKey = "") -> Response:
    """Allow ending it for idleness again."""
    return _send(deps, deps.fleet.protect(machine_id, protected=False, actor=actor))


@router.post(
    "/machines/{machine_id}/terminate", response_model=MachineView, operation_id="terminate"
)
def terminate(machine_id: PathId, deps: Deps, actor: Actor, _key: IdempotencyKey = "") -> Response:
    """End it now; its jobs are given back."""
    return _send(deps, deps.fleet.terminate(machine_id, actor=actor))


@router.get("/offers", response_model=Listing[OfferView], operation_id="list_offers")
def list_offers(deps: Deps, paging: Paged, pool: QueryName = "") -> Response:
    """What the pools of all autoscalers may buy, cheapest first."""
    pools = [
        policy
        for document in deps.store.autoscaler_list()
        for name, policy in document.policy.pools.items()
        if pool in ("", name)
    ]
    page = paging.cut(_offers(deps, pools), _price_key)
    resting = deps.store.cooldown_list()
    views = tuple(offer_view(each, _refusal(each, resting)) for each in page.items)
    return send_page(Page(items=views, cursor=page.cursor), paging)


# -------------------------------------------------------------------------------------- views


def _send(deps: ApiDeps, machine: Machine) -> Response:
    (view,) = _views(deps, [machine])
    return send(view, version=machine.version)


def _views(deps: ApiDeps, machines: Sequence[Machine]) -> Iterator[MachineView]:
    now = deps.clock.now()
    jobs = _jobs(deps, machines)
    costs = _costs(deps, machines, now)
    for each in machines:
        yield machine_view(each, jobs.get(each.id, []), costs.get(each.id, Decimal(0)), now)


def _jobs(deps: ApiDeps, machines: Sequence[Machine]) -> Mapping[str, Sequence[str]]:
    only = machines[0].id if len(machines) == 1 else ""
    jobs: dict[str, list[str]] = {}
    for lease in deps.store.job_leases(machine_id=only):
        jobs.setdefault(lease.machine_id, []).append(lease.job_id)
    return jobs


def _costs(deps: ApiDeps, machines: Sequence[Machine], now: datetime) -> Mapping[str, Decimal]:
    # A cloud that tells whole seconds launches what was planned a moment later.
    begun = (min(each.planned_at, each.launched_at or each.planned_at) for each in machines)
    start = min(begun, default=now)
    wanted = {each.id for each in machines}
    costs: dict[str, Decimal] = {}
    for each in deps.store.prices_between(start, now):
        if each.machine_id in wanted:
            spent = costs.get(each.machine_id, Decimal(0))
            costs[each.machine_id] = spent + interval_cost(each, start, now)
    return costs


def _age_key(machine: Machine) -> str:
    return f"{machine.planned_at.isoformat(timespec='microseconds')} {machine.id}"


def _price_key(offer: Offer) -> str:
    return f"{offer.price_usd_hour:020.9f} {offer.key}"


def _offers(deps: ApiDeps, pools: Sequence[PoolPolicy]) -> Sequence[Offer]:
    clouds = [cloud for pool in pools for cloud in pool.clouds]
    sold = {_price_key(each): each for each in deps.prices.offers(clouds)}
    return [each for each in sold.values() if any(pool.accepts(each) for pool in pools)]


def _refusal(offer: Offer, cooldowns: Sequence[Cooldown]) -> Cooldown | None:
    """The longest rest that covers an offer, over or not."""
    mine = [each for each in cooldowns if _covers(each.key, offer.key)]
    return max(mine, key=lambda each: each.until, default=None)


def _covers(key: str, offer_key: str) -> bool:
    return key == offer_key or (key.endswith("/*") and offer_key.startswith(key[:-1]))
