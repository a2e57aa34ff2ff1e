"""When a machine is kept, drained or ended; never while somebody needs it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from control_plane.core.budget import Caps
from control_plane.core.demand import demand
from control_plane.core.model import Machine, MachineState
from control_plane.core.plan import Mark
from control_plane.core.policy import AtLimit, Window
from control_plane.core.recovery import recover
from control_plane.core.retirement import Retirement, drain, retire
from control_plane.core.snapshot import Snapshot, Spend, Timing
from tests.build import (
    NOW,
    WHY,
    ago,
    ahead,
    group,
    lease,
    machine,
    policy,
    pool,
    snapshot,
)

S = MachineState
HALF_HOUR = ahead(1800)


def retired(before: Snapshot) -> Retirement:
    repaired = recover(before)
    drain(before, repaired, Caps(before))
    return retire(before, repaired, demand(before, repaired))


def ended(before: Snapshot) -> list[tuple[str, str, bool]]:
    return [(e.machine_id, e.reason.code, e.hard) for e in retired(before).terminations]


def marked(before: Snapshot) -> list[Mark]:
    return drain(before, recover(before), Caps(before))


def drained(before: Snapshot) -> list[tuple[str, str]]:
    marks = marked(before)
    assert all(mark.state is S.DRAINING for mark in marks)
    assert not any("None" in mark.reason.sentence for mark in marks)
    return [(mark.machine_id, mark.reason.code) for mark in marks]


# ------------------------------------------------------------------------------- idle


@pytest.mark.parametrize(
    ("idle_s", "ends"),
    # The limit is 300 s; the agent ends its machine itself, the controller 30 s later.
    [(0, False), (299, False), (300, False), (329, False), (330, True), (331, True)],
)
def test_an_idle_machine_ends_at_its_limit_and_the_grace(idle_s: float, ends: bool) -> None:
    """To the second."""
    before = snapshot(machines=(machine(idle_s=idle_s),))
    assert ended(before) == ([("m-1", "idle", False)] if ends else [])


def test_the_limit_is_the_pools_and_the_grace_is_ours() -> None:
    """60 + 5 seconds here; the reason names the pool's limit and the true idle time."""
    rules, timing = policy(pool(idle_timeout_s=60)), Timing(idle_grace_s=5)
    for idle_s, count in ((64, 0), (65, 1)):
        before = snapshot(machines=(machine(idle_s=idle_s),), policy=rules, timing=timing)
        assert len(ended(before)) == count
    (ending,) = retired(before).terminations
    assert ending.reason.sentence == "machine m-1 has been idle for 1m, its limit is 1m"
    assert ending.reason.numbers == {"idle_s": "65", "idle_timeout_s": "60"}


def test_a_machine_that_never_ran_anything_is_idle_since_it_registered() -> None:
    """No job has set its clock."""
    fresh = machine(age_s=900, registered_at=ago(329), idle_since=None)
    assert ended(snapshot(machines=(fresh,))) == []
    old = machine(age_s=900, registered_at=ago(330), idle_since=None)
    assert ended(snapshot(machines=(old,))) == [("m-1", "idle", False)]


def test_a_machine_of_which_nothing_is_known_is_not_idle() -> None:
    """No registration and no idle time: there is nothing to count from."""
    assert ended(snapshot(machines=(machine(registered_at=None, idle_since=None),))) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"machines": (machine(idle_s=9999, protected=True),)},
        {"machines": (machine(idle_s=9999),), "leases": (lease(),)},
        {"machines": (machine(idle_s=9999),), "waiting": (group(1),)},
        {"machines": (machine(idle_s=9999),), "waiting": (group(1, ripe=0),)},
        {"machines": (machine(idle_s=9999),), "policy": policy(pool(low=1))},
    ],
)
def test_a_machine_that_somebody_needs_is_not_idle(changes: dict[str, Any]) -> None:
    """Protected; running a job; about to run one; kept as a minimum."""
    assert ended(snapshot(**changes)) == []


def test_only_the_machines_that_waiting_jobs_will_use_are_kept() -> None:
    """Three are idle for long, one job waits: two end."""
    machines = tuple(machine(f"m-{n}", idle_s=900) for n in range(3))
    assert [each for each, *_ in ended(snapshot(group(1), machines=machines))] == ["m-1", "m-2"]


# ------------------------------------------------------------------------------- draining


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"deleting": True}, "deleting"),
        ({"machines": (machine(pool="gone"),)}, "pool-removed"),
        ({"machines": (machine(age_s=86_400),)}, "max-lifetime"),
        ({"machines": (machine(age_s=86_399),)}, None),
        ({"policy": policy(pool(high=0))}, "superfluous"),
        ({"paused": True}, None),
    ],
)
def test_a_machine_that_is_to_go_takes_no_new_job(
    changes: dict[str, Any], code: str | None
) -> None:
    """It is marked as draining, busy or not, and is not ended in the same plan."""
    for leases in ((), (lease(),)):
        before = snapshot(**{"machines": (machine(),), "leases": leases} | changes)
        assert drained(before) == ([("m-1", code)] if code else [])
        assert ended(before) == []


def test_life_is_counted_from_the_launch() -> None:
    """It waited an hour between the plan and the launch."""
    late = machine(age_s=86_400, launched_at=ago(82_800))
    assert drained(snapshot(machines=(late,))) == []
    unknown = machine(age_s=86_400, launched_at=None)
    assert drained(snapshot(machines=(unknown,))) == [("m-1", "max-lifetime")]


@pytest.mark.parametrize(
    ("at_limit", "spent", "codes"),
    [
        (AtLimit.DRAIN, 10, ["budget-day"]),
        (AtLimit.DRAIN, 9, []),
        (AtLimit.HOLD, 10, []),
    ],
)
def test_a_budget_that_is_used_up_drains_only_if_that_was_asked_for(
    at_limit: AtLimit, spent: int, codes: list[str]
) -> None:
    """10 USD a day; `hold` lets machines go on."""
    rules = policy(budget={"day_usd": "10", "at_limit": at_limit})
    before = snapshot(machines=(machine(),), policy=rules, spend=Spend(day_usd=spent))
    assert [code for _, code in drained(before)] == codes


def test_a_machine_that_does_not_serve_yet_is_not_drained() -> None:
    """There is nothing to finish on it."""
    before = snapshot(
        machines=(machine("m-1", S.BOOTING, age_s=60),),
        policy=policy(pool(max_lifetime_s=30)),
    )
    assert drained(before) == []


FLEET = (
    machine("m-old", age_s=400),
    machine("m-busy", age_s=100),
    machine("m-young", age_s=200),
    machine("m-other", age_s=10, pool="other"),
)


@pytest.mark.parametrize(
    ("high", "gone"),
    [
        (3, []),
        (2, ["m-young"]),  # the youngest that runs nothing
        (1, ["m-young", "m-old"]),
        (0, ["m-young", "m-old", "m-busy"]),
    ],
)
def test_what_is_over_a_lowered_maximum_goes(high: int, gone: list[str]) -> None:
    """The idle first, then the youngest; another pool's machines do not count."""
    before = snapshot(
        machines=FLEET,
        leases=(lease("m-busy"),),
        policy=policy(pool(high=high), pool("other")),
    )
    assert sorted(drained(before)) == sorted((each, "superfluous") for each in gone)


@pytest.mark.parametrize(
    "going",
    [
        machine("m-1", S.DRAINING),
        machine("m-1", S.TERMINATING, terminating_at=NOW),
        machine("m-1", S.LOST),
        machine("m-1", age_s=90_000),  # is drained for its age
    ],
)
def test_what_goes_anyway_is_not_counted_as_too_much(going: Machine) -> None:
    """Two are allowed, two stay and one is going: none of the two has to go for it."""
    before = snapshot(machines=(going, machine("m-2"), machine("m-3")), policy=policy(pool(high=2)))
    assert ("m-2", "superfluous") not in drained(before)
    assert ("m-3", "superfluous") not in drained(before)


def test_what_is_coming_counts_as_too_much_and_what_is_up_goes_for_it() -> None:
    """One allowed, one up, one booting: 2 - 1 = 1 goes, and only a machine that is up can."""
    before = snapshot(
        machines=(machine("m-1", S.BOOTING, age_s=30), machine("m-2")),
        policy=policy(pool(high=1)),
    )
    (mark,) = marked(before)
    assert mark.machine_id == "m-2"
    assert mark.reason.sentence == "pool l4 has 2 machines, over its maximum of 1"


# ------------------------------------------------------------------------------- drained


def test_a_drained_machine_ends_when_it_runs_nothing() -> None:
    """With the reason it was drained for."""
    idle = machine("m-1", S.DRAINING, reason=WHY)
    busy = machine("m-2", S.DRAINING, reason=WHY)
    unsaid = machine("m-3", S.DRAINING)
    before = snapshot(machines=(idle, busy, unsaid), leases=(lease("m-2"),))
    assert ended(before) == [("m-1", "test", False), ("m-3", "ended", False)]


@pytest.mark.parametrize(
    ("age_s", "hard"),
    # 86400 s of life and 300 s to finish.
    [(86_400, False), (86_699, False), (86_700, True), (90_000, True)],
)
def test_a_machine_that_does_not_finish_in_time_is_ended_hard(age_s: float, hard: bool) -> None:
    """Its job is given back; nothing runs for ever."""
    stuck = machine("m-1", S.DRAINING, age_s=age_s, reason=WHY)
    before = snapshot(machines=(stuck,), leases=(lease(),))
    assert ended(before) == ([("m-1", "max-lifetime", True)] if hard else [])


def test_the_hard_limit_is_that_of_the_pool() -> None:
    """An hour of life here, and the grace of 300 s."""
    rules = policy(pool(max_lifetime_s=3600))
    for age_s, count in ((3899, 0), (3900, 1)):
        stuck = machine("m-1", S.DRAINING, age_s=age_s)
        before = snapshot(machines=(stuck,), leases=(lease(),), policy=rules)
        assert len(ended(before)) == count


def test_the_hard_limit_is_counted_from_the_launch() -> None:
    """As the life itself is."""
    late = machine("m-1", S.DRAINING, age_s=90_000, launched_at=ago(86_699))
    assert ended(snapshot(machines=(late,), leases=(lease(),))) == []
    unknown = machine("m-1", S.DRAINING, age_s=90_000, launched_at=None)
    assert len(ended(snapshot(machines=(unknown,), leases=(lease(),)))) == 1


@pytest.mark.parametrize(("age_s", "hard"), [(86_699, False), (86_700, True)])
def test_a_machine_of_a_removed_pool_may_finish_within_a_day(age_s: float, hard: bool) -> None:
    """No limit of its pool is known any more; the default of pools holds."""
    orphan = machine("m-1", S.DRAINING, age_s=age_s, pool="gone")
    found = ended(snapshot(machines=(orphan,), leases=(lease(),)))
    assert found == ([("m-1", "max-lifetime", True)] if hard else [])


def test_a_machine_that_is_drained_serves_nobody_any_more() -> None:
    """It is no supply for what waits, part of no minimum, and is not held."""
    before = snapshot(
        group(1),
        machines=(machine("m-1", age_s=90_000), machine("m-2", S.BOOTING, age_s=9)),
        policy=policy(pool(low=1)),
    )
    repaired = recover(before)
    drain(before, repaired, Caps(before))
    assert [each.id for each in repaired.serving] == ["m-2"]
    assert holds(before) == [("m-2", HALF_HOUR)]


def test_what_recovery_has_settled_is_left_alone() -> None:
    """A draining machine that went silent is ended once, as lost."""
    silent = machine("m-1", S.DRAINING, last_beat_at=ago(91))
    working = machine("m-2", S.DRAINING)
    assert ended(snapshot(machines=(silent, working))) == [("m-2", "ended", False)]


# ------------------------------------------------------------------------------- held


def holds(before: Snapshot) -> list[tuple[str, Any]]:
    return [(each.machine_id, each.until) for each in retired(before).holds]


@pytest.mark.parametrize(
    ("hold_s", "renewed"),
    # A hold lasts 1800 s and is renewed at half of it.
    [(None, True), (1800, False), (901, False), (900, True), (1, True), (-60, True)],
)
def test_a_kept_machine_is_held_for_half_an_hour_at_a_time(
    hold_s: float | None, renewed: bool
) -> None:
    """So that it ends by itself when the control plane dies."""
    held = machine(hold_until=None if hold_s is None else NOW + timedelta(seconds=hold_s))
    before = snapshot(machines=(held,), policy=policy(pool(low=1)))
    assert holds(before) == ([("m-1", HALF_HOUR)] if renewed else [])


def test_a_hold_says_why() -> None:
    """The window or the minimum."""
    warm = Window(cron="0 8 * * *", duration_s=36_000, machines=1)
    before = snapshot(machines=(machine(),), policy=policy(pool(warm=(warm,))))
    assert [each.reason.code for each in retired(before).holds] == ["warm-window"]


@pytest.mark.parametrize(
    ("changes", "released"),
    [
        ({}, False),
        ({"policy": policy(pool(low=0))}, True),
        ({"paused": True}, True),
        (
            {"policy": policy(pool(low=1, closed=(Window(cron="0 8 * * *", duration_s=36_000),)))},
            True,
        ),
    ],
)
def test_a_hold_is_taken_back_when_nothing_asks_for_it(
    changes: dict[str, Any], released: bool
) -> None:
    """No minimum; paused; closed: then an idle machine may end at once."""
    held = machine(hold_until=HALF_HOUR, idle_s=900)
    before = snapshot(**{"machines": (held,), "policy": policy(pool(low=1))} | changes)
    assert holds(before) == ([("m-1", None)] if released else [])
    if released:
        assert [each.reason.code for each in retired(before).holds] == ["minimum"]
        assert ended(before) == [("m-1", "idle", False)]


@pytest.mark.parametrize(
    ("machines", "leases", "kept"),
    [
        # One held already is held on, though others are older or busy.
        ((machine("a"), machine("b", hold_until=HALF_HOUR), machine("c")), ("c",), []),
        # Else one that is busy.
        ((machine("a"), machine("b"), machine("c")), ("c",), ["c"]),
        # Else the oldest.
        ((machine("a", age_s=10), machine("b", age_s=30), machine("c", age_s=20)), (), ["b"]),
        # Else by name.
        ((machine("b"), machine("a")), (), ["a"]),
        # Machines of other pools keep nothing of this one.
        ((machine("a", pool="other"), machine("b")), (), ["b"]),
    ],
)
def test_the_choice_of_what_is_kept_does_not_wander(
    machines: tuple[Machine, ...], leases: tuple[str, ...], kept: list[str]
) -> None:
    """One machine is to be kept; the list names the new holds."""
    before = snapshot(
        machines=machines,
        leases=tuple(lease(each) for each in leases),
        policy=policy(pool(low=1), pool("other")),
    )
    assert holds(before) == [(each, HALF_HOUR) for each in kept]


def test_the_machines_beyond_those_that_are_kept_may_end() -> None:
    """Three idle, two kept: one ends."""
    machines = tuple(machine(f"m-{n}", idle_s=900) for n in range(3))
    before = snapshot(machines=machines, policy=policy(pool(low=2)))
    assert [each for each, *_ in ended(before)] == ["m-2"]
    assert [each for each, _ in holds(before)] == ["m-0", "m-1"]
