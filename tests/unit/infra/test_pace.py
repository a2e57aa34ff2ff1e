"""How often an agent is advised to ask where each question costs money."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agent_bootstrap import wire
from control_plane.agents import Agents, AgentSettings
from control_plane.core.model import Capacity
from control_plane.core.snapshot import Timing
from control_plane.stores.memory import MemoryStore
from tests.api.world import World


@pytest.mark.parametrize(
    ("idle_s", "poll_s"), [(0, 20), (79, 20), (120, 30), (240, 60), (360, 90), (7200, 90)]
)
def test_a_machine_asks_the_less_often_the_longer_it_is_idle(idle_s: int, poll_s: int) -> None:
    world = World(MemoryStore())
    assert advised(world, idle_s, AgentSettings(poll_s=20, poll_longest_s=90)) == poll_s


def test_elsewhere_it_stays_as_it_is() -> None:
    world = World(MemoryStore())
    assert advised(world, 7200, AgentSettings(poll_s=5)) == 5


def test_one_that_works_is_not_slowed_down() -> None:
    world = World(MemoryStore())
    world.service.queue_create("default")
    world.submit()
    settings = AgentSettings(poll_s=20, poll_longest_s=90)
    assert advised(world, 7200, settings, working=True) == 20


def advised(world: World, idle_s: int, settings: AgentSettings, *, working: bool = False) -> float:
    """The pause that a claim is answered with, this long after the machine has registered."""
    agents = Agents(world.service, world.blobs, world.tokens, Timing(), settings)
    token = world.registered()
    if working:
        room = Capacity(cpus=4, memory_mib=16_384)
        assert world.store.job_claim("m-1", ["default"], room, limit=1, now=world.clock.now())
    world.clock.at += timedelta(seconds=idle_s)
    return agents.claim(agents.authenticate(token), wire.Claim()).advice.poll_s
