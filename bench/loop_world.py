"""The busy day that `bench.loop` decides about, as a snapshot and as plain tuples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from random import Random

from control_plane.core.codec import from_json, to_json
from control_plane.core.model import (
    Capacity,
    Lease,
    Machine,
    MachineState,
    Market,
    Need,
    Observation,
    Offer,
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

Shape = tuple[int, int, int, int, int]
"""GPUs, share of a machine in parts per million, CPUs, memory, disk."""
PlainJob = tuple[str, int, Shape]
"""Queue, priority, shape."""
PlainMachine = tuple[str, str, str, float, float, Shape]
"""Id, pool, state, seconds since the last beat, seconds of idleness, room that is left."""

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
CLOUDS = ("aws", "gcp", "azure")
PLACES = tuple(
    (cloud, f"{cloud}-{region}", f"{cloud}-{region}{zone}")
    for cloud, region, zone in product(CLOUDS, (1, 2, 3), "abc")
)


def _gpus(count: int, name: str, memory_gib: int, *, cpus: int) -> Capacity:
    return Capacity(
        gpus=count,
        gpu_name=name,
        gpu_memory_gib=memory_gib,
        cpus=cpus,
        memory_mib=4096 * cpus,
        disk_gib=100,
    )


SIZES = {
    "cpu": Capacity(cpus=16, memory_mib=65_536, disk_gib=100),
    "l4": _gpus(1, "L4", 24, cpus=8),
    "l4x4": _gpus(4, "L4", 24, cpus=48),
    "a10": _gpus(1, "A10", 24, cpus=12),
    "a100": _gpus(8, "A100", 80, cpus=96),
    "h100": _gpus(8, "H100", 80, cpus=192),
    "unused": _gpus(1, "T4", 16, cpus=4),
}
"""What the machines of each pool are; no queue uses the last pool any more."""
CENTS = {"cpu": 7, "l4": 30, "l4x4": 140, "a10": 36, "a100": 900, "h100": 2200, "unused": 20}
"""Per hour on demand; spot costs a third."""
QUEUES = {
    "train": ("a100", "h100"),
    "tune": ("l4x4", "a100"),
    "infer": ("l4", "a10", "l4x4"),
    "prepare": ("cpu",),
    "sweep": ("a10", "l4", "cpu"),
}
NEEDS = (
    Need(gpus=1),
    Need(gpus=1, gpu_name="L4", cpus=2),
    Need(gpus=1, cpus=4, memory_mib=8192),
    Need(gpus=2, cpus=8),
    Need(gpus=4, memory_mib=65_536),
    Need(gpus=8, gpu_memory_gib=80),
    Need(gpus=1, on_demand_only=True),
    Need(cpus=1),
    Need(cpus=4, memory_mib=4096),
    Need(share_ppm=250_000),
)
STATES = (
    *[MachineState.READY] * 90,
    *[MachineState.BOOTING] * 7,
    MachineState.DRAINING,
    MachineState.TERMINATING,
    MachineState.LAUNCHING,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One situation, as the planner takes it and as the floor does."""

    snapshot: Snapshot
    jobs: list[PlainJob]
    machines: list[PlainMachine]


def world(machines: int, jobs: int, *, kinds: int = 50) -> World:
    """Nine leases to ten machines, a few machines idle, booting, silent, ending or taken away by
    their cloud, and more waiting than the pools, which may grow by a fifth, can take."""
    chance = Random(machines)
    policy = _policy(machines * 12 // 10)
    fleet = [_machine(number, chance) for number in range(machines)]
    leases = _leases(fleet, machines * 9 // 10, chance)
    snapshot = Snapshot(
        now=NOW,
        policy=policy,
        waiting=_waiting(jobs, kinds, chance),
        machines=_with_idle_times(fleet, leases),
        leases=tuple(leases),
        observations=_observations(fleet, chance),
        offers=_offers(),
        new_machine_ids=tuple(f"n-{number:06}" for number in range(machines * 12 // 10)),
    )
    # As one comes from a store: no two records share a value but those that `codec` shares.
    snapshot = from_json(Snapshot, to_json(snapshot))
    return World(
        snapshot=snapshot, jobs=_plain_jobs(snapshot, chance), machines=_plain_machines(snapshot)
    )


# ------------------------------------------------------------------------- what is declared


def _policy(machines_max: int) -> Autoscaler:
    ample = Decimal(10**9)
    return Autoscaler(
        name="research",
        pools={name: _pool(name, machines_max // len(SIZES)) for name in SIZES},
        queues={
            name: QueuePolicy(name=name, pools=pools, priority=number, launch_after_s=30)
            for number, (name, pools) in enumerate(QUEUES.items())
        },
        budget=Budget(hour_usd=ample, day_usd=ample, month_usd=ample),
    )


def _pool(name: str, machines_max: int) -> PoolPolicy:
    size = SIZES[name]
    gpu = GpuRange(name=size.gpu_name, count=Range(low=size.gpus, high=size.gpus))
    return PoolPolicy(
        name=name,
        gpu=gpu if size.gpus else None,
        clouds=tuple(CloudPolicy(provider=cloud) for cloud in CLOUDS),
        machines=Range(low=20 if name == "l4" else 0, high=machines_max),
        gpus_max=8 * machines_max,
    )


def _offers() -> tuple[Offer, ...]:
    kinds = product(PLACES, SIZES, Market)
    return tuple(_offer(*kind, dearer=number % 7) for number, kind in enumerate(kinds))


def _offer(place: tuple[str, str, str], name: str, market: Market, *, dearer: int = 0) -> Offer:
    provider, region, zone = place
    cents = CENTS[name] * (100 + dearer) // (300 if market is Market.SPOT else 100)
    return Offer(
        provider=provider,
        region=region,
        zone=zone,
        instance_type=f"{name}.large",
        capacity=replace(SIZES[name], market=market),
        price_usd_hour=Decimal(cents).scaleb(-2),
    )


# ------------------------------------------------------------------------- what is there


def _machine(number: int, chance: Random) -> Machine:
    """Of those that serve one in a hundred has fallen silent."""
    name, state = tuple(SIZES)[number % len(SIZES)], chance.choice(STATES)
    market = chance.choice(tuple(Market))
    launched = state is not MachineState.LAUNCHING
    serves = state in (MachineState.READY, MachineState.DRAINING)
    planned_at = _ago(number % 500 + (60 if state is MachineState.BOOTING else 20_000))
    return Machine(
        id=f"m-{number:06}",
        autoscaler="research",
        pool=name,
        state=state,
        offers=tuple(_offer(place, name, market) for place in chance.sample(PLACES, 3)),
        provider_id=f"i-{number:06}" if launched else "",
        capacity=_found(SIZES[name], market) if serves else None,
        planned_at=planned_at,
        launched_at=planned_at if launched else None,
        registered_at=planned_at if serves else None,
        last_beat_at=_ago(chance.choice((*range(89), 600))) if serves else None,
        terminating_at=NOW if state is MachineState.TERMINATING else None,
    )


def _found(size: Capacity, market: Market) -> Capacity:
    """Its agent finds a little less on it than was offered."""
    return replace(
        size,
        memory_mib=size.memory_mib * 97 // 100,
        gpu_memory_gib=size.gpu_memory_gib * 94 // 100,
        market=market,
    )


def _leases(fleet: Sequence[Machine], count: int, chance: Random) -> list[Lease]:
    """Jobs where they fit; one machine in eight gets none."""
    free = {each.id: each.total for each in fleet if each.state is MachineState.READY}
    workers = [machine_id for number, machine_id in enumerate(free) if number % 8]
    found: list[Lease] = []
    while len(found) < count:
        machine_id, need = chance.choice(workers), chance.choice(NEEDS)
        if free[machine_id].fits(need):
            free[machine_id] = free[machine_id].less(need)
            found.append(_lease(f"j-{chance.getrandbits(48):012x}", machine_id, need))
    return found


def _lease(job_id: str, machine_id: str, need: Need) -> Lease:
    return Lease(
        job_id=job_id,
        epoch=1,
        machine_id=machine_id,
        queue="train",
        need=need,
        leased_at=_ago(600),
    )


def _with_idle_times(fleet: Sequence[Machine], leases: Sequence[Lease]) -> tuple[Machine, ...]:
    busy = {lease.machine_id for lease in leases}
    return tuple(
        machine
        if machine.id in busy or machine.registered_at is None
        else replace(machine, idle_since=_ago(number % 600))
        for number, machine in enumerate(fleet)
    )


def _observations(fleet: Sequence[Machine], chance: Random) -> tuple[Observation, ...]:
    """Every machine that has an id is shown, in no order; one in two hundred as taken away."""
    shown: dict[str, list[Sighting]] = {cloud: [] for cloud in CLOUDS}
    for machine in chance.sample(fleet, len(fleet)):
        if machine.provider_id:
            taken_away = chance.randrange(200) == 0
            shown[machine.offer.provider].append(_sighting(machine, taken_away=taken_away))
    return tuple(
        Observation(provider=cloud, at=NOW, sightings=tuple(found))
        for cloud, found in shown.items()
    )


def _sighting(machine: Machine, *, taken_away: bool) -> Sighting:
    return Sighting(
        machine_id=machine.id,
        provider_id=machine.provider_id,
        provider=machine.offer.provider,
        region=machine.offer.region,
        zone=machine.offer.zone,
        state="gone" if taken_away else "running",
        fleet="orchctl-research",
        created_at=machine.planned_at,
        end_reason="interrupted" if taken_away else "",
    )


def _waiting(jobs: int, kinds: int, chance: Random) -> tuple[WaitingGroup, ...]:
    """Every need in every queue, in as many sizes as it takes to make so many kinds; one job in
    twenty has not waited long enough yet."""
    sizes = range(kinds // (len(QUEUES) * len(NEEDS)))
    asked = [
        (queue, replace(need, memory_mib=need.memory_mib + 64 * size))
        for queue, need, size in product(QUEUES, NEEDS, sizes)
    ]
    weights = [chance.randint(1, 9) for _ in asked]
    counts = Counter(chance.choices(range(len(asked)), weights, k=jobs))
    return tuple(
        WaitingGroup(
            queue=queue,
            priority=number % 2,
            need=need,
            count=counts[number],
            ripe=counts[number] * 19 // 20,
            oldest_at=_ago(40 + number),
        )
        for number, (queue, need) in enumerate(asked)
    )


def _ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


# ------------------------------------------------------------------------- the same, plainly


def _plain_jobs(snapshot: Snapshot, chance: Random) -> list[PlainJob]:
    """One tuple for each waiting job, in no order, but made one after the other as rows are."""
    kinds = [group for group in snapshot.waiting for _ in range(group.count)]
    chance.shuffle(kinds)
    shapes = {id(group): _plain_need(group.need) for group in snapshot.waiting}
    return [(group.queue, group.priority, shapes[id(group)]) for group in kinds]


def _plain_machines(snapshot: Snapshot) -> list[PlainMachine]:
    free = {machine.id: machine.total for machine in snapshot.machines}
    for lease in snapshot.leases:
        free[lease.machine_id] = free[lease.machine_id].less(lease.need)
    return [
        (
            m.id,
            m.pool,
            m.state.value,
            _since(m.last_beat_at),
            _since(m.idle_since),
            plain_room(free[m.id]),
        )
        for m in snapshot.machines
    ]


def _since(moment: datetime | None) -> float:
    return (NOW - moment).total_seconds() if moment else 0.0


def plain_room(free: Capacity) -> Shape:
    """What a machine has, or has left, as a plain tuple."""
    return free.gpus, free.share_ppm, free.cpus, free.memory_mib, free.disk_gib


def _plain_need(need: Need) -> Shape:
    return need.gpus, need.share_ppm, need.cpus, need.memory_mib, need.disk_gib
