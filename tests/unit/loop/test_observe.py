"""What a snapshot is made of, besides what the invariants say of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from control_plane.core.model import MachineState, QueueStats
from control_plane.core.policy import CloudPolicy, Window
from control_plane.core.snapshot import Snapshot
from control_plane.observe import COUNTED_MAX, COUNTED_MIN, View, counted
from control_plane.stores.memory import MemoryStore
from control_plane.throttle import Rests
from tests.build import machine, offer, on_demand, policy, pool, queue
from tests.invariants.world import World, l4, ready_world, small_world
from tests.unit.loop.recording import Recording


def look(world: World, **more: Any) -> Snapshot:
    """One look at the only autoscaler."""
    shared = world.store.shared_read()
    view = View(
        record=shared.autoscalers[0],
        fleet="test-research",
        queues=shared.queues,
        rests=Rests(world.store, shared.cooldowns),
    )
    return world.reconciler._eyes.gather(view, world.clock.now(), **more)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((pool(high=4),), COUNTED_MIN),  # 4 machines of 4 cores: 16 jobs
        ((pool(high=200),), 800),  # 200 machines of 4 cores
        ((pool(high=100), pool("more", high=50)), 600),
        ((pool(high=100), queue(jobs_per_machine=30)), 3000),
        ((pool(high=4000),), COUNTED_MAX),
        ((pool(high=0),), COUNTED_MIN),
    ],
)
def test_as_many_jobs_are_counted_as_the_pools_could_ever_run(
    parts: tuple[Any, ...], expected: int
) -> None:
    assert counted(policy(*parts), [offer(), on_demand()]) == expected


def test_only_offers_that_a_pool_accepts_make_room() -> None:
    large = offer(cpus=96, provider="gcp")
    assert counted(policy(pool(high=100)), [large]) == COUNTED_MIN
    assert counted(policy(pool(high=100)), [replace(large, provider="aws")]) == 9600


def test_how_far_is_counted_is_worked_out_anew_for_another_document() -> None:
    world = small_world(high=2)
    eyes = world.reconciler._eyes
    look(world)
    before = eyes.limits["research"]
    look(world)
    assert eyes.limits["research"] is before
    world.apply(policy(l4(high=400)))
    look(world)
    assert (before[2], eyes.limits["research"][2]) == (COUNTED_MIN, 1600)


def test_the_figures_of_queues_follow_from_what_waits_and_what_runs() -> None:
    """No other read is needed for them."""
    world, (guest,), _ = ready_world()
    guest.claim()
    world.clock.advance(5)
    world.submit(3)
    since = world.clock.now()
    world.clock.advance(5)
    assert look(world).queues == {
        "default": QueueStats(name="default", waiting=3, running=1, oldest_at=since)
    }


def test_figures_that_stop_counting_say_so() -> None:
    world = small_world()
    world.submit(COUNTED_MIN + 1)
    found = look(world)
    assert found.queues["default"].waiting == COUNTED_MIN
    assert not found.queues["default"].exact
    assert [group.exact for group in found.waiting] == [False]


def test_a_machine_of_a_pool_that_left_the_document_is_looked_for_at_its_own_cloud() -> None:
    """Its provider is listed too, and the fleet is read again after that."""
    store = Recording(MemoryStore())
    world = World("aws", "gcp", store=store.as_store)
    world.apply(policy(l4("here", "gcp")))
    record = machine("m-1", MachineState.READY, offer(provider="aws"))
    world.store.machine_put(record, expected_version=0, fence=None)
    with store.during() as calls:
        found = look(world)
    assert [each.provider for each in found.observations] == ["gcp", "aws"]
    assert calls.count("fleet_read") == 2
    assert {each.provider for each in found.offers} == {"aws", "gcp"}


def test_a_cloud_that_holds_nothing_of_ours_and_is_not_declared_is_not_asked() -> None:
    world = World("aws", "gcp")
    world.apply(policy(l4("here", "gcp")))
    look(world)
    assert world.providers["aws"].calls["observe"] == 0


@pytest.mark.parametrize(
    ("what", "reads"),
    [
        (l4(), False),
        (l4(low=1), True),
        (l4(warm=(Window(cron="0 8 * * *", duration_s=60, machines=1),)), True),
    ],
)
def test_money_is_read_only_where_it_can_matter(what: Any, reads: bool) -> None:
    """A pool that keeps machines may buy at any look."""
    store = Recording(MemoryStore())
    world = World(store=store.as_store)
    world.apply(policy(what))
    with store.during() as calls:
        look(world)
    assert ("prices_between" in calls) is reads


def test_money_is_read_for_whoever_waits_or_runs() -> None:
    world, (guest,), _ = ready_world()
    world.clock.advance(3600 - (world.clock.now() - world.machine().planned_at).total_seconds())
    assert look(world).spend.day_usd > Decimal("0.1")
    guest.claim()
    world.clock.advance(3600)
    assert look(world).spend.day_usd > Decimal("0.4")


def test_a_throttled_listing_rests_at_once_and_for_everybody() -> None:
    """The very look that was refused knows of it, and the store keeps it for the others."""
    world = small_world()
    world.provider.refuses["observe"] = "RequestLimitExceeded"
    found = look(world)
    assert [rest.key for rest in found.cooldowns] == ["aws/*"]
    assert [rest.key for rest in world.store.cooldown_list()] == ["aws/*"]


def test_what_others_wrote_is_taken_in_before_anything_is_done() -> None:
    """Another autoscaler's controller may have been refused since the look."""
    world = small_world()
    rests = Rests(world.store, ())
    look(world)
    Rests(world.store, ()).put(_rest(world, "aws/us-east-1/*"))
    assert rests.known == {}
    rests.read_again()
    assert set(rests.known) == {"aws/us-east-1/*"}


def _rest(world: World, key: str) -> Any:
    from tests.build import cooldown

    return cooldown(key, until=world.clock.now() + timedelta(minutes=5))


def test_the_machine_is_kept_from_a_place_that_was_refused_between_look_and_act() -> None:
    """The executor reads what rests anew, once, when it begins."""
    world = World("aws", "gcp")
    world.apply(policy(l4("l4", "aws", "gcp")))
    world.submit()

    def refuse_elsewhere(name: str) -> None:
        if name == "leased":
            Rests(world.store, ()).put(_rest(world, "aws/*"))

    world.controller(checkpoint=refuse_elsewhere).tick()
    assert [vm.offer.provider for vm in world.alive()] == ["gcp"]


def test_places_of_a_document_are_listed_once_each() -> None:
    world = World("aws")
    both = (CloudPolicy(provider="aws"), CloudPolicy(provider="aws", regions=("us-east-1",)))
    world.apply(policy(pool("l4", clouds=both), pool("more", clouds=both)))
    look(world)
    assert world.provider.calls["observe"] == 1


def test_a_machine_is_looked_for_where_it_was_launched_whatever_the_document_says() -> None:
    world = World("aws")
    there = CloudPolicy(provider="aws", regions=("us-east-1",), options={"project": "old"})
    world.apply(policy(pool("l4", clouds=(there,))))
    world.submit()
    world.tick()
    machine_ = world.machine()
    assert machine_.options == {"project": "old"}
    assert world.provider.requests[-1].cloud == there

    here = CloudPolicy(provider="aws", regions=("us-west-2",), options={"project": "new"})
    world.apply(policy(pool("l4", clouds=(here,))))
    look(world)
    asked = {(each.regions, *each.options.values()) for each in world.provider.looked[-1]}
    assert asked == {(("us-east-1",), "old"), (("us-west-2",), "new")}


@pytest.mark.parametrize(
    ("state", "changes", "ending_s", "asked"),
    [
        (MachineState.READY, {}, None, 1),
        (MachineState.LAUNCHING, {"provider_id": "vm-x"}, None, 1),
        # Its operation tells: that a listing does not show it, and nobody knows it, is no end yet.
        (MachineState.LAUNCHING, {"provider_id": "vm-x", "operation": "op-1"}, None, 0),
        (MachineState.LAUNCHING, {}, None, 0),
        (MachineState.TERMINATING, {"provider_id": ""}, 120, 0),
        # By its label: it may have come to something, and gone again, while nobody looked.
        (MachineState.TERMINATING, {"provider_id": ""}, 121, 1),
    ],
)
def test_what_no_listing_shows_is_asked_for_where_nothing_else_tells(
    state: MachineState, changes: dict[str, Any], ending_s: float | None, asked: int
) -> None:
    world = small_world()
    now = world.clock.now()
    ending = {} if ending_s is None else {"terminating_at": now - timedelta(seconds=ending_s)}
    place = offer(region="us-east-1", zone="us-east-1a")
    record = machine("m-1", state, place, **changes, **ending)
    world.store.machine_put(record, expected_version=0, fence=None)
    look(world)
    assert world.provider.calls["sighting"] == asked


def test_a_launch_that_was_given_up_and_that_nobody_knows_is_not_called_gone() -> None:
    """Nothing is made up about a machine that may never have been."""
    world = small_world()
    ending = world.clock.now() - timedelta(seconds=121)
    place = offer(region="us-east-1", zone="us-east-1a")
    record = machine("m-1", MachineState.TERMINATING, place, provider_id="", terminating_at=ending)
    world.store.machine_put(record, expected_version=0, fence=None)
    assert [each.sightings for each in look(world).observations] == [()]
