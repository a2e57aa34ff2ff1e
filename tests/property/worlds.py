"""Whole situations for the planner, as rich and as odd as they may really come."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import product

from hypothesis import strategies as st

from control_plane.core.lifecycle import COUNTED
from control_plane.core.model import (
    Cooldown,
    ErrorClass,
    Lease,
    Machine,
    MachineState,
    Market,
    Need,
    Observation,
    Offer,
    Sighting,
    WaitingGroup,
    breaker_key,
)
from control_plane.core.policy import (
    AtLimit,
    Autoscaler,
    Budget,
    CloudPolicy,
    GpuRange,
    MarketPolicy,
    PoolPolicy,
    QueuePolicy,
    Range,
    Window,
)
from control_plane.core.snapshot import Snapshot, Spend
from tests.build import NOW, WHY, ago, capacity

PLACES = (
    ("aws", "us-east-1", "us-east-1a"),
    ("aws", "us-east-1", "us-east-1b"),
    ("aws", "us-west-2", ""),
    ("gcp", "us-central1", "us-central1-a"),
)
SHAPES = {
    "cpu": capacity(0),
    "l4x1": capacity(1),
    "l4x4": capacity(4),
    "a100x2": capacity(2, gpu_name="A100", gpu_memory_gib=80),
}
PRICES = {"cpu": "0.05", "l4x1": "0.30", "l4x4": "1.10", "a100x2": "2.50"}


def _offer(place: tuple[str, str, str], kind: str, market: Market, factor: int) -> Offer:
    provider, region, zone = place
    dearer = 3 if market is Market.ON_DEMAND else 1
    return Offer(
        provider=provider,
        region=region,
        zone=zone,
        instance_type=kind,
        capacity=replace(SHAPES[kind], market=market),
        price_usd_hour=Decimal(PRICES[kind]) * dearer * factor / 10,
    )


CATALOGUE = tuple(
    _offer(place, kind, market, 10 + step)
    for step, (place, kind, market) in enumerate(product(PLACES, SHAPES, Market))
)

moments = st.sampled_from((1, 300, 301, 600, 601, 900, 1500, 2000, 3599, 3900, 90_000)).map(ago)
recent = st.sampled_from((1, 29, 30, 60, 90, 120, 121, 300, 330, 600, 601)).map(ago)
beats = st.sampled_from((*range(1, 90, 8), 90, 91, 600)).map(ago)


def rarely(draw: st.DrawFn) -> bool:
    """True one time in ten; small numbers would come far more often."""
    return draw(st.sampled_from(range(10))) == 7


needs = st.sampled_from(
    (
        Need(gpus=1),
        Need(gpus=1, on_demand_only=True),
        Need(gpus=1, gpu_name="L4"),
        Need(gpus=2, gpu_name="A100"),
        Need(gpus=3),
        Need(gpus=1, cpus=3, memory_mib=20_000),
        Need(cpus=2),
        Need(share_ppm=250_000),
        Need(share_ppm=1_000_000),
        Need(gpus=9),
    )
)
windows = st.builds(
    Window,
    cron=st.sampled_from(("0 8 * * *", "30 11 * * MON-FRI", "0 22 * * *")),
    duration_s=st.sampled_from((1800, 36_000)),
    timezone=st.sampled_from(("UTC", "Europe/Berlin")),
    machines=st.integers(0, 3),
)


@st.composite
def pools(draw: st.DrawFn, name: str) -> PoolPolicy:
    low = draw(st.sampled_from((0, 0, 0, 1, 2)))
    providers = draw(st.sampled_from((("aws",), ("gcp",), ("aws", "gcp"))))
    return PoolPolicy(
        name=name,
        gpu=draw(
            st.sampled_from(
                (None, GpuRange(count=Range(low=1)), GpuRange(name="L4", count=Range(low=1)))
            )
        ),
        clouds=tuple(CloudPolicy(provider=each) for each in providers),
        market=draw(st.sampled_from(MarketPolicy)),
        machines=Range(low=low, high=draw(st.sampled_from((low, 3, 5, 8, 12)))),
        gpus_max=draw(st.sampled_from((3, 64, 64))),
        idle_timeout_s=draw(st.sampled_from((60, 300))),
        boot_timeout_s=draw(st.sampled_from((300, 600))),
        max_lifetime_s=draw(st.sampled_from((3600, 86_400))),
        warm=draw(st.sampled_from(((), (), (draw(windows),)))),
        closed=draw(st.sampled_from(((), (), (), (draw(windows),)))),
    )


@st.composite
def policies(draw: st.DrawFn) -> Autoscaler:
    names = draw(st.sampled_from((("a",), ("a", "b"), ("a", "b", "c"))))
    queues = draw(st.sampled_from((("one",), ("one", "two"), ("one", "two", "three"))))
    return Autoscaler(
        name="research",
        pools={name: draw(pools(name)) for name in names},
        queues={
            name: QueuePolicy(
                name=name,
                pools=tuple(
                    draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
                ),
                priority=draw(st.integers(0, 2)),
                ageing_s=draw(st.sampled_from((600, 3600))),
            )
            for name in queues
        },
        budget=Budget(
            hour_usd=draw(st.sampled_from((Decimal(6), Decimal(30), Decimal(500)))),
            day_usd=draw(st.sampled_from((Decimal(30), Decimal(500)))),
            month_usd=draw(st.sampled_from((Decimal(40), Decimal(5000)))),
            at_limit=draw(st.sampled_from(AtLimit)),
        ),
    )


@st.composite
def machines(draw: st.DrawFn, number: int, pool_names: tuple[str, ...]) -> Machine:
    state = draw(st.sampled_from((*[MachineState.READY] * 8, *sorted(COUNTED))))
    offers = tuple(draw(st.lists(st.sampled_from(CATALOGUE), min_size=1, max_size=3)))
    open_launch = state in (MachineState.PLANNED, MachineState.LAUNCHING)
    nameless = open_launch or (state is MachineState.TERMINATING and draw(st.booleans()))
    serves = state in (MachineState.READY, MachineState.DRAINING)
    planned_at = draw(moments | recent)
    return Machine(
        id=f"m-{number}",
        autoscaler="research",
        pool=draw(st.sampled_from(pool_names)),
        state=state,
        offers=offers,
        attempt=draw(st.integers(1, len(offers))),
        provider_id="" if nameless else f"i-{number}",
        planned_at=planned_at,
        launched_at=None if nameless else planned_at,
        registered_at=planned_at if serves else None,
        last_beat_at=max(planned_at, draw(beats)) if serves else None,
        idle_since=draw(st.none() | recent) if serves else None,
        hold_until=draw(st.none() | st.just(NOW + timedelta(seconds=draw(st.integers(1, 1800))))),
        interruption_at=draw(recent) if rarely(draw) else None,
        terminating_at=draw(st.none() | recent) if state is MachineState.TERMINATING else None,
        protected=rarely(draw),
        reason=None if state in (MachineState.READY, MachineState.BOOTING) else WHY,
    )


@st.composite
def fleets(draw: st.DrawFn, pool_names: tuple[str, ...]) -> tuple[Machine, ...]:
    count = draw(st.integers(0, 7))
    return tuple(draw(machines(number, pool_names)) for number in range(count))


@st.composite
def leases(draw: st.DrawFn, fleet: tuple[Machine, ...]) -> tuple[Lease, ...]:
    holders = [m for m in fleet if m.registered_at is not None] * 3 + [None]
    found = []
    for number, holder in enumerate(draw(st.lists(st.sampled_from(holders), max_size=3))):
        found.append(
            Lease(
                job_id=f"j-{number}",
                epoch=draw(st.integers(1, 3)),
                machine_id=holder.id if holder else "m-ghost",
                queue=draw(st.sampled_from(("one", "elsewhere"))),
                need=draw(needs),
                leased_at=ago(30),
            )
        )
    return tuple(found)


@st.composite
def waiting_groups(draw: st.DrawFn, queue_names: tuple[str, ...]) -> tuple[WaitingGroup, ...]:
    keys = draw(
        st.lists(
            st.tuples(st.sampled_from(queue_names), st.integers(0, 1), needs),
            min_size=1,
            max_size=6,
            unique=True,
        )
    )
    found = []
    for queue, priority, need in keys:
        count = draw(st.integers(1, 9))
        found.append(
            WaitingGroup(
                queue=queue,
                priority=priority,
                need=need,
                count=count,
                ripe=draw(st.sampled_from((count, count, draw(st.integers(0, count))))),
                oldest_at=draw(recent | moments),
            )
        )
    return tuple(found)


@st.composite
def observations(draw: st.DrawFn, provider: str, fleet: tuple[Machine, ...]) -> Observation:
    unknown = draw(st.sampled_from(((), (), (), (), ("us-east-1",), ("*",))))
    shown = [] if unknown == ("*",) else [m for m in fleet if m.offer.provider == provider]
    found = []
    for machine in shown:
        state = draw(
            st.sampled_from(("running", "running", "running", "pending", "stopping", "gone", ""))
        )
        if state:
            found.append(_sighting(machine, state, draw(st.sampled_from(("", "interrupted")))))
    if unknown != ("*",) and rarely(draw):
        found.append(
            Sighting(
                machine_id=draw(st.sampled_from(("", "m-stray", "m-0"))),
                provider_id=f"x-{provider}",
                provider=provider,
                region="us-east-1",
                zone="us-east-1a",
                state=draw(st.sampled_from(("running", "gone"))),
                fleet="orchctl-research",
                created_at=draw(recent),
            )
        )
    return Observation(provider=provider, at=NOW, sightings=tuple(found), unknown=unknown)


def _sighting(machine: Machine, state: str, end_reason: str) -> Sighting:
    return Sighting(
        machine_id=machine.id,
        provider_id=machine.provider_id or f"i-{machine.id}",
        provider=machine.offer.provider,
        region=machine.offer.region,
        zone=machine.offer.zone,
        state=state,
        fleet="orchctl-research",
        created_at=machine.planned_at,
        end_reason=end_reason,
    )


@st.composite
def cooldowns(draw: st.DrawFn, pool_names: tuple[str, ...]) -> tuple[Cooldown, ...]:
    keys = draw(
        st.lists(
            st.sampled_from(
                (
                    *(offer.key for offer in CATALOGUE),
                    "aws/us-east-1/*",
                    "gcp/*",
                    *(breaker_key(name, offer) for name in pool_names for offer in CATALOGUE[:4]),
                )
            ),
            max_size=6,
            unique=True,
        )
    )
    return tuple(
        Cooldown(
            key=key,
            error_class=ErrorClass.CAPACITY_ZONE,
            code="NoCapacity",
            until=NOW + timedelta(seconds=draw(st.sampled_from((-10, 0, 60, 600)))),
            count=draw(st.integers(1, 4)),
        )
        for key in keys
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """A valid snapshot of anything: calm, crowded, broken, half blind."""
    policy = draw(policies())
    pool_names, queue_names = tuple(policy.pools), tuple(policy.queues)
    fleet = draw(fleets((*pool_names, *pool_names, *pool_names, "removed")))
    unsold = draw(st.lists(st.sampled_from(CATALOGUE), max_size=30))
    providers = sorted(
        {cloud.provider for pool in policy.pools.values() for cloud in pool.clouds}
        | {machine.offer.provider for machine in fleet}
    )
    return Snapshot(
        now=NOW,
        policy=policy,
        paused=rarely(draw),
        deleting=rarely(draw),
        generation=draw(st.integers(0, 3)),
        queues_paused=frozenset({"one"} if rarely(draw) else ()),
        waiting=draw(waiting_groups(queue_names)),
        machines=fleet,
        leases=draw(leases(fleet)),
        observations=tuple(draw(observations(provider, fleet)) for provider in providers),
        offers=tuple(each for each in CATALOGUE if each not in unsold),
        cooldowns=draw(cooldowns(pool_names)),
        reachable_since=draw(st.none() | recent),
        spend=Spend(
            day_usd=Decimal(29) if rarely(draw) else Decimal(0),
            month_usd=Decimal(40) if rarely(draw) else Decimal(3),
        ),
        new_machine_ids=tuple(f"n-{number:02}" for number in range(40)),
    )
