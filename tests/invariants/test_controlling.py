"""Lines 28 to 30: one writer, hints that may be lost, and an end to every wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from control_plane import execute
from control_plane.core.lifecycle import COUNTED
from control_plane.core.model import MachineState
from control_plane.errors import FencedOut
from control_plane.lease import LEASE_TTL_S
from control_plane.loop import Loop, Pace
from control_plane.ports import Fence, Store
from control_plane.reconcile import Tick
from control_plane.stores.memory import MemoryStore
from control_plane.stores.sqlite import SqliteStore
from tests.build import machine, policy
from tests.invariants.world import ONE_ZONE, World, l4, ready_world, small_world
from tests.simulation.world import Crash

S = MachineState

PAUSES = ("observed", "leased", "planned", "intent-written", "intents-committed", "before-launch")
"""Where a controller may be stopped for longer than its lease, in the order of a look."""

LEASE = "autoscaler/research"


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


def test_28_while_one_controller_acts_the_other_does_nothing() -> None:
    """It sees that somebody is at it, and neither lists a cloud nor acts; it looks again soon."""
    world = small_world()
    world.submit()
    seen: list[tuple[object, bool, int]] = []

    def look_too(name: str) -> None:
        if name in PAUSES[1:]:
            observed = world.provider.calls["observe"]
            (tick,) = world.controller("two").tick()
            seen.append((tick.plan, tick.unsettled, world.provider.calls["observe"] - observed))

    world.controller("one", look_too).tick()
    assert len(seen) == len(PAUSES[1:])
    assert set(seen) == {(None, True, 0)}
    assert len(world.cloud.vms) == 1


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_28_what_was_decided_before_another_controller_acted_is_dropped(
    kind: str, tmp_path: Path
) -> None:
    """Both look at the same books, one takes the lease, acts and gives it back before the other
    wants it. The lease is free then, and still the other does not get it: its plan is of before."""
    store = SqliteStore(tmp_path / "store.db", durability="normal") if kind == "sqlite" else None
    world = small_world(store=store)
    world.submit()
    before: list[object] = []

    def be_overtaken(name: str) -> None:
        if name == "observed" and not before:
            world.controller("two").tick()
            before.append(_written(world))

    (tick,) = world.controller("one", be_overtaken).tick()
    assert tick.plan is None
    assert tick.unsettled
    assert [_written(world)] == before
    assert len(world.cloud.vms) == 1
    world.store.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_28_many_looks_of_two_controllers_at_once_buy_each_machine_once(
    kind: str, tmp_path: Path
) -> None:
    """Two controllers in threads of their own look a hundred times at a queue that fills up
    meanwhile: for each job there is one machine."""
    store = SqliteStore(tmp_path / "store.db", durability="normal") if kind == "sqlite" else None
    world = small_world(high=8, spec=ONE_ZONE.but(quota_machines=100), store=store)
    ticks: list[Tick] = []

    def look_on(owner: str) -> None:
        reconciler = world.controller(owner)
        for _ in range(50):
            ticks.extend(reconciler.tick())

    def hand_in() -> None:
        for _ in range(8):
            world.submit()

    threads = [threading.Thread(target=look_on, args=(owner,)) for owner in ("one", "two")]
    threads.append(threading.Thread(target=hand_in))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.tick()
    assert len(ticks) == 100
    assert [tick.done.errors for tick in ticks if tick.done and tick.done.errors] == []
    assert len(world.cloud.vms) == 8
    assert len({vm.machine_id for vm in world.cloud.vms}) == 8
    assert world.cloud.violations == ()
    world.store.close()


def test_28_two_threads_of_one_controller_look_one_after_the_other() -> None:
    """To the store they would be the same owner, whom no lease keeps out: so the second waits."""
    world = small_world()
    world.submit()
    others: list[threading.Thread] = []
    passed: list[str] = []
    seen: list[tuple[bool, list[str]]] = []

    def look_too(name: str) -> None:
        passed.append(name)
        if name == "leased" and not others:
            others.append(threading.Thread(target=reconciler.tick))
            others[0].start()
            others[0].join(0.2)
            seen.append((others[0].is_alive(), passed.copy()))

    reconciler = world.controller("one", look_too)
    reconciler.tick()
    others[0].join(10)
    assert seen == [(True, ["observed", "leased"])]
    assert not others[0].is_alive()
    assert len(world.cloud.vms) == 1


def test_28_the_lease_is_given_back_as_soon_as_it_was_acted() -> None:
    """Another controller may act at once; in a cloud the next look is seldom by the same one."""
    world = small_world()
    world.submit()
    world.tick()
    world.submit()
    (tick,) = world.controller("two").tick()
    assert tick.plan is not None
    assert len(tick.plan.launches) == 1
    assert len(world.cloud.vms) == 2


def test_28_a_controller_that_died_while_it_acted_keeps_others_out_for_as_long_as_its_lease() -> (
    None
):
    """Its launch may be on its way. Whoever comes back under its name goes on at once."""
    world = small_world()
    world.submit()

    def die(name: str) -> None:
        if name == "launch-answered":
            raise Crash

    with pytest.raises(Crash):
        world.controller("one", die).tick()
    world.clock.advance(LEASE_TTL_S - 1)
    (tick,) = world.controller("two").tick()
    assert tick.plan is None
    (tick,) = world.controller("one").tick()
    assert tick.plan is not None
    assert not tick.plan.empty
    assert len(world.cloud.vms) == 1


def test_28_another_controller_takes_over_when_the_lease_of_a_dead_one_is_over() -> None:
    """Two minutes at most, and the generation grows: the dead one could write nothing any more."""
    world = small_world()
    world.submit()

    def die(name: str) -> None:
        if name == "leased":
            raise Crash

    with pytest.raises(Crash):
        world.controller("one", die).tick()
    before = world.store.shared_read().leases[LEASE].fence.generation
    world.clock.advance(LEASE_TTL_S)
    (tick,) = world.controller("two").tick()
    assert tick.plan is not None
    assert tick.plan.generation == before + 1
    assert world.store.shared_read().leases[LEASE].fence.generation == before + 1
    assert len(world.cloud.vms) == 1


@pytest.mark.parametrize("boundary", ["observed", "leased"])
def test_28_what_was_decided_long_ago_is_not_done(boundary: str) -> None:
    """The computer slept between the look and the act, and nobody else was there to take over. A
    machine that has spoken again meanwhile is not given up for what it was then."""
    world, (guest,), (job,) = ready_world()
    guest.claim()
    world.clock.advance(95)

    def sleep(name: str) -> None:
        if name == boundary and not world.events("look-too-old"):
            world.clock.advance(LEASE_TTL_S + 1)
            guest.beat()

    (tick,) = world.controller("one", sleep).tick()
    assert tick.plan is None
    assert tick.unsettled
    assert world.machine(guest.vm.machine_id).state is S.READY
    assert world.job(job).machine_losses == 0
    (event,) = world.events("look-too-old")
    assert "the look was 2m ago" in event.text


def test_28_a_controller_that_wakes_up_before_a_cloud_call_makes_it_only_if_it_still_may() -> None:
    """No fence can guard a cloud. The successor was refused what this one is about to buy, and has
    bought something else: two machines for one record, were the call made now."""
    world = small_world(high=1)
    world.submit()
    world.cloud.fail_next("InsufficientInstanceCapacity", 1, call="launch")
    slept: list[str] = []

    def sleep(name: str) -> None:
        if name == "before-launch" and not slept:
            slept.append(name)
            world.clock.advance(LEASE_TTL_S)
            world.controller("two").tick()

    world.controller("one", sleep).tick()
    assert slept
    assert world.machine().attempt == 2
    assert [vm.key for vm in world.cloud.vms] == [world.machine().launch_key]


def test_28_a_controller_that_woke_up_late_ends_no_machine_either() -> None:
    """What it had decided is the other one's affair by then."""
    world, (guest,), _ = ready_world()
    world.fleet.terminate(guest.vm.machine_id)
    before: list[int] = []

    def sleep(name: str) -> None:
        if name == "before-terminate" and not before:
            world.clock.advance(LEASE_TTL_S)
            world.controller("two").tick()
            before.append(world.provider.calls["terminate"])

    world.controller("one", sleep).tick()
    assert before == [1]
    assert world.provider.calls["terminate"] == 1


def test_28_a_controller_that_works_for_long_renews_its_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten launches of half a minute each, were they all made in one look: nobody takes over in the
    middle, and the generation stays what it was."""
    monkeypatch.setattr(execute, "ACT_S", 600.0)
    world = small_world(high=10)
    world.submit(10)
    others: list[object] = []

    def take_long(name: str) -> None:
        if name == "before-launch":
            world.clock.advance(30)
            others.extend(tick.plan for tick in world.controller("two").tick())

    (tick,) = world.controller("one", take_long).tick()
    assert tick.plan is not None
    assert others == [None] * 10
    assert len(world.cloud.vms) == 10
    assert world.store.shared_read().leases[LEASE].fence.generation == tick.plan.generation


def test_28_a_look_that_finds_nothing_new_writes_nothing() -> None:
    """No lease, no plan, no event, whoever looks and however often."""
    world, (guest,), _ = ready_world()
    guest.claim()
    world.tick()
    before = (_written(world), world.store.shared_read(), world.store.event_list())
    for _ in range(10):
        world.clock.advance(5)
        world.tick()
    assert (_written(world), world.store.shared_read(), world.store.event_list()) == before


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


def test_30_a_look_calls_clouds_for_a_while_and_the_next_one_goes_on() -> None:
    """A cloud that takes seconds for each call keeps nobody from the next look: what is left is
    done by that one, and nothing is bought twice."""
    world = small_world(high=12)
    for _ in range(12):
        world.submit()
    world.provider.before = lambda call: world.clock.advance(6) if call == "launch" else None
    world.tick()
    asked = world.provider.calls["launch"]
    assert 3 <= asked <= 5
    assert world.states().count(S.PLANNED) == 12 - asked
    for _ in range(4):
        world.tick()
    assert world.states() == [S.BOOTING] * 12
    assert world.provider.calls["launch"] == len(world.alive()) == 12

    world.provider.before = lambda call: world.clock.advance(6) if call == "terminate" else None
    first = {machine_.id for machine_ in world.store.machine_list()}
    for machine_id in first:
        world.fleet.terminate(machine_id)
    world.tick()
    assert 3 <= world.provider.calls["terminate"] <= 5
    for _ in range(8):
        world.tick()
        world.clock.advance(60)
    assert not first & {vm.machine_id for vm in world.alive()}


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
        if field.name != "idle_look_s":  # a pause and no limit
            assert 0 < getattr(world.timing, field.name) <= 3600
    declared = l4()
    assert 0 < declared.boot_timeout_s < declared.max_lifetime_s <= 86_400
    assert 0 < declared.idle_timeout_s <= 3600
