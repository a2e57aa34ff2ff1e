"""Whole decisions, told as a person would tell them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from control_plane.core.model import MachineState, Need
from control_plane.core.plan import (
    Adopt,
    Hold,
    Launch,
    Mark,
    Plan,
    Reap,
    Requeue,
    Resume,
    Terminate,
    planned_machine,
)
from control_plane.core.planner import plan
from control_plane.core.policy import AtLimit, CloudPolicy, Window
from control_plane.core.snapshot import Spend
from tests.build import (
    NOW,
    WHY,
    ago,
    group,
    lease,
    machine,
    observation,
    offer,
    on_demand,
    policy,
    pool,
    queue,
    sighting,
    snapshot,
)

S = MachineState


def told(taken: Plan) -> list[str]:
    """Every action in the order in which it is carried out, then what was refused and reported."""
    lines = []
    for action in taken.actions():
        match action:
            case Launch():
                choice = ", ".join(each.instance_type for each in action.offers)
                text = f"buy {action.machine_id} for {action.pool}: {choice}"
            case Resume():
                text = f"resume {action.machine_id}"
            case Adopt():
                text = f"adopt {action.provider_id} as {action.machine_id}"
            case Requeue():
                text = f"give back {action.job_id} ({action.outcome})"
            case Mark():
                text = f"mark {action.machine_id} {action.state}"
            case Hold():
                text = f"{'hold' if action.until else 'release'} {action.machine_id}"
            case Terminate():
                text = f"end {action.machine_id}{' hard' if action.hard else ''}"
            case Reap():
                text = f"reap {action.provider_id}"
        lines.append(f"{text} [{action.reason.code}]")
    lines += [f"refuse {e.wanted} for {e.subject} [{e.reason.code}]" for e in taken.refusals]
    lines += [each.reason.sentence for each in taken.reports]
    return lines


QUIET = ["default: nothing waits"]
WARM = Window(cron="0 8 * * *", duration_s=36_000, machines=1)
CHEAP, DEAR = offer("0.30", kind="spot"), on_demand("1.00", kind="steady")


@pytest.mark.parametrize(
    ("world", "lines"),
    [
        pytest.param({}, QUIET, id="nothing at all"),
        pytest.param(
            {"waiting": (group(2),), "offers": (CHEAP, DEAR)},
            [
                "buy m-new-001 for l4: spot, steady [jobs-wait]",
                "buy m-new-002 for l4: spot, steady [jobs-wait]",
                "default: 2 waiting; machines are bought for 2",
            ],
            id="two jobs and nothing there",
        ),
        pytest.param(
            {
                "waiting": (group(4),),
                "machines": (machine("m-1"), machine("m-2", S.BOOTING, age_s=30)),
            },
            [
                "buy m-new-001 for l4: g6.1x [jobs-wait]",
                "buy m-new-002 for l4: g6.1x [jobs-wait]",
                "default: 4 waiting; 1 goes to machines that are up, 1 goes to machines that are "
                "booting, machines are bought for 2",
            ],
            id="some of the machines are there or coming",
        ),
        pytest.param(
            {"waiting": (group(6),), "policy": policy(pool(high=2))},
            [
                "buy m-new-001 for l4: g6.1x [jobs-wait]",
                "buy m-new-002 for l4: g6.1x [jobs-wait]",
                "refuse 4 for default [cap-machines]",
                "default: 6 waiting; machines are bought for 2, 4 cannot be served now",
            ],
            id="more jobs than machines are allowed",
        ),
        pytest.param(
            {"waiting": (group(3, ripe=1),), "machines": (machine(),)},
            [
                "default: 3 waiting; 1 goes to machines that are up, 2 wait for a running machine "
                "to free up first"
            ],
            id="what is not ripe waits for a machine to free up",
        ),
        pytest.param(
            {"machines": (machine(idle_s=900),)},
            ["end m-1 [idle]", *QUIET],
            id="idle for long",
        ),
        pytest.param(
            {"machines": (machine(idle_s=900),), "waiting": (group(1),)},
            ["default: 1 waiting; 1 goes to machines that are up"],
            id="idle for long, and now work came",
        ),
        pytest.param(
            {
                "machines": (machine(idle_s=900), machine("m-2", idle_s=900)),
                "policy": policy(pool(warm=(WARM,))),
            },
            ["hold m-1 [warm-window]", "end m-2 [idle]", *QUIET],
            id="a warm window keeps one of two",
        ),
        pytest.param(
            {"policy": policy(pool(warm=(WARM,)))},
            ["buy m-new-001 for l4: g6.1x [warm-window]", *QUIET],
            id="a warm window opens",
        ),
        pytest.param(
            {
                "machines": (machine("m-1"),),
                "leases": (lease("m-1", "j-1"),),
                "observations": (observation(sighting("m-1", "gone", end_reason="interrupted")),),
            },
            [
                "mark m-1 interrupted [interrupted]",
                "mark m-1 terminated [interrupted]",
                "give back j-1 (interrupted) [interrupted]",
                *QUIET,
            ],
            id="an interruption",
        ),
        pytest.param(
            {
                "machines": (machine("m-1", last_beat_at=ago(91)),),
                "leases": (lease("m-1", "j-1"), lease("m-9", "j-2")),
                "waiting": (group(1),),
            },
            [
                "mark m-1 lost [silent]",
                "give back j-1 (lost) [silent]",
                "give back j-2 (lost) [no-machine]",
                "end m-1 hard [silent]",
                "buy m-new-001 for l4: g6.1x [jobs-wait]",
                "default: 1 waiting; machines are bought for 1",
            ],
            id="a machine went silent and its replacement is bought for what waits",
        ),
        pytest.param(
            {
                "machines": (
                    machine("m-1", S.LAUNCHING, age_s=60),
                    machine("m-2", S.PLANNED, age_s=60),
                ),
                "observations": (observation(sighting("m-1")),),
                "waiting": (group(2),),
            },
            [
                "adopt i-m-1 as m-1 [adopted]",
                "resume m-2 [resumed]",
                "default: 2 waiting; 2 go to machines that are booting",
            ],
            id="the controller crashed while it launched",
        ),
        pytest.param(
            {"observations": (observation(sighting("m-9")),), "waiting": (group(1),)},
            [
                "reap i-m-9 [unknown-machine]",
                "refuse 1 for default [books-wrong]",
                "default: 1 waiting; 1 cannot be served now",
            ],
            id="the cloud shows a machine that nobody knows",
        ),
        pytest.param(
            {
                "machines": (machine("m-1"), machine("m-2", S.DRAINING, reason=WHY)),
                "leases": (lease("m-1"),),
                "deleting": True,
            },
            ["mark m-1 draining [deleting]", "end m-2 [test]", *QUIET],
            id="the autoscaler is deleted",
        ),
        pytest.param(
            {
                "machines": (machine("m-1", S.PLANNED, age_s=9), machine("m-2")),
                "waiting": (group(3),),
                "paused": True,
            },
            [
                "mark m-1 launch_failed [paused]",
                "refuse 2 for default [paused]",
                "default: 3 waiting; 1 goes to machines that are up, 2 cannot be served now",
            ],
            id="the autoscaler is paused",
        ),
        pytest.param(
            {
                "machines": (machine("m-1"),),
                "waiting": (group(2),),
                "policy": policy(budget={"day_usd": "10", "at_limit": AtLimit.DRAIN}),
                "spend": Spend(day_usd=10),
            },
            [
                "mark m-1 draining [budget-day]",
                "refuse 2 for default [budget-day]",
                "default: 2 waiting; 2 cannot be served now",
            ],
            id="the budget of the day is used up, and machines are to go",
        ),
        pytest.param(
            {"machines": (machine(age_s=90_000),), "waiting": (group(1),)},
            [
                "mark m-1 draining [max-lifetime]",
                "buy m-new-001 for l4: g6.1x [jobs-wait]",
                "default: 1 waiting; machines are bought for 1",
            ],
            id="a machine has reached its life and is replaced at once",
        ),
        pytest.param(
            {"waiting": (group(1),), "observations": (observation(unknown=("*",)),)},
            [
                "refuse 1 for default [places-unknown]",
                "default: 1 waiting; 1 cannot be served now",
            ],
            id="the cloud does not answer",
        ),
    ],
)
def test_a_situation_and_what_is_done_about_it(world: dict[str, Any], lines: list[str]) -> None:
    """The whole plan, nothing left out."""
    assert told(plan(snapshot(**world))) == lines


def test_an_urgent_queue_takes_what_is_there_and_two_pools_share_the_rest() -> None:
    """`urgent` may use both pools and takes the machine that is up; `calm` buys in its own."""
    before = snapshot(
        group(2, queue="calm"),
        group(2, queue="urgent"),
        policy=policy(
            pool("l4", high=1),
            pool("big", high=5, clouds=(CloudPolicy(provider="gcp"),)),
            queue("urgent", "l4", "big", priority=10),
            queue("calm", "big"),
        ),
        machines=(machine("m-1"),),
        offers=(offer(), offer("2.00", gpus=2, provider="gcp", kind="a2")),
    )
    assert told(plan(before)) == [
        "buy m-new-001 for big: a2 [jobs-wait]",  # one for urgent leaves a card for calm
        "buy m-new-002 for big: a2 [jobs-wait]",
        "calm: 2 waiting; machines are bought for 2",
        "urgent: 2 waiting; 1 goes to machines that are up, machines are bought for 1",
    ]


def test_jobs_that_need_on_demand_do_not_buy_again_and_again() -> None:
    """Three jobs take anything, one must not be interrupted. The machine that was bought for it is
    not given to the others in the next plan, however often one is made."""
    waiting = (group(3), group(1, Need(gpus=1, on_demand_only=True)))
    world = snapshot(*waiting, offers=(CHEAP, DEAR), policy=policy(pool(high=9)))
    first = plan(world)
    assert [each.offers[0].instance_type for each in first.launches] == ["spot"] * 3 + ["steady"]
    bought = tuple(planned_machine(each, "research", NOW) for each in first.launches)
    assert plan(replace(world, machines=bought)).launches == ()


def test_a_plan_names_its_autoscaler_its_time_and_its_generation() -> None:
    """Two controllers' plans can be told apart."""
    taken = plan(snapshot(generation=7))
    assert (taken.autoscaler, taken.at, taken.generation) == ("research", NOW, 7)


def test_the_reports_come_in_the_order_of_the_queues_names() -> None:
    """And a paused queue has none."""
    rules = policy(pool(), queue("b"), queue("a"), queue("c"))
    taken = plan(snapshot(policy=rules, queues_paused=frozenset({"c"})))
    assert [each.subject for each in taken.reports] == ["a", "b"]


def test_how_things_are_listed_decides_nothing() -> None:
    """A store and a cloud may list in any order; the plan is the same, to the last action."""
    world = snapshot(
        group(3),
        machines=(
            machine("m-b", last_beat_at=ago(99)),
            machine("m-a", last_beat_at=ago(99)),
            machine("m-c", idle_s=900, offers=(offer(provider="gcp"),)),
        ),
        leases=(lease("m-b", "j-2"), lease("m-b", "j-1"), lease("m-x", "j-4"), lease("m-x", "j-3")),
        observations=(
            observation(sighting("m-x", provider_id="i-1"), provider="gcp"),
            observation(sighting("m-x", provider_id="i-2"), provider="aws"),
        ),
        offers=(offer(zone="us-east-1b"), offer(zone="us-east-1a"), DEAR),
    )
    turned = replace(
        world,
        machines=world.machines[::-1],
        leases=world.leases[::-1],
        observations=world.observations[::-1],
        offers=world.offers[::-1],
    )
    assert plan(turned) == plan(world)
    assert [each.job_id for each in plan(world).requeues] == ["j-1", "j-2", "j-3", "j-4"]
    assert [each.machine_id for each in plan(world).terminations] == ["m-a", "m-b"]
    assert [each.provider_id for each in plan(world).reaps] == ["i-2", "i-1"]


def test_a_report_comes_with_its_figures() -> None:
    """The same as in its sentence, for programs."""
    taken = plan(snapshot(group(4, ripe=3), machines=(machine(),), policy=policy(pool(high=2))))
    assert dict(taken.reports[0].reason.numbers) == {
        "waiting": "4", "ripe": "3", "ready": "1", "booting": "0", "bought_for": "1", "left": "1"
    }  # fmt: skip


def test_a_launch_costs_at_most_its_dearest_offer() -> None:
    """What the caps were asked about."""
    (launch,) = plan(snapshot(group(1), offers=(CHEAP, DEAR))).launches
    assert str(launch.price_usd_hour) == "1.00"


def test_a_plan_is_empty_when_it_only_reports_or_refuses() -> None:
    """Nothing to carry out, nothing to keep."""
    assert plan(snapshot()).empty
    assert plan(snapshot(group(1), paused=True)).empty
    assert not plan(snapshot(group(1))).empty


def test_the_intent_of_a_launch_is_a_planned_machine() -> None:
    """All that the executor needs later is in it."""
    (launch,) = plan(snapshot(group(1))).launches
    intent = planned_machine(launch, "research", NOW)
    assert (intent.id, intent.pool, intent.state) == ("m-new-001", "l4", S.PLANNED)
    assert (intent.offers, intent.planned_at) == (launch.offers, NOW)
    assert intent.launch_reason == launch.reason
