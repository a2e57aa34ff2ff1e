"""What a look tells people: of money and capacity that are not there, once a day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from control_plane.alerts import STORM, STORM_WITHIN
from control_plane.core.alerts import Delivery, DeliveryState
from control_plane.core.model import MachineState
from control_plane.core.policy import Alert
from control_plane.interruptions import take
from control_plane.stores.memory import MemoryStore
from tests.invariants.world import World, l4, policy, small_world

ALERTS = (Alert(channel="webhook", target="secret://pager", on=("budget", "no-capacity")),)


def alerting(world: World, **budget: str) -> World:
    world.apply(replace(policy(l4(), budget=budget), alerts=ALERTS))
    return world


def told(world: World) -> Sequence[tuple[str, str]]:
    return [(each.kind, each.subject) for each in world.store.delivery_list()]


def test_a_budget_that_is_about_to_be_passed() -> None:
    world = alerting(small_world(), day_usd="0.01")
    world.submit()
    for _ in range(3):
        world.tick()
        world.clock.advance(60)
    assert world.cloud.vms == ()
    assert told(world) == [("budget", "cap-day")]
    (message,) = world.store.delivery_list()
    assert "would be passed within the hour" in message.text
    assert message.fix == "orchctl autoscaler explain research"
    world.clock.advance(86_400)
    world.submit()
    world.tick()
    assert told(world) == [("budget", "cap-day")] * 2, "the next day says it anew"


def test_capacity_that_nobody_sells() -> None:
    world = alerting(small_world())
    world.provider.refuses["launch"] = "InsufficientInstanceCapacity"
    world.submit()
    for _ in range(4):
        world.tick()
        world.clock.advance(20)
    assert told(world) == [("no-capacity", "default")]


def stormy(on: str = "interruption-storm") -> World:
    """As many machines as a storm takes, and one more."""
    world = small_world()
    alerts = (Alert(channel="webhook", target="secret://pager", on=(on,)),)
    world.apply(replace(policy(l4(high=STORM + 1)), alerts=alerts))
    for _ in range(STORM + 1):
        world.submit()
    world.tick()
    assert len(world.store.machine_list()) == STORM + 1
    return world


def take_machines(world: World, count: int) -> None:
    """The cloud takes so many more."""
    left = [each for each in world.store.machine_list() if each.interruption_at is None]
    for machine in left[:count]:
        take(world.service, machine, "spot", world.clock.now() + timedelta(minutes=2))
    world.tick()


def test_many_machines_that_clouds_take_are_a_storm_once_a_day() -> None:
    world = stormy()
    take_machines(world, STORM - 1)
    assert not told(world)
    world.clock.advance(STORM_WITHIN.total_seconds() / 2)
    take_machines(world, 1)
    (message,) = world.store.delivery_list()
    assert (message.kind, message.subject) == ("interruption-storm", "machines")
    assert message.text == f"clouds have taken {STORM} machines within an hour"
    take_machines(world, 1)
    assert len(told(world)) == 1


def test_what_clouds_took_long_ago_is_no_storm() -> None:
    world = stormy()
    take_machines(world, STORM - 1)
    world.clock.advance(STORM_WITHIN.total_seconds() + 1)
    take_machines(world, 2)
    assert not told(world)


def test_a_storm_that_nobody_wants_to_hear_of_is_not_looked_for() -> None:
    world = stormy(on="budget")
    take_machines(world, STORM + 1)
    assert not told(world)


def test_what_is_bought_is_not_told() -> None:
    world = alerting(small_world())
    world.submit()
    world.tick()
    assert world.states() == [MachineState.BOOTING]
    assert not told(world)


def test_what_waits_is_given_to_whoever_sends_and_nothing_else_is() -> None:
    world = alerting(small_world(), day_usd="0.01")
    given: list[Sequence[Delivery]] = []
    loop = world.controller(send=given.append)
    loop.tick()
    assert not given
    world.submit()
    loop.tick()
    loop.tick()
    (waiting,) = given
    (message,) = waiting
    sent = replace(message, state=DeliveryState.SENT, version=2)
    world.store.delivery_put(sent, expected_version=1)
    loop.tick()
    assert len(given) == 1


class _Silent(MemoryStore):
    """A store that keeps no message."""

    def delivery_put(self, *_: Any, **__: Any) -> None:
        raise OSError("no room for messages")


def test_a_message_that_cannot_be_written_keeps_no_machine_waiting() -> None:
    world = alerting(small_world(store=_Silent()), day_usd="0.01")
    world.submit()
    world.tick()
    assert len(world.events("tick-failed")) == 1
    world.apply(replace(policy(l4()), alerts=ALERTS))
    world.tick()
    assert world.states() == [MachineState.BOOTING]
