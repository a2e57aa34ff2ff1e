"""Clouds are listed seldom while there can be nothing but a stray."""

from __future__ import annotations

from dataclasses import replace

from control_plane.core.model import MachineState
from control_plane.core.snapshot import Timing
from tests.invariants.test_observing import stray
from tests.invariants.world import ONE_ZONE, World, l4, policy

PAUSE_S = 600


def idle_world() -> World:
    world = World(spec=ONE_ZONE, timing=replace(Timing(), idle_look_s=PAUSE_S))
    world.apply(policy(l4()))
    world.tick()
    world.tick()
    return world


def lists(world: World) -> int:
    return world.provider.calls["observe"]


def test_nothing_is_listed_while_nothing_runs_and_nothing_waits() -> None:
    world = idle_world()
    before = lists(world)
    for _ in range(9):
        world.clock.advance(60)
        world.tick()
    assert lists(world) == before
    world.clock.advance(60)
    world.tick()
    assert lists(world) == before + 1


def test_a_job_is_seen_at_once() -> None:
    world = idle_world()
    world.submit()
    world.clock.advance(1)
    world.tick()
    assert world.states() == [MachineState.BOOTING]


def test_what_runs_is_listed_at_every_look() -> None:
    world = idle_world()
    world.submit()
    world.tick()
    before = lists(world)
    for _ in range(3):
        world.clock.advance(60)
        world.tick()
    assert lists(world) == before + 3


def test_a_stray_is_found_at_the_next_list_and_then_followed() -> None:
    world = idle_world()
    vm = stray(world)
    world.clock.advance(PAUSE_S)
    world.tick()
    assert vm.stopping_at is None  # noted at first
    for _ in range(3):
        world.clock.advance(world.timing.unknown_grace_s)
        world.tick()
    assert vm.stopping_at is not None


def test_an_autoscaler_is_gone_only_when_its_clouds_were_asked() -> None:
    world = idle_world()
    world.provider.refuses["observe"] = "InternalError"
    world.fleet.delete("research")
    world.clock.advance(60)
    world.tick()
    assert [each.name for each in world.store.shared_read().autoscalers] == ["research"]
    del world.provider.refuses["observe"]
    world.clock.advance(60)
    world.tick()
    assert not world.store.shared_read().autoscalers
