"""What is sent: the nouns of the model, and beside them what can only be said at this moment."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from starlette.responses import JSONResponse, Response

from control_plane.api.cursors import Paging
from control_plane.api.etags import etag
from control_plane.config.diff import Change
from control_plane.config.findings import Finding
from control_plane.core.access import ApiToken, Federation, Role
from control_plane.core.alerts import Delivery
from control_plane.core.codec import from_json, to_json
from control_plane.core.hooks import Hook
from control_plane.core.model import Cooldown, Job, Machine, Offer, QueueStats
from control_plane.core.plan import Plan
from control_plane.core.policy import AutoscalerRecord
from control_plane.ports import Page, PlanRecord

T = TypeVar("T")
V = TypeVar("V")

AutoscalerView = AutoscalerRecord
FederationView = Federation
HookView = Hook
DeliveryView = Delivery
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Generic[T]):
    """One page; an empty cursor means that it is the last one."""

    items: tuple[T, ...]
    cursor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView(Job):
    """A job and its prospects."""

    position_in_queue: int | None = None
    """1 = next; None when it does not wait, or very many wait before it."""
    estimated_start_s: float | None = None
    """None = nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineView(Machine):
    """A machine, what it does and what it costs."""

    busy: bool
    jobs: tuple[str, ...]
    price_usd_hour: Decimal
    cost_usd: Decimal
    """So far."""
    age_s: float
    """Since the cloud accepted it, or else since it was planned."""
    idle_s: float
    """0 while it is busy or not up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueView:
    """A queue in figures."""

    name: str
    autoscaler: str
    paused: bool
    version: int
    created_at: datetime
    priority: int
    pools: tuple[str, ...]
    waiting: int
    """In state `queued`, the delayed ones among them."""
    running: int
    oldest_at: datetime | None
    oldest_wait_s: float | None
    delayed: int
    """Waiting for their `not_before`."""
    blocked: int
    """Waiting for other jobs."""
    exact: bool
    """False: the numbers of waiting, delayed and blocked jobs are at least these."""
    max_running: int | None
    max_running_per_owner: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitsView:
    """How long the jobs waited that were taken last, in seconds."""

    queue: str
    count: int
    """Jobs the figures are made of."""
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None
    max_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Redriven:
    """The receipt of dead letters handed in again."""

    jobs: tuple[str, ...]
    """Ids of the new jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferView(Offer):
    """Something that can be bought, and whether it was refused lately."""

    resting_until: datetime | None = None
    """It is not tried before then."""
    last_refusal: str = ""
    """The cloud's own code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanView:
    """One plan that did or refused something."""

    id: str
    autoscaler: str
    at: datetime
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a queue has the machines it has, and why not more."""

    queue: str
    text: str
    lines: tuple[str, ...]
    plan_id: str = ""
    """Empty when there was no plan yet."""
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstCase:
    """What everything at its maximum would cost per hour, before and after."""

    old: Decimal | None
    """None = there is no applied document."""
    new: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What applying a document would change."""

    changes: tuple[Change, ...]
    worst_case_usd_hour: WorstCase
    budget_usd_hour: Decimal
    within_budget: bool
    right_now: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """The receipt of a cleared queue."""

    cancelled: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WouldClear:
    """What clearing a queue would do."""

    would_cancel: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBlob:
    """Where uploaded bytes are."""

    blob: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadView:
    """Where to PUT certain bytes."""

    url: str = ""
    """Good for some minutes, and without a token; empty = the API takes them itself."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """To be sent along as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """That the server answers, and which one it is."""

    status: str
    version: str
    installation: str
    """What the labels of its machines begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """Something will be done soon."""

    status: str = "accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class WhoView:
    """Somebody, and what they may do."""

    actor: str
    role: Role
    queues: tuple[str, ...]
    """`*` = all."""
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSession:
    """What the token of a CI system was exchanged for."""

    token: str
    """Sent as a bearer from now on."""
    who: WhoView


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenView:
    """A token as everybody may see it."""

    id: str
    name: str
    prefix: str
    """What the token begins with, to find it again where it is used."""
    role: Role
    queues: tuple[str, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    expired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token that was made just now."""

    token: str
    """Shown this once, and kept nowhere."""
    record: TokenView


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretView:
    """What signs webhooks; derived anew whenever it is asked for, and kept nowhere."""

    secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HookAnswer:
    """What came of a webhook."""

    job: str = ""
    """The id of the job it started, now or when it came before; empty = none."""
    ignored: str = ""
    """Why it started none."""


# ------------------------------------------------------------------------------------ sending


def send(
    value: object,
    status: int = 200,
    *,
    version: int | None = None,
    location: str = "",
    headers: Mapping[str, str] = NO_HEADERS,
) -> Response:
    """A value as a JSON answer, with the ETag of its version and where it can be found."""
    headers = dict(headers)
    if version is not None:
        headers["ETag"] = etag(version)
    if location:
        headers["Location"] = location
    return JSONResponse(to_json(value), status, headers)


def not_modified(version: int) -> Response:
    """The answer to somebody who has this version already."""
    return Response(status_code=304, headers={"ETag": etag(version)})


def send_page(page: Page[T], paging: Paging) -> Response:
    """One page of a listing as an answer; its cursor is sealed."""
    cursor = paging.seal(page.cursor)
    headers = {"Link": paging.link(cursor)} if cursor else {}
    return JSONResponse(to_json(Listing(items=page.items, cursor=cursor)), 200, headers)


def send_all(items: Iterable[object]) -> Response:
    """A listing that is never long, as one page."""
    return send(Listing(items=tuple(items)))


# ------------------------------------------------------------------------------------- making


def job_view(job: Job, position: int | None = None) -> JobView:
    """A job with its place in the queue."""
    return _extend(JobView, job, position_in_queue=position)


def machine_view(
    machine: Machine, jobs: Sequence[str], cost_usd: Decimal, now: datetime
) -> MachineView:
    """A machine with what it runs and what it cost until now."""
    end = machine.ended_at or now
    idle = not jobs and machine.idle_since is not None and machine.ended_at is None
    return _extend(
        MachineView,
        machine,
        busy=bool(jobs),
        jobs=tuple(jobs),
        price_usd_hour=machine.offer.price_usd_hour,
        cost_usd=cost_usd,
        age_s=_seconds(machine.launched_at or machine.planned_at, end),
        idle_s=_seconds(machine.idle_since, now) if idle else 0.0,
    )


def token_view(record: ApiToken, now: datetime) -> TokenView:
    """A token without what would let anybody use it."""
    return TokenView(
        id=record.id,
        name=record.name,
        prefix=f"orchctl_{record.id}_",
        role=record.grant.role,
        queues=record.grant.queues,
        created_at=record.created_at,
        created_by=record.created_by,
        expires_at=record.expires_at,
        expired=record.expired(now),
    )


def offer_view(offer: Offer, cooldown: Cooldown | None) -> OfferView:
    """An offer with the last time it was refused."""
    return _extend(
        OfferView,
        offer,
        resting_until=cooldown.until if cooldown else None,
        last_refusal=cooldown.code if cooldown else "",
    )


def plan_view(record: PlanRecord) -> PlanView:
    """A kept plan."""
    return PlanView(
        id=record.id,
        autoscaler=record.autoscaler,
        at=record.at,
        plan=from_json(Plan, json.loads(record.plan)),
    )


def oldest_wait_s(stats: QueueStats, now: datetime) -> float | None:
    """For how long the longest waiter of a queue has waited."""
    return None if stats.oldest_at is None else _seconds(stats.oldest_at, now)


def _seconds(start: datetime | None, end: datetime) -> float:
    return max(0.0, (end - start).total_seconds()) if start else 0.0


def _extend(kind: type[V], noun: Any, **more: object) -> V:
    return kind(**{each.name: getattr(noun, each.name) for each in fields(noun)}, **more)
