"""Every sentence the planner says, word for word: a change of wording is reviewed here."""

from __future__ import annotations

import inspect
from dataclasses import replace
from decimal import Decimal

import pytest

from control_plane.core import reasons
from control_plane.core.model import ErrorClass, MachineState, Need, Reason
from control_plane.core.policy import Range, Window
from tests.build import (
    NOW,
    ago,
    ahead,
    cooldown,
    group,
    machine,
    offer,
    on_demand,
    pool,
    sighting,
)

KEY = "aws/us-east-1/us-east-1a/g6.1x/spot"
WINDOW = Window(cron="0 8 * * *", duration_s=60, timezone="Europe/Berlin", machines=2)
L4 = pool(high=2, gpus_max=4)
ONE = replace(L4, machines=Range(low=1, high=1), gpus_max=1)
MACHINE = machine()
USD = Decimal
WHY = Reason(code="jobs-wait", sentence="1 job waits", numbers={"jobs": "1"})

TEXTS: list[tuple[Reason, str, str]] = [
    # ----------------------------------------------------------------------- buying
    (
        reasons.jobs_wait(group(1, waited_s=59), NOW),
        "jobs-wait",
        "1 job waits in default for 1 x any GPU, the oldest for 59s",
    ),
    (
        reasons.jobs_wait(group(7, Need(cpus=4), waited_s=240), NOW),
        "jobs-wait",
        "7 jobs wait in default for 4 CPUs, the oldest for 4m",
    ),
    (
        reasons.chosen(WHY, offer(), 1),
        "jobs-wait",
        "1 job waits: aws us-east-1a g6.1x spot 0.30 USD/hour",
    ),
    (
        reasons.chosen(WHY, on_demand(zone=""), 3),
        "jobs-wait",
        "1 job waits: aws us-east-1 g6.1x on-demand 1.00 USD/hour, the best of 3 offers",
    ),
    (reasons.minimum(pool(low=1)), "minimum", "pool l4 keeps at least 1 machine"),
    (reasons.minimum(pool(low=2)), "minimum", "pool l4 keeps at least 2 machines"),
    (
        reasons.warm(L4, WINDOW, ahead(60)),
        "warm-window",
        "pool l4 is kept warm with 2 machines until 2026-11-02 12:01 UTC "
        "(0 8 * * *, Europe/Berlin)",
    ),
    (
        reasons.warm(L4, replace(WINDOW, machines=1), ahead(60)),
        "warm-window",
        "pool l4 is kept warm with 1 machine until 2026-11-02 12:01 UTC (0 8 * * *, Europe/Berlin)",
    ),
    # ----------------------------------------------------------------------- not buying
    (reasons.deleting("research"), "deleting", "autoscaler research is being deleted"),
    (
        reasons.paused("research"),
        "paused",
        "autoscaler research is paused (orchctl autoscaler resume research)",
    ),
    (
        reasons.closed(L4, ahead(3600)),
        "closed-window",
        "pool l4 is closed until 2026-11-02 13:00 UTC",
    ),
    (reasons.cap_machines(L4, 2), "cap-machines", "pool l4 has 2 machines, its maximum is 2"),
    (reasons.cap_machines(ONE, 1), "cap-machines", "pool l4 has 1 machine, its maximum is 1"),
    (
        reasons.cap_gpus(L4, 3, offer(gpus=2)),
        "cap-gpus",
        "pool l4 has 3 GPUs; 2 more would pass its maximum of 4",
    ),
    (
        reasons.cap_gpus(ONE, 1, offer()),
        "cap-gpus",
        "pool l4 has 1 GPU; 1 more would pass its maximum of 1",
    ),
    (
        reasons.cap_hour(USD("19.80"), offer("0.31"), USD(20)),
        "cap-hour",
        "machines cost 19.80 USD/hour; one more at 0.31 USD/hour would make 20.11 USD/hour, over "
        "the budget of 20.00 USD/hour",
    ),
    (
        reasons.cap_period("day", USD("199.50"), USD("0.61"), USD(200)),
        "cap-day",
        "199.50 USD is spent this day; at 0.61 USD/hour the budget of 200.00 USD would be passed "
        "within the hour",
    ),
    (
        reasons.cap_period("month", USD(1), USD(2), USD(2)),
        "cap-month",
        "1.00 USD is spent this month; at 2.00 USD/hour the budget of 2.00 USD would be passed "
        "within the hour",
    ),
    (
        reasons.budget_used_up("month", USD("3000.01"), USD(3000)),
        "budget-month",
        "the budget of 3000.00 USD for this month is used up: 3000.01 USD is spent",
    ),
    (
        reasons.dead_pool(L4),
        "dead-pool",
        "pool l4 matches no offer: nothing like it is sold where it may buy",
    ),
    (
        reasons.nothing_fits(L4, Need(gpus=8, gpu_name="H100")),
        "nothing-fits",
        "no available offer of pool l4 can hold 8 x H100",
    ),
    (
        reasons.places_unknown(L4),
        "places-unknown",
        "no place where pool l4 may buy has answered; what is there is unknown",
    ),
    (
        reasons.places_unknown(L4, ["aws is not set up here", "gcp: timeout"]),
        "places-unknown",
        "no place where pool l4 may buy has answered (aws is not set up here; gcp: timeout); what "
        "is there is unknown",
    ),
    (
        reasons.all_resting(L4, 1, cooldown(KEY, left_s=90), NOW),
        "no-capacity",
        "the one offer of pool l4 rests after refusals; it is tried again in 1m, at 12:01 UTC "
        f"({KEY}: refused with InsufficientInstanceCapacity)",
    ),
    (
        reasons.all_resting(
            L4, 3, cooldown(f"boot/l4/{KEY}", count=3, error_class=ErrorClass.TRANSIENT), NOW
        ),
        "breaker-open",
        "all 3 offers of pool l4 rest after refusals; the first is tried again in 5m, at 12:05 UTC "
        f"(boot/l4/{KEY}: 3 machines failed to boot)",
    ),
    (
        reasons.all_resting(L4, 1, cooldown(f"boot/l4/{KEY}", count=1), NOW),
        "breaker-open",
        "the one offer of pool l4 rests after refusals; it is tried again in 5m, at 12:05 UTC "
        f"(boot/l4/{KEY}: 1 machine failed to boot)",
    ),
    (
        reasons.no_ids(L4),
        "no-ids",
        "pool l4 has to wait for the next plan: this one may name no further machine",
    ),
    (
        reasons.books_wrong(sighting()),
        "books-wrong",
        "aws shows machine i-m-1 of ours that no record explains; nothing is bought until it is "
        "gone",
    ),
    # ----------------------------------------------------------------------- repairing
    (
        reasons.adopted(MACHINE, sighting()),
        "adopted",
        "machine m-1 runs as i-m-1, although no answer to its launch was recorded",
    ),
    (
        reasons.resumed(MACHINE),
        "resumed",
        "the launch of machine m-1 is still open; it is taken up with the same key",
    ),
    (
        reasons.never_launched(MACHINE),
        "never-launched",
        "machine m-1 was never launched: its provider does not know it",
    ),
    (
        reasons.never_launched(replace(MACHINE, reason=WHY)),
        "never-launched",
        "machine m-1 was never launched: its provider does not know it; 1 job waits",
    ),
    (
        reasons.launch_unanswered(MACHINE, "", NOW),
        "launch-unanswered",
        "the launch of machine m-1 came to nothing within 1h 00m",
    ),
    (
        reasons.launch_unanswered(MACHINE, "Throttled", NOW),
        "launch-unanswered",
        "the launch of machine m-1 came to nothing within 1h 00m, the last refusal was Throttled",
    ),
    (
        reasons.launch_ended(MACHINE),
        "launch-ended",
        "machine m-1 ended before its launch was recorded",
    ),
    (
        reasons.launch_unclear(MACHINE, "Timeout", 5),
        "launch-unclear",
        "aws gave no clear answer to the launch of machine m-1 in 5 tries, the last was Timeout; "
        "it is given up, and ended should it exist",
    ),
    (
        reasons.boot_failed(replace(MACHINE, launched_at=ago(601)), NOW),
        "boot-failed",
        "machine m-1 did not register within 10m",
    ),
    (
        reasons.boot_failed(machine("m-1", MachineState.PLANNED, age_s=61), NOW),
        "boot-failed",
        "machine m-1 did not register within 1m",
    ),
    (
        reasons.gone_while_booting(MACHINE),
        "boot-failed",
        "machine m-1 ended before its agent registered",
    ),
    (reasons.interrupted(MACHINE), "interrupted", "aws took machine m-1 back"),
    (reasons.gone(MACHINE), "gone", "machine m-1 is gone, and not by our doing"),
    (
        reasons.silent(replace(MACHINE, last_beat_at=ago(91)), NOW),
        "silent",
        "machine m-1 was silent for 1m",
    ),
    (
        reasons.silent(replace(MACHINE, last_beat_at=None), NOW),
        "silent",
        "machine m-1 was silent for 1h 00m",
    ),
    (reasons.no_machine("m-1"), "no-machine", "its machine m-1 no longer exists"),
    (reasons.ended(MACHINE), "ended", "machine m-1 ends"),
    (
        reasons.unknown(sighting(created_at=ago(180)), NOW),
        "unknown-machine",
        "machine i-m-1 carries our label, is 3m old and has no open record",
    ),
    # ----------------------------------------------------------------------- ending
    (
        reasons.idle(MACHINE, 330, 300),
        "idle",
        "machine m-1 has been idle for 5m, its limit is 5m",
    ),
    (
        reasons.max_lifetime(MACHINE, 86_400),
        "max-lifetime",
        "machine m-1 has reached its maximum life of 1d 0h",
    ),
    (reasons.pool_removed(MACHINE), "pool-removed", "pool l4 is no longer declared"),
    (
        reasons.superfluous(L4, 3),
        "superfluous",
        "pool l4 has 3 machines, over its maximum of 2",
    ),
    (
        reasons.superfluous(pool(high=0), 1),
        "superfluous",
        "pool l4 has 1 machine, over its maximum of 0",
    ),
    # ----------------------------------------------------------------------- reporting
    (
        reasons.queue_report("urgent", waiting=0, ripe=0, ready=0, booting=0, bought_for=0, left=0),
        "queue",
        "urgent: nothing waits",
    ),
    (
        reasons.queue_report(
            "urgent", waiting=15, ripe=14, ready=2, booting=3, bought_for=4, left=5
        ),
        "queue",
        "urgent: 15 waiting; 2 go to machines that are up, 3 go to machines that are booting, "
        "machines are bought for 4, 5 cannot be served now, 1 waits for a running machine to "
        "free up first",
    ),
    (
        reasons.queue_report("urgent", waiting=6, ripe=4, ready=1, booting=1, bought_for=1, left=1),
        "queue",
        "urgent: 6 waiting; 1 goes to machines that are up, 1 goes to machines that are booting, "
        "machines are bought for 1, 1 cannot be served now, 2 wait for a running machine to free "
        "up first",
    ),
]


@pytest.mark.parametrize(("reason", "code", "sentence"), TEXTS, ids=lambda each: None)
def test_a_reason_reads_like_this(reason: Reason, code: str, sentence: str) -> None:
    """The code for programs, the sentence for people."""
    assert (reason.code, reason.sentence) == (code, sentence)


def test_every_reason_has_its_row_here() -> None:
    """A new sentence is written down before it is said."""
    makers = {
        name
        for name, each in vars(reasons).items()
        if inspect.isfunction(each)
        and each.__module__ == reasons.__name__
        and each.__annotations__.get("return") == "Reason"
        and not name.startswith("_")
    }
    source = inspect.getsource(inspect.getmodule(test_every_reason_has_its_row_here) or reasons)
    assert {name for name in makers if f"reasons.{name}(" not in source} == set()


@pytest.mark.parametrize(
    ("reason", "numbers"),
    [
        (
            reasons.chosen(reasons.jobs_wait(group(2), NOW), offer(), 1),
            {
                "queue": "default",
                "jobs": "2",
                "oldest": "1m",
                "offer": KEY,
                "price_usd_hour": "0.30",
            },
        ),
        (reasons.minimum(pool(low=2)), {"machines": "2"}),
        (
            reasons.warm(L4, WINDOW, NOW),
            {"machines": "2", "until": "2026-11-02T12:00:00+00:00"},
        ),
        (reasons.closed(L4, NOW), {"until": "2026-11-02T12:00:00+00:00"}),
        (reasons.cap_machines(L4, 2), {"machines": "2", "maximum": "2"}),
        (reasons.cap_gpus(L4, 3, offer(gpus=2)), {"gpus": "3", "more": "2", "maximum": "4"}),
        (
            reasons.cap_hour(USD("1.5"), offer("0.31"), USD(20)),
            {"rate_usd_hour": "1.5", "price_usd_hour": "0.31", "cap_usd_hour": "20"},
        ),
        (
            reasons.cap_period("day", USD(1), USD(2), USD(3)),
            {"spent_usd": "1", "rate_usd_hour": "2", "cap_usd": "3"},
        ),
        (reasons.budget_used_up("day", USD(2), USD(1)), {"spent_usd": "2", "cap_usd": "1"}),
        (
            reasons.all_resting(L4, 3, cooldown(KEY, left_s=0), NOW),
            {
                "offers": "3",
                "until": "2026-11-02T12:00:00+00:00",
                "last_code": "InsufficientInstanceCapacity",
            },
        ),
        (reasons.books_wrong(sighting()), {"provider_id": "i-m-1"}),
        (reasons.adopted(MACHINE, sighting()), {"provider_id": "i-m-1"}),
        (reasons.resumed(replace(MACHINE, attempt=2)), {"attempt": "2"}),
        (reasons.never_launched(replace(MACHINE, reason=WHY)), {"jobs": "1"}),
        (reasons.launch_unanswered(MACHINE, "", NOW), {"waited": "1h 00m"}),
        (
            reasons.launch_unanswered(MACHINE, "Nope", NOW),
            {"waited": "1h 00m", "last_code": "Nope"},
        ),
        (reasons.launch_unclear(MACHINE, "Nope", 5), {"tries": "5", "last_code": "Nope"}),
        (reasons.boot_failed(MACHINE, NOW), {"waited": "1h 00m"}),
        (reasons.silent(MACHINE, NOW), {"silent": "10s"}),
        (reasons.unknown(sighting(), NOW), {"provider_id": "i-m-1", "age": "1h 00m"}),
        (reasons.idle(MACHINE, 330, 300), {"idle_s": "330", "idle_timeout_s": "300"}),
        (reasons.max_lifetime(MACHINE, 60), {"max_lifetime_s": "60"}),
        (reasons.superfluous(L4, 3), {"machines": "3", "maximum": "2"}),
        (
            reasons.queue_report("q", waiting=6, ripe=5, ready=1, booting=2, bought_for=3, left=0),
            {
                "waiting": "6",
                "ripe": "5",
                "ready": "1",
                "booting": "2",
                "bought_for": "3",
                "left": "0",
            },
        ),
    ],
    ids=lambda each: None,
)
def test_the_figures_of_a_sentence_come_with_it(reason: Reason, numbers: dict[str, str]) -> None:
    """Exact, for programs; the sentence may round."""
    assert dict(reason.numbers) == numbers


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.9, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (3600, "1h 00m"),
        (3900, "1h 05m"),
        (86_399, "23h 59m"),
        (86_400, "1d 0h"),
        (183_600, "2d 3h"),
    ],
)
def test_spans_are_written_as_people_say_them(seconds: float, text: str) -> None:
    """Rounded down: a time that is not over is not said to be."""
    assert reasons.span(seconds) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        ("0", "0.00 USD"),
        ("0.05", "0.05 USD"),
        ("0.0499", "0.0499 USD"),
        ("0.00012", "0.0001 USD"),
        ("-0.01", "-0.0100 USD"),
        ("-3", "-3.00 USD"),
        ("1234.5", "1234.50 USD"),
    ],
)
def test_money_is_written_to_the_cent_where_cents_say_something(usd: str, text: str) -> None:
    """Below five cents to the hundredth of a cent."""
    assert reasons.money(USD(usd)) == text


@pytest.mark.parametrize(
    ("need", "text"),
    [
        (Need(), "a machine"),
        (Need(share_ppm=1_000_000), "a machine"),
        (Need(gpus=1), "1 x any GPU"),
        (Need(gpus=2, gpu_name="L4", gpu_memory_gib=24), "2 x L4 with 24 GiB"),
        (Need(cpus=1), "1 CPU"),
        (Need(cpus=4, memory_mib=1536), "4 CPUs, 1.5 GiB memory"),
        (Need(disk_gib=50, on_demand_only=True), "50 GiB disk, on-demand capacity"),
        (
            Need(gpus=1, cpus=2, memory_mib=16_384, disk_gib=9),
            "1 x any GPU, 2 CPUs, 16 GiB memory, 9 GiB disk",
        ),
    ],
)
def test_a_need_in_words(need: Need, text: str) -> None:
    """Only what is stated."""
    assert reasons.need_text(need) == text
