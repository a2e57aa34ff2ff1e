"""How long what was refused rests, class by class."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from control_plane.core.cooldowns import (
    api_key,
    last_refusal,
    next_boot_failure,
    next_rest,
    next_throttle,
    rest_key,
    rests,
    throttled,
)
from control_plane.core.model import Cooldown, ErrorClass, Offer
from tests.build import NOW, ahead, cooldown, machine, offer, on_demand

E = ErrorClass
EXACT = "aws/us-east-1/us-east-1a/g6.1x/spot"


def rested(
    error_class: ErrorClass,
    *,
    what: Offer | None = None,
    before: Cooldown | None = None,
    retry_after_s: float | None = None,
) -> Cooldown:
    return next_rest(
        what or offer(),
        error_class,
        "Code",
        before=before,
        retry_after_s=retry_after_s,
        now=NOW,
    )


@pytest.mark.parametrize(
    ("error_class", "key"),
    [
        (E.CAPACITY_ZONE, EXACT),
        (E.CAPACITY_REGION, "aws/us-east-1/*/g6.1x/spot"),
        (E.QUOTA, EXACT),
        (E.AUTH, "aws/us-east-1/*"),
        (E.INVALID, EXACT),
        (E.THROTTLE, "aws/us-east-1/*"),
        (E.TRANSIENT, EXACT),
    ],
)
def test_what_rests(error_class: ErrorClass, key: str) -> None:
    """One offer, the same in its whole region, all of a region, or the whole cloud: as far as the
    refusal reaches."""
    assert rest_key(offer(), error_class) == key
    assert rested(error_class).key == key


@pytest.mark.parametrize(
    ("error_class", "waits"),
    [
        # First wait, doubled by each refusal in a row, up to the cap.
        (E.CAPACITY_ZONE, [180, 360, 720, 1440, 1800, 1800]),
        (E.CAPACITY_REGION, [600, 1200, 2400, 3600, 3600]),
        (E.QUOTA, [600, 1200, 2400, 4800, 9600, 19_200, 21_600]),
        (E.AUTH, [900, 900]),
        (E.INVALID, [86_400, 86_400]),
        (E.THROTTLE, [1, 2, 4, 8, 16, 32, 60, 60]),
        (E.TRANSIENT, [1, 2, 4, 8, 16, 30, 30]),
    ],
)
def test_each_refusal_in_a_row_doubles_the_rest_up_to_the_cap(
    error_class: ErrorClass, waits: list[float]
) -> None:
    """Refused again in the moment in which the last rest ended."""
    before: Cooldown | None = None
    now = NOW
    for count, wait in enumerate(waits, start=1):
        before = next_rest(offer(), error_class, "Code", before=before, retry_after_s=None, now=now)
        assert before.until - now == timedelta(seconds=wait)
        assert (before.count, before.code, before.error_class) == (count, "Code", error_class)
        now = before.until


def test_a_missing_on_demand_machine_rests_longer_than_a_spot_machine() -> None:
    """Spot capacity comes and goes in minutes; 600 s, doubled up to an hour, on demand."""
    first = rested(E.CAPACITY_ZONE, what=on_demand())
    assert first.until == ahead(600)
    again = cooldown(first.key, left_s=0, count=9)
    assert rested(E.CAPACITY_ZONE, what=on_demand(), before=again).until == ahead(3600)


@pytest.mark.parametrize(
    ("ended_s_ago", "count"),
    [(0, 5), (1800, 5), (1801, 1)],  # the cap of spot capacity is 1800 s
)
def test_in_a_row_is_what_comes_before_the_longest_rest_has_passed(
    ended_s_ago: float, count: int
) -> None:
    """Four refusals so far; the fifth comes `ended_s_ago` after the last rest."""
    before = cooldown(EXACT, left_s=-ended_s_ago, count=4)
    assert rested(E.CAPACITY_ZONE, before=before).count == count


@pytest.mark.parametrize(("asked_s", "left_s"), [(None, 60), (59, 60), (61, 61)])
def test_refusals_of_calls_made_at_once_count_once(asked_s: float | None, left_s: float) -> None:
    """Sixteen launches that were under way together are one refusal, not sixteen in a row."""
    before = cooldown(EXACT, left_s=60, count=4)
    after = rested(E.CAPACITY_ZONE, before=before, retry_after_s=asked_s)
    assert after == replace(before, until=ahead(left_s))


@pytest.mark.parametrize(("asked_s", "wait_s"), [(None, 1), (0, 1), (0.5, 1), (7.5, 7.5)])
def test_what_the_cloud_asks_for_is_kept(asked_s: float | None, wait_s: float) -> None:
    """A `Retry-After` lengthens the rest and never shortens it."""
    assert rested(E.THROTTLE, retry_after_s=asked_s).until == ahead(wait_s)


def test_a_thousand_refusals_in_a_row_still_have_a_wait() -> None:
    """The doubling is bounded before it is computed."""
    before = cooldown(EXACT, left_s=0, count=100_000)
    assert rested(E.CAPACITY_ZONE, before=before).until == ahead(1800)


def test_a_refusal_of_another_class_begins_anew() -> None:
    """A hiccup after four times no capacity is the first hiccup."""
    before = cooldown(EXACT, left_s=0, count=4)
    assert rested(E.TRANSIENT, before=before).count == 1
    assert rested(E.TRANSIENT, before=before).until == ahead(1)


@pytest.mark.parametrize(("left_s", "kept"), [(2, True), (1, False), (0, False)])
def test_a_longer_rest_that_stands_is_kept(left_s: float, kept: bool) -> None:
    """A hiccup of one second does not cut short a lack of capacity, nor is it counted."""
    before = cooldown(EXACT, left_s=left_s, count=4)
    after = rested(E.TRANSIENT, before=before)
    assert (after is before) is kept
    assert after.until == ahead(max(left_s, 1))


# ------------------------------------------------------------------------------- throttling


@pytest.mark.parametrize(
    ("before", "retry_after_s", "wait_s", "count"),
    [
        (None, None, 1, 1),
        (None, 9.0, 9, 1),
        (cooldown("aws/*", left_s=0, error_class=E.THROTTLE, count=3), None, 8, 4),  # 1 * 2 ** 3
        (cooldown("aws/*", left_s=-61, error_class=E.THROTTLE, count=3), None, 1, 1),
    ],
)
def test_an_api_that_asks_for_fewer_calls_gets_fewer(
    before: Cooldown | None, retry_after_s: float | None, wait_s: float, count: int
) -> None:
    """The same doubling, for the whole API."""
    after = next_throttle("aws/*", "Slow", before=before, retry_after_s=retry_after_s, now=NOW)
    assert after == Cooldown(
        key="aws/*", error_class=E.THROTTLE, code="Slow", until=ahead(wait_s), count=count
    )


def test_the_key_of_an_api_is_its_cloud_or_one_region_of_it() -> None:
    """The same keys that rest after a refusal."""
    assert api_key("aws") == "aws/*"
    assert api_key("aws", "us-east-1") == "aws/us-east-1/*"


@pytest.mark.parametrize(
    ("key", "region", "changes", "left_out"),
    [
        ("aws/*", "", {}, True),
        ("aws/*", "us-east-1", {}, True),
        ("aws/us-east-1/*", "us-east-1", {}, True),
        ("aws/us-east-1/*", "", {}, False),  # the other regions may be called
        ("aws/us-west-2/*", "us-east-1", {}, False),
        ("gcp/*", "", {}, False),
        ("aws/*", "", {"left_s": 0}, False),
        ("aws/*", "", {"error_class": E.AUTH}, False),  # rests, but for another reason
    ],
)
def test_calls_are_left_out_only_where_there_were_too_many(
    key: str, region: str, changes: dict[str, Any], left_out: bool
) -> None:
    """And only while that rest lasts."""
    rest = cooldown(key, **{"error_class": E.THROTTLE} | changes)
    assert throttled("aws", region, {key: rest}, NOW) is left_out


BOOT = "boot/l4/" + EXACT


@pytest.mark.parametrize(
    ("before", "count"),
    [
        (None, 1),
        (cooldown(BOOT, left_s=1, count=2), 3),
        (cooldown(BOOT, left_s=0, count=2), 1),  # forgotten in this very moment
    ],
)
def test_boot_failures_are_counted_while_the_last_one_is_remembered(
    before: Cooldown | None, count: int
) -> None:
    """Each is remembered for the window; the breaker opens by the count."""
    failed = next_boot_failure(machine(), before=before, window_s=3600, now=NOW)
    assert failed == Cooldown(
        key=BOOT, error_class=E.TRANSIENT, code="boot-failed", until=ahead(3600), count=count
    )


@pytest.mark.parametrize(
    ("key", "left_s", "resting"),
    [
        (EXACT, 1, True),
        (EXACT, 0, False),  # over in the moment in which it ends
        ("aws/us-east-1/*", 1, True),
        ("aws/*", 1, True),
        ("aws/us-west-2/*", 1, False),
        ("gcp/*", 1, False),
        ("aws/us-east-1/us-east-1b/g6.1x/spot", 1, False),
        ("aws/us-east-1/us-east-1a/g6.1x/on-demand", 1, False),
    ],
)
def test_an_offer_rests_with_its_key_its_region_or_its_cloud(
    key: str, left_s: float, resting: bool
) -> None:
    """And with nothing else."""
    found = rests(offer(), {key: cooldown(key, left_s=left_s)}, NOW)
    assert [each.key for each in found] == ([key] if resting else [])


def test_all_reasons_to_rest_are_told() -> None:
    """The caller picks the one that lasts longest."""
    keys = (EXACT, "aws/us-east-1/*", "aws/*")
    assert len(rests(offer(), {key: cooldown(key) for key in keys}, NOW)) == 3


def test_the_last_refusal_is_the_one_that_ended_last() -> None:
    """Over or not; empty where there is none."""
    cooldowns = {
        EXACT: cooldown(EXACT, left_s=-500, code="First"),
        "aws/us-east-1/*": cooldown("aws/us-east-1/*", left_s=-5, code="Last"),
        "gcp/*": cooldown("gcp/*", code="Elsewhere"),
    }
    assert last_refusal(offer(), cooldowns) == "Last"
    assert last_refusal(offer(), {EXACT: cooldowns[EXACT]}) == "First"
    assert last_refusal(offer(), {"gcp/*": cooldowns["gcp/*"]}) == ""


def test_a_lack_in_a_region_rests_one_type_and_market_in_all_its_zones() -> None:
    known = {rest.key: rest for rest in [rested(E.CAPACITY_REGION)]}
    same = offer(zone="us-east-1c")
    others = [replace(offer(), instance_type="g6.2x"), on_demand(), offer(region="eu-west-1")]
    assert rests(same, known, NOW)
    assert not any(rests(each, known, NOW) for each in others)
