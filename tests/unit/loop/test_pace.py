"""Clouds are called no faster than they take it, by all controllers together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest

from control_plane.core.model import MachineState
from control_plane.core.pacing import LEAST, Bucket, Pace
from control_plane.ports import Limits
from control_plane.stores.memory import MemoryStore
from control_plane.throttle import CHUNK, CallKind, Pacer
from providers.simulated.clock import SimulatedClock
from providers.simulated.errors import refusal
from providers.simulated.spec import CloudSpec
from tests.invariants.test_observing import stray
from tests.invariants.world import World, ready_world, small_world

LAUNCHES = "aws/us-east-1/launches"
LIMITS = Limits(launches=Pace(per_s=2.0, burst=5.0), requests=Pace(per_s=1.0, burst=3.0))
TWO_REGIONS = CloudSpec(regions={"us-east-1": ("us-east-1a",), "eu-west-1": ("eu-west-1a",)})
HERE = (CallKind.LAUNCH, "aws", "us-east-1")


@dataclass
class Cloud:
    """As much of a provider as its pace."""

    limits: Limits = LIMITS


class Store(MemoryStore):
    """Counts writes, and lets others write in between."""

    def __init__(self) -> None:
        super().__init__()
        self.puts = 0
        self.between: Callable[[], None] = lambda: None

    def bucket_put(self, bucket: Bucket) -> None:
        self.between()
        self.puts += 1
        super().bucket_put(bucket)


def pacer(store: MemoryStore, clock: SimulatedClock, limits: Limits = LIMITS) -> Pacer:
    providers: Any = {"aws": Cloud(limits), "local": object()}
    return Pacer(store, clock, providers)


def test_a_look_calls_as_often_as_the_bucket_says_and_the_next_one_goes_on() -> None:
    store, clock = Store(), SimulatedClock()
    first = pacer(store, clock)
    for _ in range(8):
        first.expect(*HERE)
    assert [first.may(*HERE) for _ in range(8)] == [True] * 5 + [False] * 3
    assert first.spent(*HERE)
    assert store.puts == 1
    clock.advance(1)
    assert not first.may(*HERE)  # this look has had its share
    second = pacer(store, clock)
    assert [second.may(*HERE) for _ in range(3)] == [True, True, False]


def test_other_places_and_kinds_have_buckets_of_their_own() -> None:
    store, clock = Store(), SimulatedClock()
    one = pacer(store, clock)
    assert sum(one.may(*HERE) for _ in range(9)) == 5
    assert sum(one.may(CallKind.LAUNCH, "aws", "eu-west-1") for _ in range(9)) == 5
    for kind in (CallKind.RESULT, CallKind.END):
        assert sum(one.may(kind, "aws", "us-east-1") for _ in range(9)) == 3


def test_who_has_no_pace_is_called_at_will() -> None:
    store = Store()
    one = pacer(store, SimulatedClock())
    assert all(one.may(CallKind.LAUNCH, "local", "here") for _ in range(100))
    one.refused(CallKind.LAUNCH, "local", "here")
    assert not one.spent(CallKind.LAUNCH, "local", "here")
    assert store.puts == 0


def test_many_calls_cost_few_writes() -> None:
    store, clock = Store(), SimulatedClock()
    one = pacer(store, clock, replace(LIMITS, launches=Pace(per_s=1.0, burst=1000.0)))
    for _ in range(100):
        one.expect(*HERE)
    assert all(one.may(*HERE) for _ in range(100))
    assert store.puts == -(-100 // CHUNK)
    left = store.bucket_get(LAUNCHES)
    assert left is not None
    assert left.tokens == 900  # none was taken that was not used


def test_controllers_share_a_bucket() -> None:
    """Eight at once, each in a thread of its own: five launches, not forty."""
    store, clock = Store(), SimulatedClock()
    with ThreadPoolExecutor(8) as threads:
        allowed = threads.map(lambda each: each.may(*HERE), [pacer(store, clock) for _ in range(8)])
        assert sum(allowed) == 5


def test_a_bucket_that_others_write_without_end_is_left_for_the_next_look() -> None:
    store, clock = Store(), SimulatedClock()

    def disturb() -> None:
        held = store.bucket_get(LAUNCHES)
        version = held.version if held else 0
        tokens = Bucket(key=LAUNCHES, version=version + 1, tokens=5, per_s=2, at=clock.now())
        MemoryStore.bucket_put(store, tokens)

    store.between = disturb
    assert not pacer(store, clock).may(*HERE)
    store.between = lambda: None
    assert pacer(store, clock).may(*HERE)


def test_refusals_of_one_look_slow_it_once() -> None:
    store, clock = Store(), SimulatedClock()
    one = pacer(store, clock)
    assert one.may(*HERE)
    for _ in range(16):
        one.refused(*HERE)
    assert one.spent(*HERE)
    left = store.bucket_get(LAUNCHES)
    assert left is not None
    assert (left.tokens, left.per_s) == (0, pytest.approx(1.4))


# ------------------------------------------------------------------------------ in the loop


def paced(world: World) -> World:
    world.provider.limits = LIMITS  # type: ignore[attr-defined]
    return world


def test_a_crowd_of_machines_is_launched_at_the_pace_of_the_cloud() -> None:
    world = paced(small_world(high=20))
    world.submit(80)
    launched = []
    for _ in range(12):
        world.tick()
        launched.append(world.provider.calls["launch"])
        world.clock.advance(1)
    assert launched[0] == 5
    steps = [after - before for before, after in pairwise(launched)]
    assert max(steps) <= 4
    assert world.provider.calls["launch"] == len(world.alive()) == 20
    assert world.states() == [MachineState.BOOTING] * 20


def test_each_launch_is_counted_where_it_is_made() -> None:
    """Machines that wait for their turn in a region go to another one when the first has none left;
    those are calls of the other region."""
    world = paced(small_world(high=40, spec=TWO_REGIONS))
    world.submit(80)
    called: Counter[str] = Counter()

    def sold_out(call: str) -> None:
        if call == "launch":
            region = world.provider.requests[-1].offer.region
            called[region] += 1
            if region == world.provider.requests[0].offer.region:
                raise refusal("InsufficientInstanceCapacity", "none left")

    world.provider.before = sold_out
    for _ in range(10):
        world.tick()
        world.clock.advance(1)
    (second,) = called.keys() - {world.provider.requests[0].offer.region}
    bucket = world.store.bucket_get(f"aws/{second}/launches")
    assert bucket is not None
    # It was full a second after the first look at the earliest, and has filled since.
    assert called[second] <= LIMITS.launches.burst + 9 * bucket.per_s - bucket.tokens
    assert called[second] >= 10


def test_who_wants_many_leaves_some_for_others() -> None:
    """Two autoscalers of one account: the one that wants a single machine gets it soon, whoever of
    the two comes first in the list."""
    world = paced(small_world(high=40))
    document = world.store.shared_read().autoscalers[0].policy
    pool, queue = document.pools["l4"], document.queues["default"]
    world.apply(
        replace(
            document,
            name="small",
            pools={"other": replace(pool, name="other")},
            queues={"few": replace(queue, name="few", pools=("other",))},
        )
    )
    world.submit(80)
    world.submit(1, queue="few")
    for _ in range(4):
        world.reconciler.tick()
        world.clock.advance(1)
    states = {(each.autoscaler, each.state) for each in world.store.machine_list()}
    assert ("small", MachineState.BOOTING) in states
    assert ("research", MachineState.PLANNED) in states


def test_machines_are_ended_at_the_pace_of_the_cloud() -> None:
    world, guests, _ = ready_world(8, high=8)
    paced(world)
    ended = {guest.vm.machine_id for guest in guests}
    for machine_id in ended:
        world.fleet.terminate(machine_id)
    world.tick()
    assert world.provider.calls["terminate"] == 3
    for _ in range(6):
        world.clock.advance(1)
        world.tick()
    assert world.provider.calls["terminate"] == 8
    world.run(120)
    assert not ended & {vm.machine_id for vm in world.alive()}


def test_a_cloud_that_refuses_all_the_same_is_called_more_slowly() -> None:
    world = paced(small_world(high=20))
    world.submit(80)
    world.provider.refuses["launch"] = "RequestLimitExceeded"
    world.tick()
    slow = world.store.bucket_get(LAUNCHES)
    assert slow is not None
    assert slow.per_s == pytest.approx(1.4)
    assert world.provider.calls["launch"] == 1
    del world.provider.refuses["launch"]
    for _ in range(20):
        world.clock.advance(1)
        world.tick()
    assert len(world.alive()) == 20


def test_an_api_rests_longer_only_when_being_slower_was_no_cure() -> None:
    """Each refusal slows the calls; as long as that can help, a second is all that the region
    rests. It once rested a minute after each of them, with a hundred launched in between."""
    world = paced(small_world(high=20))
    world.submit(80)
    world.provider.refuses["launch"] = "RequestLimitExceeded"
    rests_s = []
    for _ in range(9):
        world.tick()
        (rest,) = [each for each in world.store.cooldown_list() if each.key == "aws/us-east-1/*"]
        rests_s.append((rest.until - world.clock.now()).total_seconds())
        world.clock.advance(rests_s[-1] + 4)
    bucket = world.store.bucket_get(LAUNCHES)
    assert bucket is not None
    assert bucket.per_s == LIMITS.launches.per_s * LEAST
    assert rests_s == [1, 1, 1, 1, 1, 1, 2, 4, 8]


def test_a_stray_that_waits_for_its_turn_is_ended_as_soon_as_that_comes() -> None:
    world = paced(small_world())
    vm = stray(world)
    grace_s = world.timing.unknown_grace_s + 1
    world.run(grace_s, step_s=grace_s)
    world.clock.advance(grace_s)
    others = Pacer(world.store, world.clock, world.providers)
    assert [others.may(CallKind.END, "aws", "us-east-1") for _ in range(4)] == [True] * 3 + [False]
    world.tick()
    assert vm.stopping_at is None
    world.clock.advance(1)
    world.tick()
    assert vm.stopping_at is not None
