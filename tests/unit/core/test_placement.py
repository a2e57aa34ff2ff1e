"""What is bought, in which order of preference, and what is said when nothing is."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from control_plane.core.budget import Caps
from control_plane.core.demand import Tally, demand
from control_plane.core.model import ErrorClass, MachineState, Market, Need, Offer
from control_plane.core.placement import Placement, interchangeable, place, warm_machines
from control_plane.core.policy import CloudPolicy, GpuRange, MarketPolicy, Range, Window
from control_plane.core.recovery import recover
from control_plane.core.snapshot import Snapshot, Spend, Timing
from tests.build import (
    NOW,
    ago,
    capacity,
    cooldown,
    group,
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

KEY = offer().key


def placed(before: Snapshot) -> Placement:
    repaired = recover(before)
    return place(before, repaired, demand(before, repaired), Caps(before))


def bought(before: Snapshot) -> list[tuple[str, ...]]:
    """The types of each launch, the first choice first."""
    return [tuple(o.instance_type for o in each.offers) for each in placed(before).launches]


def refused(before: Snapshot) -> list[tuple[str, int, str]]:
    refusals = placed(before).refusals
    assert not any("None" in each.reason.sentence for each in refusals)
    return [(each.subject, each.wanted, each.reason.code) for each in refusals]


# ------------------------------------------------------------------------------- ranking


@pytest.mark.parametrize(
    ("offers", "jobs", "first"),
    [
        # Price for each job that runs at once.
        ([offer("0.30", kind="one"), offer("1.00", gpus=4, kind="four")], 1, "one"),
        ([offer("0.30", kind="one"), offer("1.00", gpus=4, kind="four")], 3, "one"),  # 1.00 / 3
        ([offer("0.30", kind="one"), offer("1.00", gpus=4, kind="four")], 4, "four"),  # 1.00 / 4
        ([offer("0.30", kind="one"), offer("1.00", gpus=4, kind="four")], 9, "four"),
        # The same for each job: the smaller bill.
        ([offer("0.50", gpus=2, kind="two"), offer("0.25", kind="one")], 2, "one"),
        # Spot before on-demand, whatever it costs.
        ([on_demand("0.20", kind="steady"), offer("0.30", kind="spot")], 1, "spot"),
        # All the same: by key, so that the choice never wavers.
        ([offer(zone="us-east-1b", kind="b"), offer(zone="us-east-1a", kind="a")], 1, "a"),
    ],
)
def test_the_best_offer_comes_first(offers: list[Offer], jobs: int, first: str) -> None:
    """Market, then price for each job, then the bill."""
    for given in (offers, offers[::-1]):
        assert bought(snapshot(group(jobs), offers=tuple(given)))[0][0] == first


@pytest.mark.parametrize(
    ("market", "kinds"),
    [
        (MarketPolicy.SPOT_FIRST, ("spot", "steady")),
        (MarketPolicy.SPOT, ("spot",)),
        (MarketPolicy.ON_DEMAND, ("steady",)),
    ],
)
def test_the_pools_market_is_kept(market: MarketPolicy, kinds: tuple[str, ...]) -> None:
    """`spot-first` falls back to on-demand in the same tick."""
    before = snapshot(
        group(1),
        policy=policy(pool(market=market)),
        offers=(on_demand(kind="steady"), offer(kind="spot")),
    )
    assert bought(before) == [kinds]


def test_a_job_that_must_not_be_interrupted_is_never_given_spot() -> None:
    """Not even as a fallback."""
    before = snapshot(
        group(1, Need(gpus=1, on_demand_only=True)),
        offers=(on_demand(kind="steady"), offer(kind="spot")),
    )
    assert bought(before) == [("steady",)]


def test_only_offers_that_hold_the_job_are_tried() -> None:
    """A fallback that could not run the job would be money for nothing."""
    offers = (offer("0.30", kind="one"), offer("0.60", gpus=2, kind="two"))
    assert bought(snapshot(group(1, Need(gpus=2)), offers=offers)) == [("two",)]


def test_a_launch_carries_at_most_twelve_offers() -> None:
    """The best twelve; the next tick starts with fresh cool-downs."""
    offers = tuple(offer(f"0.{30 + n}", kind=f"k{n:02}") for n in range(15))
    assert bought(snapshot(group(1), offers=offers)) == [tuple(f"k{n:02}" for n in range(12))]


def test_a_launch_says_why_and_what_was_chosen() -> None:
    """The reason of the jobs, the offer, and among how many."""
    (launch,) = placed(snapshot(group(1), offers=(offer(), on_demand()))).launches
    assert launch.machine_id == "m-new-001"
    assert launch.pool == "l4"
    assert launch.reason.code == "jobs-wait"
    assert launch.reason.sentence == (
        "1 job waits in default for 1 x any GPU, the oldest for 1m: "
        "aws us-east-1a g6.1x spot 0.30 USD/hour, the best of 2 offers"
    )


# ------------------------------------------------------------------------------- how many


@pytest.mark.parametrize(
    ("jobs", "gpus", "machines"),
    [(1, 1, 1), (3, 1, 3), (4, 4, 1), (5, 4, 2), (8, 4, 2), (9, 4, 3)],  # ceil(jobs / gpus)
)
def test_as_many_machines_as_the_jobs_need(jobs: int, gpus: int, machines: int) -> None:
    """Jobs of one card each on machines of `gpus` cards."""
    assert len(bought(snapshot(group(jobs), offers=(offer(gpus=gpus),)))) == machines


def test_a_later_queue_uses_the_room_that_an_earlier_one_leaves() -> None:
    """3 + 4 jobs on machines of 4 cards are 2 machines, not 1 + 2... and 3 + 1 are one."""
    rules = policy(pool(), queue("a", priority=1), queue("b"))
    for jobs, machines in ((1, 1), (4, 2), (6, 3)):
        before = snapshot(
            group(3, queue="a"), group(jobs, queue="b"), policy=rules, offers=(offer(gpus=4),)
        )
        assert len(bought(before)) == machines


def test_a_later_queue_uses_what_is_left_on_every_machine_that_was_bought() -> None:
    """Two machines of four cards for two jobs of three leave 1 + 1 for two jobs of one."""
    before = snapshot(group(2, Need(gpus=3)), group(2), offers=(offer(gpus=4),))
    assert len(bought(before)) == 2


def test_the_tally_of_a_queue_adds_up_its_kinds_of_jobs() -> None:
    """2 + 3 machines are wanted, 3 may be bought: 2 + 1, and 2 jobs are left; then 1 + 1 more
    jobs of a third kind are left as well."""
    before = snapshot(
        group(2, Need(gpus=1, cpus=3)),
        group(3, Need(gpus=1, cpus=2)),
        group(1, Need(gpus=9)),
        policy=policy(pool(high=3)),
    )
    repaired = recover(before)
    wanted = demand(before, repaired)
    place(before, repaired, wanted, Caps(before))
    assert wanted.tallies["default"] == Tally(waiting=6, ripe=6, bought_for=3, left=3)


def test_room_bought_in_one_pool_serves_another_queue_of_that_pool_only() -> None:
    """Queue b may not use pool x."""
    rules = policy(pool("x"), pool("y"), queue("a", "x", priority=1), queue("b", "y"))
    before = snapshot(
        group(1, queue="a"), group(1, queue="b"), policy=rules, offers=(offer(gpus=4),)
    )
    assert [each.pool for each in placed(before).launches] == ["x", "y"]


def test_the_next_pool_of_the_queue_takes_what_the_first_refuses() -> None:
    """Two machines fit into the preferred pool, the rest goes to the second; nothing is refused."""
    rules = policy(pool("x", high=2), pool("y", high=9), queue("default", "x", "y"))
    result = placed(snapshot(group(5), policy=rules))
    assert [each.pool for each in result.launches] == ["x", "x", "y", "y", "y"]
    assert result.refusals == []


def test_every_pool_that_refuses_is_told() -> None:
    """7 jobs, 2 + 3 machines: both pools say why 2 jobs are left."""
    rules = policy(pool("x", high=2), pool("y", high=3), queue("default", "x", "y"))
    before = snapshot(group(7), policy=rules)
    assert refused(before) == [("default", 2, "cap-machines"), ("default", 2, "cap-machines")]


def test_the_tally_of_a_queue_says_what_was_bought_and_what_is_left() -> None:
    """4 jobs wait, a machine is there, two may be bought: 1 + 2 + 1."""
    before = snapshot(group(4), policy=policy(pool(high=3)), machines=(machine(),))
    repaired = recover(before)
    wanted = demand(before, repaired)
    place(before, repaired, wanted, Caps(before))
    assert wanted.tallies["default"] == Tally(waiting=4, ripe=4, on_ready=1, bought_for=2, left=1)


# ------------------------------------------------------------------------------- caps


@pytest.mark.parametrize(
    ("rules", "budget", "spend", "machines", "code"),
    [
        ({"high": 2}, {}, {}, 2, "cap-machines"),
        ({"high": 9, "gpus_max": 3}, {}, {}, 3, "cap-gpus"),
        ({"high": 9}, {"hour_usd": "0.60"}, {}, 2, "cap-hour"),  # 2 x 0.30
        ({"high": 9}, {"day_usd": "5"}, {"day_usd": Decimal("4.40")}, 2, "cap-day"),
        ({"high": 9}, {"month_usd": "5"}, {"month_usd": Decimal("4.10")}, 3, "cap-month"),
        ({"high": 9}, {"day_usd": "5"}, {"day_usd": Decimal(5)}, 0, "budget-day"),
        ({"high": 9}, {"month_usd": "5"}, {"month_usd": Decimal(5)}, 0, "budget-month"),
    ],
)
def test_each_cap_holds_and_is_named(
    rules: dict[str, Any],
    budget: dict[str, Any],
    spend: dict[str, Decimal],
    machines: int,
    code: str,
) -> None:
    """Five jobs want five machines of 0.30 USD/hour."""
    before = snapshot(group(5), policy=policy(pool(**rules), budget=budget), spend=Spend(**spend))
    assert len(bought(before)) == machines
    assert refused(before) == [("default", 5 - machines, code)]


def test_a_dear_fallback_does_not_take_the_money_of_another_machine() -> None:
    """1.20 USD/hour buys four spot machines of 0.30; the on-demand fallback of 1.00 fits none of
    them. With 2.00 it fits one: 4 x 0.30 + 0.70 = 1.90."""
    offers = (offer("0.30", kind="spot"), on_demand("1.00", kind="steady"))
    tight = policy(pool(high=9), budget={"hour_usd": "1.20"})
    assert bought(snapshot(group(4), policy=tight, offers=offers)) == [("spot",)] * 4
    wider = policy(pool(high=9), budget={"hour_usd": "2.00"})
    assert bought(snapshot(group(4), policy=wider, offers=offers)) == [
        ("spot", "steady"),
        *[("spot",)] * 3,
    ]


def test_what_cannot_be_paid_is_passed_over_for_what_can() -> None:
    """The large machine is cheaper for each job, but over the budget."""
    offers = (offer("1.00", gpus=4, kind="four"), offer("0.30", kind="one"))
    rules = policy(pool(high=9), budget={"hour_usd": "0.90"})
    assert bought(snapshot(group(4), policy=rules, offers=offers)) == [("one",)] * 3


def test_the_refusal_of_the_cheapest_offer_is_the_one_to_read() -> None:
    """It came nearest to being bought."""
    offers = (offer("5.00", gpus=2, kind="two"), offer("0.50", kind="one"))
    rules = policy(pool(), budget={"hour_usd": "0.40"})
    for given in (offers, offers[::-1]):
        (refusal,) = placed(snapshot(group(1), policy=rules, offers=given)).refusals
        assert refusal.reason.numbers["price_usd_hour"] == "0.50"


def test_a_snapshot_that_runs_out_of_ids_ends_the_plan_not_the_planner() -> None:
    """The next plan brings new ids."""
    before = snapshot(group(3), new_machine_ids=("m-new-001",))
    assert len(bought(before)) == 1
    assert refused(before) == [("default", 2, "no-ids")]


# ------------------------------------------------------------------------------- not buying


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"paused": True}, "paused"),
        ({"deleting": True}, "deleting"),
        ({"paused": True, "deleting": True}, "deleting"),
        ({"offers": ()}, "dead-pool"),
        ({"offers": (offer(provider="gcp"),)}, "dead-pool"),
        ({"observations": (observation(unknown=("*",)),)}, "places-unknown"),
        ({"observations": (observation(unknown=("us-east-1",)),)}, "places-unknown"),
        ({"observations": (observation(unknown=("us-east-1a",)),)}, "places-unknown"),
        ({"observations": (observation(sighting("m-stray")),)}, "books-wrong"),
        ({"cooldowns": (cooldown(KEY),)}, "no-capacity"),
        ({"cooldowns": (cooldown("aws/us-east-1/*"),)}, "no-capacity"),
        ({"cooldowns": (cooldown("aws/*"),)}, "no-capacity"),
        ({"cooldowns": (cooldown(f"boot/l4/{KEY}", count=3),)}, "breaker-open"),
    ],
)
def test_nothing_is_bought_and_the_reason_is_told(changes: dict[str, Any], code: str) -> None:
    """One job waits in a world in which one thing is wrong."""
    before = snapshot(group(1), **changes)
    assert bought(before) == []
    assert refused(before) == [("default", 1, code)]


@pytest.mark.parametrize(
    "changes",
    [
        {"observations": (observation(unknown=("us-west-2",)),)},
        {"observations": (observation(unknown=("*",), provider="gcp"),)},
        {"observations": ()},  # nobody was asked yet: a preview
        {"cooldowns": (cooldown(KEY, left_s=0),)},  # over
        {"cooldowns": (cooldown("aws/us-west-2/*"), cooldown("gcp/*"))},
        {"cooldowns": (cooldown(f"boot/l4/{KEY}", count=2),)},  # two of three failures
        {"cooldowns": (cooldown(f"boot/l4/{KEY}", count=3, left_s=0),)},  # forgotten
        {"cooldowns": (cooldown(f"boot/other/{KEY}", count=3),)},  # another pool's
    ],
)
def test_what_concerns_others_stops_nothing(changes: dict[str, Any]) -> None:
    """Unknown places, cool-downs and breakers of somewhere else, or of the past."""
    assert bought(snapshot(group(1), **changes)) == [("g6.1x",)]


def test_an_offer_that_rests_is_passed_over() -> None:
    """The next best is tried in its place."""
    offers = (offer(kind="best"), offer("0.40", kind="next"))
    before = snapshot(group(1), offers=offers, cooldowns=(cooldown(offers[0].key),))
    assert bought(before) == [("next",)]


def test_the_places_that_answer_are_used() -> None:
    """One region is unknown, the other is not."""
    offers = (offer(kind="east"), offer("0.40", region="us-west-2", zone="", kind="west"))
    before = snapshot(group(1), offers=offers, observations=(observation(unknown=("us-east-1",)),))
    assert bought(before) == [("west",)]


def test_why_a_place_did_not_answer_is_told() -> None:
    """Once, in a fixed order, and of the clouds of this pool only."""
    clouds = tuple(CloudPolicy(provider=each) for each in ("aws", "gcp", "azure"))
    before = snapshot(
        group(1),
        policy=policy(pool(clouds=clouds)),
        offers=tuple(offer(provider=each.provider) for each in clouds),
        observations=(
            replace(observation(unknown=("*",)), problem="no credentials"),
            replace(observation(unknown=("*",), provider="gcp"), problem="time is up"),
            replace(observation(unknown=("*",), provider="azure"), problem="no credentials"),
            replace(observation(unknown=("*",), provider="ssh"), problem="no route"),
        ),
    )
    (refusal,) = placed(before).refusals
    assert "has answered (no credentials; time is up); what" in refusal.reason.sentence


def test_the_rest_that_ends_first_is_told_and_each_counts_to_its_longest() -> None:
    """a rests for 5 and for 20 minutes, b for 10: b is back first."""
    offers = (offer(zone="us-east-1a", kind="a"), offer(zone="us-east-1b", kind="b"))
    before = snapshot(
        group(1),
        offers=offers,
        cooldowns=(
            cooldown(offers[0].key, left_s=300),
            cooldown(f"boot/l4/{offers[0].key}", left_s=1200, count=3),
            cooldown(offers[1].key, left_s=600, error_class=ErrorClass.QUOTA, code="Quota"),
        ),
    )
    (refusal,) = placed(before).refusals
    assert refusal.reason.sentence == (
        "both offers of pool l4 rest after refusals; the first is tried again in 10m, at 12:10 UTC "
        f"({offers[1].key}: refused with Quota)"
    )


def test_the_breaker_opens_at_the_number_of_failures_that_is_set() -> None:
    """Here at one."""
    before = snapshot(
        group(1),
        cooldowns=(cooldown(f"boot/l4/{KEY}", count=1),),
        timing=Timing(breaker_failures=1),
    )
    assert refused(before) == [("default", 1, "breaker-open")]


def test_a_need_that_no_offer_holds_is_told() -> None:
    """Also one that states nothing at all: no number of such jobs would ever be enough."""
    for need in (Need(gpus=9), Need()):
        assert refused(snapshot(group(1, need))) == [("default", 1, "nothing-fits")]


def test_the_disk_that_a_pool_asks_for_counts_where_it_is_ours_to_choose() -> None:
    """The offer says nothing of its disk."""
    bare = Offer(
        provider="aws",
        region="us-east-1",
        zone="us-east-1a",
        instance_type="g6.1x",
        capacity=capacity(disk_gib=0),
        price_usd_hour=Decimal("0.30"),
    )
    need = Need(gpus=1, disk_gib=200)
    small, large = (policy(pool(disk_gib=size)) for size in (199, 200))
    assert bought(snapshot(group(1, need), offers=(bare,), policy=small)) == []
    assert bought(snapshot(group(1, need), offers=(bare,), policy=large)) == [("g6.1x",)]


OPEN = Window(cron="0 8 * * *", duration_s=8 * 3600)
SHUT = Window(cron="0 18 * * *", duration_s=3600)


def test_a_closed_pool_buys_nothing_while_its_window_is_open() -> None:
    """It is noon."""
    closed = snapshot(group(1), policy=policy(pool(closed=(OPEN,))))
    assert refused(closed) == [("default", 1, "closed-window")]
    assert len(bought(snapshot(group(1), policy=policy(pool(closed=(SHUT,)))))) == 1


# ------------------------------------------------------------------------------- keeping warm


@pytest.mark.parametrize(
    ("low", "there", "jobs", "launches"),
    [
        (2, 0, 0, ["minimum", "minimum"]),
        (2, 1, 0, ["minimum"]),
        (2, 2, 0, []),
        (2, 3, 0, []),
        (2, 0, 1, ["jobs-wait", "minimum"]),  # one is bought for the job anyway
        (2, 0, 3, ["jobs-wait"] * 3),
        (2, 1, 1, ["minimum"]),  # the job goes to the one that is there
    ],
)
def test_a_minimum_is_filled_up(low: int, there: int, jobs: int, launches: list[str]) -> None:
    """What is bought for jobs counts towards it, and so does what is there."""
    before = snapshot(
        *([group(jobs)] if jobs else []),
        policy=policy(pool(low=low, high=9), pool("other"), queue()),
        machines=(*(machine(f"m-{n}") for n in range(there)), machine("o", pool="other")),
    )
    assert [each.reason.code for each in placed(before).launches] == launches


def test_what_is_missing_of_a_minimum_is_told() -> None:
    """Three wanted, one may be paid: two are missing."""
    rules = policy(pool(low=3), budget={"hour_usd": "0.50"})
    assert refused(snapshot(policy=rules)) == [("l4", 2, "cap-hour")]


def test_a_minimum_is_filled_with_the_cheapest_machine() -> None:
    """Nothing waits, so one machine is as good as another: for one job, not for four."""
    offers = (offer("0.40", gpus=4, kind="four"), offer("0.30", kind="one"))
    assert bought(snapshot(policy=policy(pool(low=1)), offers=offers)) == [("one", "four")]


def test_a_machine_that_ends_is_no_part_of_a_minimum() -> None:
    """Its place is filled at once."""
    before = snapshot(policy=policy(pool(low=1)), machines=(machine("m-1", MachineState.DRAINING),))
    assert len(bought(before)) == 1


@pytest.mark.parametrize(
    ("low", "warm", "wanted", "code"),
    [
        (0, (), 0, "minimum"),
        (1, (), 1, "minimum"),
        (0, (2,), 2, "warm-window"),
        (1, (1,), 1, "minimum"),  # the window asks for no more than the minimum
        (0, (1, 3, 2), 3, "warm-window"),  # the largest of several
    ],
)
def test_the_most_that_a_minimum_or_an_open_window_asks_for(
    low: int, warm: tuple[int, ...], wanted: int, code: str
) -> None:
    """A closed window asks for nothing."""
    windows = [Window(cron="0 8 * * *", duration_s=36_000, machines=n) for n in warm]
    shut = Window(cron="0 18 * * *", duration_s=3600, machines=9)
    count, why = warm_machines(pool(low=low, warm=(shut, *windows)), NOW)
    assert (count, why.code) == (wanted, code)


def test_pools_of_every_kind_can_be_kept_warm() -> None:
    """Also one without GPUs."""
    rules = policy(
        pool(
            "cpu",
            low=1,
            gpu=None,
            clouds=(CloudPolicy(provider="aws"),),
        ),
        pool("a100", low=1, gpu=GpuRange(name="A100", count=Range(low=8, high=8))),
    )
    offers = (
        offer("0.05", gpus=0, kind="cpu"),
        offer("9.00", gpus=8, gpu_name="A100", kind="a100", market=Market.ON_DEMAND),
    )
    assert bought(snapshot(policy=rules, offers=offers)) == [("cpu",), ("a100",)]


def test_a_launch_that_is_still_open_is_not_repeated() -> None:
    """Planned two seconds ago for this job."""
    planned = machine("m-1", MachineState.PLANNED, planned_at=ago(2))
    assert bought(snapshot(group(1), machines=(planned,))) == []


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (offer("0.30"), True),
        (offer("0.36", zone="us-east-1b"), True),
        (offer("0.37"), False),
        (offer("0.10"), True),
        (on_demand("0.30"), False),
        (offer("0.30", region="eu-west-1"), False),
        (offer("0.30", provider="gcp"), False),
    ],
)
def test_one_call_may_buy_what_is_alike_and_hardly_dearer(other: Offer, same: bool) -> None:
    """One market in one region, for a fifth more at most."""
    assert interchangeable(offer("0.30"), other) is same
