"""Small builders with readable defaults, so a test shows only what it is about.

The world of the defaults: it is `NOW`; one document `research` with one queue `default` and one
pool `l4` on aws; one spot offer of one L4 at 0.30 USD/hour; a machine is an hour old.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from control_plane.core.model import (
    Capacity,
    Cooldown,
    ErrorClass,
    Lease,
    Machine,
    MachineState,
    Market,
    Need,
    Observation,
    Offer,
    Reason,
    Sighting,
    WaitingGroup,
)
from control_plane.core.policy import (
    Autoscaler,
    Budget,
    CloudPolicy,
    GpuRange,
    PoolPolicy,
    QueuePolicy,
    Range,
)
from control_plane.core.snapshot import Snapshot

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
"""A Monday noon."""

WHY = Reason(code="test", sentence="because of the test")


def ago(seconds: float) -> datetime:
    """A moment before `NOW`."""
    return NOW - timedelta(seconds=seconds)


def ahead(seconds: float) -> datetime:
    """A moment after `NOW`."""
    return NOW + timedelta(seconds=seconds)


# ------------------------------------------------------------------------------- the market


def capacity(gpus: int = 1, **changes: Any) -> Capacity:
    """What a machine has: L4 cards, four CPUs and 16 GiB for each."""
    values: dict[str, Any] = {
        "gpus": gpus,
        "gpu_name": "L4" if gpus else "",
        "gpu_memory_gib": 24 if gpus else 0,
        "cpus": 4 * max(1, gpus),
        "memory_mib": 16_384 * max(1, gpus),
        "disk_gib": 100,
        "market": Market.SPOT,
    }
    return Capacity(**values | changes)


def offer(
    price: str = "0.30",
    *,
    gpus: int = 1,
    market: Market = Market.SPOT,
    provider: str = "aws",
    region: str = "us-east-1",
    zone: str = "us-east-1a",
    kind: str = "",
    **capacities: Any,
) -> Offer:
    """Something to buy; the type is named after its cards unless `kind` says otherwise."""
    return Offer(
        provider=provider,
        region=region,
        zone=zone,
        instance_type=kind or f"g6.{gpus}x",
        capacity=capacity(gpus, market=market, **capacities),
        price_usd_hour=Decimal(price),
    )


def on_demand(price: str = "1.00", **changes: Any) -> Offer:
    """An offer that the cloud does not take back."""
    return offer(price, market=Market.ON_DEMAND, **changes)


# ------------------------------------------------------------------------------- the document


def pool(name: str = "l4", *, low: int = 0, high: int | None = 4, **changes: Any) -> PoolPolicy:
    """A pool of GPU machines on aws, from `low` to `high` of them."""
    values: dict[str, Any] = {
        "name": name,
        "gpu": GpuRange(count=Range(low=1)),
        "clouds": (CloudPolicy(provider="aws"),),
        "machines": Range(low=low, high=high),
    }
    return PoolPolicy(**values | changes)


def queue(name: str = "default", *pools: str, **changes: Any) -> QueuePolicy:
    """A queue served by the named pools, `l4` if none is named."""
    return QueuePolicy(name=name, pools=pools or ("l4",), **changes)


def policy(*parts: PoolPolicy | QueuePolicy, budget: Mapping[str, Any] | None = None) -> Autoscaler:
    """The document `research`. Without pools it has `l4`; without queues all pools serve
    `default`. Its budget is ample unless `budget` names the caps."""
    pools = [part for part in parts if isinstance(part, PoolPolicy)] or [pool()]
    queues = [part for part in parts if isinstance(part, QueuePolicy)]
    queues = queues or [queue("default", *(each.name for each in pools))]
    ample: dict[str, Any] = {
        "hour_usd": Decimal(100),
        "day_usd": Decimal(1000),
        "month_usd": Decimal(10_000),
    }
    caps = {
        name: Decimal(value) if name.endswith("_usd") else value
        for name, value in (budget or {}).items()
    }
    return Autoscaler(
        name="research",
        queues={each.name: each for each in queues},
        pools={each.name: each for each in pools},
        budget=Budget(**ample | caps),
    )


# ------------------------------------------------------------------------------- the fleet

_LAUNCHED = frozenset(MachineState) - {
    MachineState.PLANNED,
    MachineState.LAUNCHING,
    MachineState.LAUNCH_FAILED,
}
_REGISTERED = _LAUNCHED - {MachineState.BOOTING, MachineState.BOOT_FAILED}


def machine(
    machine_id: str = "m-1",
    state: MachineState = MachineState.READY,
    *offers: Offer,
    age_s: float = 3600,
    idle_s: float = 1,
    **changes: Any,
) -> Machine:
    """A machine that was planned `age_s` ago, with what its state implies; it beat ten seconds ago
    and has been idle for `idle_s`."""
    launched, registered = state in _LAUNCHED, state in _REGISTERED
    values: dict[str, Any] = {
        "id": machine_id,
        "autoscaler": "research",
        "pool": "l4",
        "state": state,
        "offers": offers or (offer(),),
        "planned_at": ago(age_s),
        "provider_id": f"i-{machine_id}" if launched else "",
        "launched_at": ago(age_s) if launched else None,
        "registered_at": ago(age_s) if registered else None,
        "last_beat_at": ago(10) if registered else None,
        "idle_since": ago(idle_s) if registered else None,
    }
    return Machine(**values | changes)


def lease(machine_id: str = "m-1", job_id: str = "j-1", need: Need | None = None) -> Lease:
    """A job that runs on a machine."""
    return Lease(
        job_id=job_id,
        epoch=1,
        machine_id=machine_id,
        queue="default",
        need=need or Need(gpus=1),
        leased_at=ago(60),
    )


def sighting(of: Machine | str = "m-1", state: str = "running", **changes: Any) -> Sighting:
    """What a cloud shows of a machine, an hour old."""
    machine_id = of if isinstance(of, str) else of.id
    place = offer() if isinstance(of, str) else of.offer
    values: dict[str, Any] = {
        "machine_id": machine_id,
        "provider_id": f"i-{machine_id}",
        "provider": place.provider,
        "region": place.region,
        "zone": place.zone,
        "state": state,
        "fleet": "orchctl-research",
        "created_at": ago(3600),
    }
    return Sighting(**values | changes)


def observation(
    *sightings: Sighting, provider: str = "aws", unknown: Sequence[str] = ()
) -> Observation:
    """One cloud's listing."""
    return Observation(provider=provider, at=NOW, sightings=sightings, unknown=tuple(unknown))


# ------------------------------------------------------------------------------- the work


def group(
    count: int = 1,
    need: Need | None = None,
    *,
    queue: str = "default",
    ripe: int | None = None,
    waited_s: float = 60,
    priority: int = 0,
) -> WaitingGroup:
    """Waiting jobs of one GPU each; all have waited long enough unless `ripe` says how many."""
    return WaitingGroup(
        queue=queue,
        priority=priority,
        need=need or Need(gpus=1),
        count=count,
        ripe=count if ripe is None else ripe,
        oldest_at=ago(waited_s),
    )


def cooldown(key: str, *, left_s: float = 300, **changes: Any) -> Cooldown:
    """A key that rests for `left_s` more."""
    values: dict[str, Any] = {
        "key": key,
        "error_class": ErrorClass.CAPACITY_ZONE,
        "code": "InsufficientInstanceCapacity",
        "until": ahead(left_s),
    }
    return Cooldown(**values | changes)


def snapshot(*waiting: WaitingGroup, **changes: Any) -> Snapshot:
    """All that a decision looks at. Without `observations` every cloud shows the machines as their
    records say."""
    machines: Iterable[Machine] = changes.get("machines", ())
    values: dict[str, Any] = {
        "now": NOW,
        "policy": policy(),
        "waiting": waiting,
        "offers": (offer(),),
        "observations": _as_recorded(machines),
        "new_machine_ids": tuple(f"m-new-{number:03}" for number in range(1, 101)),
    }
    return Snapshot(**values | changes)


def _as_recorded(machines: Iterable[Machine]) -> tuple[Observation, ...]:
    shown: dict[str, list[Sighting]] = {"aws": []}
    for each in machines:
        found = shown.setdefault(each.offer.provider, [])
        if each.provider_id:
            found.append(replace(sighting(each), provider_id=each.provider_id))
    return tuple(observation(*found, provider=name) for name, found in shown.items())
