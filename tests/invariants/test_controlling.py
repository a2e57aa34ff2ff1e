"""Lines 28 to 30: one writer, hints that may be lost, and an end to every wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from control_plane.core.lifecycle import COUNTED
from control_plane.core.model import MachineState
from control_plane.errors import FencedOut
from control_plane.loop import Loop, Pace
from control_plane.ports import Fence, Store
from control_plane.reconcile import LEASE_TTL_S
from control_plane.stores.memory import MemoryStore
from control_plane.stores.sqlite import SqliteStore
from tests.build import machine, policy
from tests.invariants.world import ONE_ZONE, World, l4, ready_world, small_world

S = MachineState

PAUSES = ("leased", "observed", "planned", "intent-written", "intents-committed", "before-launch")
"""Where a controller may be stopped for longer than its lease."""


# -------------------------------------------------------------------------- 28: one writer


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("boundary", PAUSES)
def test_28_a_controller_that_slept_through_its_lease_writes_nothing(
    boundary: str, kind: str, tmp_path: Path
) -> None:
    """Two controllers at once: the first stands still, the second takes over and acts, the first
    wakes up. Every commit of its carries the old generation and is refused: no record, no plan, no
    second machine."""
    store = SqliteStore(tmp_path / "store.db", durability="normal") if kind == "sqlite" else None
    world = small_world(high=1, store=store)
    world.submit(2)
    before: list[object] = []

    def sleep_through_it(name: str) -> None:
        if name != boundary or before:
            return
        world.clock.advance(LEASE_TTL_S + 1)
        second = world.controller("two")
        second.tick()
        world.clock.advance(5)
        second.tick()
        before.append(_written(world))

    world.controller("one", sleep_through_it).tick()
    assert [_written(world)] == before
    assert len(world.cloud.vms) == 1
    assert world.cloud.violations == ()
    world.store.close()


def _written(world: World) -> object:
    store = world.store
    return (
        store.machine_list(open_only=False),
        store.job_list().items,
        store.plan_list("research"),
        store.cooldown_list(),
    )


@pytest.mark.parametrize("make", [MemoryStore, None])
def test_28_a_commit_under_an_old_generation_is_refused(
    make: Callable[[], Store] | None, tmp_path: Path
) -> None:
    """The fence is checked in the same atomic step as the write it guards."""
    store = make() if make else SqliteStore(tmp_path / "store.db", durability="normal")
    world, (guest,), _ = ready_world(store=store)
    machine = world.machine(guest.vm.machine_id)
    old = Fence(name="autoscaler/research", owner="one", generation=1)
    world.clock.advance(LEASE_TTL_S + 1)
    world.controller("two").tick()
    with pytest.raises(FencedOut):
        store.machine_put(
            replace(machine, protected=True), expected_version=machine.version, fence=old
        )
    assert not world.machine(guest.vm.machine_id).protected
    store.close()


def test_28_while_one_controller_holds_the_lease_the_other_does_nothing() -> None:
    """It asks, is told that somebody is at it, and neither looks nor acts."""
    world = small_world()
    world.submit()
    world.tick()
    observed = world.provider.calls["observe"]
    (tick,) = world.controller("two").tick()
    assert tick.plan is None
    assert world.provider.calls["observe"] == observed


def test_28_deleting_does_not_take_away_what_was_declared_again_meanwhile() -> None:
    """The one who removes the last of an autoscaler looks whether it is still the one to delete."""
    world = small_world()
    world.fleet.delete("research")

    def declare_again(name: str) -> None:
        if name == "executed":
            world.apply(policy(l4(high=2)))

    world.controller(checkpoint=declare_again).tick()
    assert [record.deleting for record in world.store.autoscaler_list()] == [False]


# -------------------------------------------------------------------------- 29: hints


def test_29_a_wake_up_that_was_lost_is_repaired_by_the_next_look() -> None:
    """The loop looks by itself at the latest after its longest pause, whatever nobody told it."""
    world = small_world()
    looked = threading.Event()
    loop = Loop(world.reconciler, Pace(at_least_s=0.05, unsettled_s=0.05), looked.set)
    loop.start()
    try:
        assert looked.wait(5)
        world.submit()  # and nobody wakes the loop
        deadline = time.monotonic() + 5
        while not world.cloud.vms and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        loop.stop()
    assert len(world.cloud.vms) == 1
    assert world.wakes > 0


def test_29_the_longest_pause_is_a_minute() -> None:
    """What was dropped costs a minute at most."""
    assert Pace().at_least_s <= 60


def test_29_a_wake_up_is_not_needed_for_an_interruption() -> None:
    """The notice never arrived, no agent said a word: the next look sees that the machine is gone,
    gives its job back and buys another."""
    world, (guest,), (job,) = ready_world()
    guest.claim()
    world.cloud.interrupt(guest.vm.provider_id, notice_s=0)
    world.clock.advance(60)
    world.tick()
    world.tick()
    assert world.job(job).machine_losses == 1
    assert len(world.alive()) == 1


def test_29_a_thousand_wake_ups_are_one_look() -> None:
    """Hints may also come twice, or in a storm: they change when it looks, not what it does."""
    world = small_world()
    looks: list[int] = []
    started = threading.Event()

    def ticked() -> None:
        looks.append(1)
        started.set()

    loop = Loop(world.reconciler, Pace(at_least_s=60, settle_s=0.2), ticked)
    loop.start()
    assert started.wait(5)
    for _ in range(1000):
        loop.wake()
    time.sleep(0.1)
    loop.stop()
    assert len(looks) <= 3


# -------------------------------------------------------------------------- 30: deadlines

_UP = ("launched_at", "registered_at", "last_beat_at")
_MOMENTS: Mapping[MachineState, Sequence[str]] = {
    **dict.fromkeys(COUNTED, _UP),
    S.PLANNED: (),
    S.LAUNCHING: (),
    S.BOOTING: ("launched_at",),
}
"""What a machine has behind it in each state."""


def _nobody_answers(world: World) -> None:
    for call in ("launch", "observe", "sighting", "terminate"):
        world.provider.refuses[call] = "ServiceUnavailable"


BOUNDS_S = {
    S.PLANNED: 660,  # the time to boot
    S.LAUNCHING: 660,  # the time to boot
    S.BOOTING: 660,  # the time to boot
    S.READY: 120,  # the lease of a silent machine
    S.DRAINING: 120,  # the lease of a silent machine
    S.BOOT_FAILED: 30,
    S.INTERRUPTED: 30,
    S.LOST: 30,
    S.TERMINATING: 0,
}
"""How long a machine may stay in a state when nobody ever answers again: neither its agent nor its
cloud. Terminating alone stays until the cloud has said that the machine is gone: what is done about
it has no end, and the next test shows that it is done again and again."""


def test_30_every_state_that_is_not_final_has_a_bound() -> None:
    """A new state has to say here how long it may last."""
    assert set(BOUNDS_S) == COUNTED


@pytest.mark.parametrize("state", [state for state in BOUNDS_S if state is not S.TERMINATING])
def test_30_a_machine_leaves_its_state_though_nobody_ever_answers(state: MachineState) -> None:
    """Each wait of the lifecycle has a deadline and a next action, without help from anyone."""
    world = small_world()
    now = world.clock.now()
    moments: dict[str, Any] = dict.fromkeys(_MOMENTS[state], now)
    made = machine("m-1", state, planned_at=now, **moments)
    world.store.machine_put(made, expected_version=0, fence=None)
    _nobody_answers(world)
    lasted_s = 0
    while world.machine("m-1").state is state:
        assert lasted_s <= BOUNDS_S[state]
        world.clock.advance(15)
        lasted_s += 15
        world.tick()


def test_30_terminating_is_repeated_and_told_for_as_long_as_it_lasts() -> None:
    """The only state without an end of its own: it is tried on and on, and the log says so once."""
    world, (guest,), _ = ready_world()
    world.fleet.terminate(guest.vm.machine_id)
    _nobody_answers(world)
    world.run(3600, step_s=15, beats=False)
    assert world.machine(guest.vm.machine_id).state is S.TERMINATING
    assert world.provider.calls["terminate"] > 100
    (complaint,) = world.events("action-failed")
    assert complaint.subject == guest.vm.machine_id


def test_30_a_launch_that_never_ends_is_given_up() -> None:
    """GCP's operations may hang: after the time to boot the machine is no supply any more, and a
    fresh one is bought for the job once the cloud shows that nothing came of it."""
    world = small_world(spec=ONE_ZONE.but(slow_launch_s=100_000))
    world.submit()
    world.cloud.slow_next_launch(refused_code="ZONE_RESOURCE_POOL_EXHAUSTED")
    world.run(560, step_s=20)
    assert world.states() == [S.LAUNCHING]
    world.run(240, step_s=20)
    assert world.states() == [S.BOOTING]
    (first, _) = world.store.machine_list(open_only=False)
    assert first.state is S.TERMINATED
    assert first.reason
    assert "came to nothing within" in first.reason.sentence


def test_30_every_time_limit_is_finite_by_default() -> None:
    """Of the control plane's own timing and of a pool."""
    world = World()
    for field in fields(world.timing):
        assert 0 < getattr(world.timing, field.name) <= 3600
    declared = l4()
    assert 0 < declared.boot_timeout_s < declared.max_lifetime_s <= 86_400
    assert 0 < declared.idle_timeout_s <= 3600
