"""What has to be bought for, after everything that is there or coming has taken its share."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.core.demand import Tally, demand
from control_plane.core.model import MachineState, Need, WaitingGroup
from control_plane.core.recovery import recover
from control_plane.core.snapshot import Snapshot
from tests.build import (
    NOW,
    ago,
    group,
    lease,
    machine,
    offer,
    on_demand,
    policy,
    pool,
    queue,
    snapshot,
)

ONE = Need(gpus=1)


def unmet(before: Snapshot) -> list[tuple[str, int]]:
    found = demand(before, recover(before))
    return [(each.group.queue, each.count) for each in found.unmet]


@pytest.mark.parametrize(
    ("state", "left"),
    [
        (MachineState.PLANNED, 2),  # 3 jobs - 1 machine
        (MachineState.LAUNCHING, 2),
        (MachineState.BOOTING, 2),
        (MachineState.READY, 2),
        (MachineState.DRAINING, 3),  # takes no new job
        (MachineState.TERMINATING, 3),
        (MachineState.LOST, 3),
        (MachineState.INTERRUPTED, 3),
        (MachineState.BOOT_FAILED, 3),
    ],
)
def test_what_is_coming_counts_and_what_is_going_does_not(state: MachineState, left: int) -> None:
    """Three jobs and one machine in each of its states."""
    before = snapshot(group(3), machines=(machine("m-1", state, age_s=60),))
    assert unmet(before) == [("default", left)]


def test_a_busy_machine_has_only_what_its_jobs_leave() -> None:
    """Four cards, three of them leased: 3 waiting - 1 = 2."""
    busy = machine("m-1", MachineState.READY, offer(gpus=4))
    leases = tuple(lease("m-1", f"j-{n}") for n in range(3))
    assert unmet(snapshot(group(3), machines=(busy,), leases=leases)) == [("default", 2)]


def test_a_lease_on_a_machine_that_does_not_serve_takes_no_room() -> None:
    """The books of other machines are none of ours."""
    before = snapshot(group(1), machines=(machine(),), leases=(lease("m-other"),))
    assert unmet(before) == []


@pytest.mark.parametrize(
    ("count", "ripe", "there", "left", "report"),
    [
        (5, 5, 2, 3, Tally(waiting=5, ripe=5, on_ready=2)),  # 5 - 2
        (5, 1, 2, 0, Tally(waiting=5, ripe=1, on_ready=2)),  # the ripe one is served first
        (5, 3, 2, 1, Tally(waiting=5, ripe=3, on_ready=2)),  # 3 ripe - 2
        (5, 0, 0, 0, Tally(waiting=5)),  # nothing is ripe: wait for a running machine
        (1, 1, 2, 0, Tally(waiting=1, ripe=1, on_ready=1)),
    ],
)
def test_a_machine_is_bought_only_for_jobs_that_have_waited_long_enough(
    count: int, ripe: int, there: int, left: int, report: Tally
) -> None:
    """`launch_after`: of `count` jobs `ripe` are old enough, `there` machines are up."""
    machines = tuple(machine(f"m-{n}") for n in range(there))
    before = snapshot(group(count, ripe=ripe), machines=machines)
    found = demand(before, recover(before))
    assert [each.count for each in found.unmet] == ([left] if left else [])
    assert found.tallies["default"] == report
    assert found.used == {f"m-{n}" for n in range(min(count, there))}


def test_jobs_that_may_still_wait_do_not_take_the_room_of_those_that_may_not() -> None:
    """One machine boots for a ripe job. A more urgent job that is not ripe yet must not make us
    buy a second one."""
    before = snapshot(
        group(1, queue="urgent", ripe=0),
        group(1, queue="calm"),
        policy=policy(pool(), queue("urgent", priority=5), queue("calm")),
        machines=(machine("m-1", MachineState.BOOTING, age_s=30),),
    )
    found = demand(before, recover(before))
    assert found.unmet == []
    assert found.tallies["calm"] == Tally(waiting=1, ripe=1, on_booting=1)
    assert found.tallies["urgent"] == Tally(waiting=1)


def test_a_paused_queue_wants_nothing() -> None:
    """Its jobs are not even counted."""
    before = snapshot(group(3), queues_paused=frozenset({"default"}))
    found = demand(before, recover(before))
    assert found.unmet == []
    assert found.tallies == {}


def test_a_queue_of_which_nothing_waits_is_reported_too() -> None:
    """Its report says so; jobs of a queue that is not declared are none of ours."""
    before = snapshot(group(2, queue="elsewhere"))
    found = demand(before, recover(before))
    assert found.unmet == []
    assert found.tallies == {"default": Tally()}


@pytest.mark.parametrize(
    ("urgent", "calm_waited_s", "order"),
    [
        (1, 0, ["urgent", "calm"]),
        (1, 3599, ["urgent", "calm"]),  # not a whole hour: no step yet
        (1, 3600, ["calm", "urgent"]),  # 0 + 1 = 1, equal: by name
        (2, 7199, ["urgent", "calm"]),  # 0 + 1 < 2
        (2, 10_800, ["calm", "urgent"]),  # 0 + 3 > 2
    ],
)
def test_a_queue_grows_more_urgent_while_its_oldest_job_waits(
    urgent: int, calm_waited_s: float, order: list[str]
) -> None:
    """Ageing: one step of priority for each whole `ageing` (an hour) of waiting."""
    before = snapshot(
        group(1, queue="urgent", waited_s=0),
        group(1, Need(gpus=2), queue="calm", waited_s=0),
        group(1, queue="calm", waited_s=calm_waited_s),
        policy=policy(pool(), queue("urgent", priority=urgent), queue("calm")),
    )
    assert list(dict.fromkeys(name for name, _ in unmet(before))) == order


def test_the_aged_priority_in_figures() -> None:
    """A queue without waiters has its plain priority."""
    rules = queue(priority=3, ageing_s=600)
    assert rules.aged_priority(None, NOW) == 3
    assert rules.aged_priority(ago(599), NOW) == 3
    assert rules.aged_priority(ago(1800), NOW) == 6  # 3 + 1800 // 600


def test_the_urgent_queue_takes_the_machine_and_the_other_one_buys() -> None:
    """Two queues share one pool: the room of one machine serves one of them, never both."""
    before = snapshot(
        group(1, queue="calm"),
        group(1, queue="urgent"),
        policy=policy(pool(), queue("urgent", priority=1), queue("calm")),
        machines=(machine(),),
    )
    assert unmet(before) == [("calm", 1)]


def test_the_oldest_job_of_a_queue_counts_wherever_it_is_listed() -> None:
    """The first of two groups has waited for an hour, the second has just come."""
    before = snapshot(
        group(1, queue="urgent", waited_s=0),
        group(1, queue="calm", waited_s=3600),
        group(1, Need(gpus=2), queue="calm", waited_s=0),
        policy=policy(pool(), queue("urgent", priority=1), queue("calm")),
    )
    assert unmet(before)[0][0] == "calm"


def test_a_queue_is_told_as_one_whatever_kinds_of_jobs_wait_in_it() -> None:
    """Two kinds of jobs: 2 + 3 waiting, 2 + 2 ripe; two go to each kind of machine."""
    before = snapshot(
        group(2, Need(gpus=2)),
        group(3, ripe=2),
        machines=(
            machine("m-1", MachineState.READY, offer(gpus=3)),
            machine("m-2", MachineState.BOOTING, offer(gpus=3), age_s=9),
        ),
    )
    tally = demand(before, recover(before)).tallies["default"]
    assert tally == Tally(waiting=5, ripe=4, on_ready=2, on_booting=2)


def test_a_queue_may_use_several_pools() -> None:
    """Machines of all its pools are supply: 3 jobs - 1 - 1 = 1."""
    before = snapshot(
        group(3),
        policy=policy(pool("l4"), pool("big")),
        machines=(machine("m-1", pool="l4"), machine("m-2", pool="big")),
    )
    assert unmet(before) == [("default", 1)]


def test_every_queue_finds_the_machines_of_its_own_pools() -> None:
    """A pool that nobody asks is no supply, whatever runs in it."""
    before = snapshot(
        group(1, queue="one"),
        group(2, queue="two"),
        policy=policy(
            pool("l4"), pool("big"), pool("idle"), queue("one", "l4"), queue("two", "big")
        ),
        machines=tuple(machine(f"m-{name}", pool=name) for name in ("l4", "big", "idle")),
    )
    found = demand(before, recover(before))
    assert unmet(before) == [("two", 1)]
    assert found.used == {"m-l4", "m-big"}


def order_of(*groups: WaitingGroup) -> list[Need]:
    before = snapshot(*groups)
    return [each.group.need for each in demand(before, recover(before)).unmet]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Need(gpus=2), Need(gpus=1, cpus=99)),
        (Need(gpus=1, share_ppm=2), Need(gpus=1, share_ppm=1, cpus=9)),
        (Need(gpus=1, cpus=2), Need(gpus=1, cpus=1, memory_mib=9)),
        (Need(gpus=1, memory_mib=2), Need(gpus=1, memory_mib=1, disk_gib=9)),
        (Need(gpus=1, disk_gib=2), Need(gpus=1, disk_gib=1)),
        (Need(gpus=1, gpu_name="A"), Need(gpus=1, gpu_name="B")),
        (Need(gpus=1, gpu_memory_gib=1), Need(gpus=1, gpu_memory_gib=2)),
        (Need(gpus=1), Need(gpus=1, on_demand_only=True)),
    ],
)
def test_large_jobs_are_placed_before_small_ones(first: Need, second: Need) -> None:
    """Inside one priority, which wastes least room; the order is the same however they came."""
    assert order_of(group(1, second), group(1, first)) == [first, second]
    assert order_of(group(1, first), group(1, second)) == [first, second]


def test_priority_comes_before_size() -> None:
    """A small urgent job is not put behind a large calm one."""
    assert order_of(group(1, Need(gpus=8)), group(1, ONE, priority=1)) == [ONE, Need(gpus=8)]


@pytest.mark.parametrize(("per_machine", "left"), [(1, 5), (2, 4), (4, 2), (8, 0)])
def test_jobs_per_machine_share_one_machine(per_machine: int, left: int) -> None:
    """`jobs_per_machine` comes as a share of a machine: 6 jobs, one machine takes `per_machine`."""
    need = Need(share_ppm=1_000_000 // per_machine)
    before = snapshot(group(6, need), machines=(machine(),))
    assert unmet(before) == ([("default", left)] if left else [])


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"age_s": 40}, []),  # the job that must not be interrupted finds the machine for it
        ({"age_s": 90}, [("default", 1)]),  # the older machine went to the job that came first
    ],
)
def test_machines_that_are_coming_serve_in_the_order_in_which_they_were_bought(
    changes: dict[str, Any], left: list[tuple[str, int]]
) -> None:
    """A spot machine was bought a minute ago for the first job; an on-demand machine came after
    it for the second, or before it."""
    before = snapshot(
        group(1, priority=1),
        group(1, Need(gpus=1, on_demand_only=True)),
        machines=(
            machine("m-1", MachineState.PLANNED, on_demand(), **changes),
            machine("m-2", MachineState.PLANNED, offer(), age_s=60),
        ),
    )
    assert unmet(before) == left
