"""Two functions that look at the same moment: what is done is done once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from control_plane.core.model import MachineState
from control_plane.stores.dynamodb import INDEXES, DynamoStore
from control_plane.stores.dynamodb.table import create_table
from control_plane.system import SystemClock
from tests.build import policy, queue
from tests.invariants.world import ONE_ZONE, World, l4

ROUNDS = 100


@pytest.mark.usefixtures("jumpy_threads")
def test_two_looks_started_together_a_hundred_times_do_nothing_twice(
    dynamodb: Any, table_name: str
) -> None:
    """Each round wants one machine more. Both see it; one buys it."""
    table = f"together-{table_name}"
    create_table(dynamodb, table, INDEXES)
    store = DynamoStore(dynamodb, table=table, clock=SystemClock())
    world = World(spec=ONE_ZONE, store=store)
    ample = dict.fromkeys(("hour_usd", "day_usd", "month_usd"), "1000000")
    world.apply(policy(l4(high=ROUNDS, gpus_max=ROUNDS), queue(jobs_per_machine=1), budget=ample))
    controllers = [world.controller(owner) for owner in ("one", "two")]
    start = Barrier(2)

    def look(number: int) -> None:
        start.wait()
        controllers[number].tick()

    with ThreadPoolExecutor(2) as threads:
        for bought in range(1, ROUNDS + 1):
            world.submit()
            list(threads.map(look, range(2)))
            if len(world.alive()) < bought:  # each has given way to the other: the next look buys
                controllers[bought % 2].tick()
            assert len(world.alive()) == bought
    machines = store.machine_list(open_only=False)
    assert len(machines) == ROUNDS
    assert {each.state for each in machines} == {MachineState.BOOTING}
    keys = [request.key for request in world.provider.requests]
    assert sorted(keys) == sorted(machine.launch_key for machine in machines)
