"""Promises of the planner that hold in every situation that can be made up."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TypeVar

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from control_plane.core.budget import Caps
from control_plane.core.check import check
from control_plane.core.codec import from_json, to_json
from control_plane.core.lifecycle import COUNTED
from control_plane.core.model import Machine, MachineState, Need, Offer
from control_plane.core.plan import Plan, planned_machine
from control_plane.core.planner import plan
from control_plane.core.policy import Budget
from control_plane.core.snapshot import Snapshot, Spend
from tests.build import group, machine, offer, on_demand, policy, pool, queue, snapshot
from tests.property.carry_out import carried_out
from tests.property.worlds import snapshots

T = TypeVar("T")
OPEN_LAUNCH = (MachineState.PLANNED, MachineState.LAUNCHING)


def worst_price(offers: tuple[Offer, ...]) -> Decimal:
    return max(each.price_usd_hour for each in offers)


def most_gpus(offers: tuple[Offer, ...]) -> int:
    return max(each.capacity.gpus for each in offers)


def possible(each: Machine) -> tuple[Offer, ...]:
    return each.offers[each.attempt - 1 :] if each.state in OPEN_LAUNCH else (each.offer,)


def with_launches(taken: Plan, before: Snapshot) -> Snapshot:
    """The intents of a plan are durable and nothing else has happened yet."""
    bought = [planned_machine(each, before.policy.name, before.now) for each in taken.launches]
    used = {each.id for each in bought}
    return replace(
        before,
        machines=(*before.machines, *bought),
        new_machine_ids=tuple(each for each in before.new_machine_ids if each not in used),
    )


@given(snapshots())
def test_no_purchase_passes_a_cap_even_if_every_launch_ends_at_its_dearest_offer(
    before: Snapshot,
) -> None:
    taken = plan(before)
    assume(taken.launches)
    after = [m for m in with_launches(taken, before).machines if m.state in COUNTED]
    rate = sum((worst_price(possible(each)) for each in after), Decimal(0))
    budget, spend = before.policy.budget, before.spend
    assert rate <= budget.hour_usd
    assert spend.day_usd + rate <= budget.day_usd
    assert spend.month_usd + rate <= budget.month_usd
    for name in {launch.pool for launch in taken.launches}:
        mine = [each for each in after if each.pool == name]
        assert len(mine) <= before.policy.pools[name].machines_max
        assert sum(most_gpus(possible(each)) for each in mine) <= before.policy.pools[name].gpus_max


@given(snapshots())
def test_machines_bought_together_are_those_that_would_be_bought_one_by_one(
    before: Snapshot,
) -> None:
    taken = plan(before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Caps, "alike", lambda *_: 1)
        assert plan(before) == taken


@given(snapshots())
def test_what_was_just_bought_is_not_bought_again(before: Snapshot) -> None:
    first = plan(before)
    assume(first.launches)
    second = plan(with_launches(first, before))
    assert second.launches == ()


@given(snapshots())
def test_no_more_machines_are_bought_than_jobs_are_ripe(before: Snapshot) -> None:
    for_jobs = [each for each in plan(before).launches if each.reason.code == "jobs-wait"]
    assert len(for_jobs) <= sum(each.ripe for each in before.waiting)


@given(snapshots())
def test_every_waiting_job_is_in_exactly_one_place_of_its_queues_report(before: Snapshot) -> None:
    for report in plan(before).reports:
        waiting = [each for each in before.waiting if each.queue == report.subject]
        figures = {name: int(text) for name, text in report.reason.numbers.items()}
        placed = sum(figures[name] for name in ("ready", "booting", "bought_for", "left"))
        assert figures["waiting"] == sum(each.count for each in waiting)
        assert figures["ripe"] == sum(each.ripe for each in waiting)
        assert 0 <= figures["waiting"] - placed <= figures["waiting"] - figures["ripe"]


@st.composite
def fleets_of_one_kind(draw: st.DrawFn) -> tuple[Snapshot, Snapshot]:
    """The same machines of one shape twice: as they are, and some of them not up yet."""
    up = [machine(f"m-{number}", idle_s=1) for number in range(draw(st.integers(1, 5)))]
    earlier = draw(
        st.sampled_from((MachineState.PLANNED, MachineState.LAUNCHING, MachineState.BOOTING))
    )
    coming = [machine(each.id, earlier, age_s=30) if draw(st.booleans()) else each for each in up]
    jobs = [
        group(draw(st.integers(1, 6)), queue=name, ripe=draw(st.integers(0, 1)))
        for name in draw(st.sampled_from((("a",), ("a", "b"))))
    ]
    rules = policy(pool(high=12), queue("a", priority=1), queue("b"))
    return (
        snapshot(*jobs, policy=rules, machines=tuple(up)),
        snapshot(*jobs, policy=rules, machines=tuple(coming)),
    )


@given(fleets_of_one_kind())
def test_a_machine_that_is_coming_counts_as_one_that_is_there(
    pair: tuple[Snapshot, Snapshot],
) -> None:
    up, coming = (plan(each) for each in pair)
    assert len(coming.launches) == len(up.launches)


@given(snapshots())
def test_only_machines_idle_for_long_and_wanted_by_nobody_end_as_idle(before: Snapshot) -> None:
    machines = {each.id: each for each in before.machines}
    taken = plan(before)
    held = {each.machine_id for each in taken.holds if each.until is not None}
    for ending in taken.terminations:
        if ending.reason.code != "idle":
            continue
        ended = machines[ending.machine_id]
        rules = before.policy.pools[ended.pool]
        since = ended.idle_since or ended.registered_at
        assert ended.state is MachineState.READY
        assert since is not None
        assert before.now - since >= timedelta(seconds=rules.idle_timeout_s)
        assert not ended.protected
        assert ended.id not in held | {lease.machine_id for lease in before.leases}
        assert not ending.hard


@given(snapshots())
def test_the_same_snapshot_gives_the_same_plan_also_from_its_file(before: Snapshot) -> None:
    taken = plan(before)
    text = json.dumps(to_json(before))
    assert plan(before) == taken
    assert plan(from_json(Snapshot, json.loads(text))) == taken
    assert from_json(Plan, json.loads(json.dumps(to_json(taken)))) == taken


@given(snapshots(), st.integers(0, 1000))
def test_the_order_in_which_things_are_listed_decides_nothing(before: Snapshot, seed: int) -> None:
    dice = random.Random(seed)

    def shuffled(items: tuple[T, ...]) -> tuple[T, ...]:
        return tuple(dice.sample(items, len(items)))

    mixed = replace(
        before,
        waiting=shuffled(before.waiting),
        machines=shuffled(before.machines),
        leases=shuffled(before.leases),
        offers=shuffled(before.offers),
        cooldowns=shuffled(before.cooldowns),
        observations=tuple(
            replace(each, sightings=shuffled(each.sightings))
            for each in dice.sample(before.observations, len(before.observations))
        ),
    )
    assert plan(mixed) == plan(before)


@given(snapshots())
def test_the_second_pair_of_eyes_finds_nothing(before: Snapshot) -> None:
    assert check(plan(before), before) == ()


@given(snapshots())
def test_no_machine_has_two_fates_in_one_plan(before: Snapshot) -> None:
    taken = plan(before)
    ended = Counter(each.machine_id for each in taken.terminations)
    assert max(ended.values(), default=0) <= 1
    draining = {m.machine_id for m in taken.marks if m.state is MachineState.DRAINING}
    assert not draining & set(ended)
    assert not {each.machine_id for each in taken.resumes} & set(ended)


@given(snapshots())
def test_clouds_that_do_not_answer_prove_nothing(before: Snapshot) -> None:
    blind = replace(
        before,
        observations=tuple(
            replace(each, sightings=(), unknown=("*",)) for each in before.observations
        ),
    )
    taken = plan(blind)
    assert taken.reaps == ()
    assert taken.adoptions == ()
    assert taken.launches == ()
    assert MachineState.TERMINATED not in {each.state for each in taken.marks}


@st.composite
def budgets(draw: st.DrawFn) -> tuple[Snapshot, Budget]:
    """A pool with machines of one shape at many prices, and a budget that is higher."""
    cents = st.integers(10, 90).map(lambda cent: str(Decimal(cent) / 100))
    offers = [offer(draw(cents), zone=f"us-east-1{zone}") for zone in "abc"]
    offers += [on_demand(draw(st.sampled_from(("1.00", "1.50"))))]
    money = st.integers(0, 800).map(lambda cent: Decimal(cent) / 100)
    low = Budget(hour_usd=draw(money), day_usd=draw(money), month_usd=draw(money))
    before = snapshot(
        group(draw(st.integers(1, 12)), Need(gpus=1, on_demand_only=draw(st.booleans()))),
        policy=replace(policy(pool(high=20, low=draw(st.integers(0, 3)))), budget=low),
        machines=tuple(machine(f"m-{n}") for n in range(draw(st.integers(0, 2)))),
        offers=tuple(draw(st.permutations(offers))),
        spend=Spend(day_usd=draw(money), month_usd=draw(money)),
    )
    more = Budget(
        hour_usd=low.hour_usd + draw(money),
        day_usd=low.day_usd + draw(money),
        month_usd=low.month_usd + draw(money),
    )
    return before, more


@given(budgets())
def test_more_money_never_buys_fewer_machines(case: tuple[Snapshot, Budget]) -> None:
    before, more = case
    richer = replace(before, policy=replace(before.policy, budget=more))
    assert len(plan(richer).launches) >= len(plan(before).launches)


@given(snapshots())
def test_every_action_and_every_refusal_says_why(before: Snapshot) -> None:
    taken = plan(before)
    reasons = [each.reason for each in (*taken.actions(), *taken.refusals, *taken.reports)]
    assert all(each.code and each.sentence for each in reasons)
    for report in taken.reports:
        if int(report.reason.numbers["left"]):
            assert any(each.subject == report.subject for each in taken.refusals)


@given(snapshots())
def test_a_plan_that_is_carried_out_leaves_little_to_do_and_soon_nothing(
    before: Snapshot,
) -> None:
    world = before
    for _ in range(4):
        taken = plan(world)
        if taken.empty:
            return
        world = carried_out(taken, world)
    assert list(plan(world).actions()) == []


@given(snapshots())
def test_no_job_is_lost_on_the_way(before: Snapshot) -> None:
    """Jobs of our queues are running or waiting, before a plan and after it."""

    def jobs(world: Snapshot) -> int:
        running = sum(each.queue in world.policy.queues for each in world.leases)
        return running + sum(each.count for each in world.waiting)

    assert jobs(carried_out(plan(before), before)) == jobs(before)
