"""How a bucket fills, grows and shrinks."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.pacing import (
    AHEAD,
    LEAST,
    MOST,
    Bucket,
    Pace,
    can_slow,
    full,
    slowed,
    taken,
)
from tests.build import NOW, ahead

PACE = Pace(per_s=2.0, burst=10.0)
KEY = "aws/us-east-1/launches"


def bucket(tokens: float, *, per_s: float = 2.0, short: bool = False) -> Bucket:
    return Bucket(key=KEY, version=3, tokens=tokens, per_s=per_s, at=NOW, short=short)


def test_the_first_calls_are_as_many_as_the_cloud_takes_at_once() -> None:
    left, got = taken(full(KEY, PACE, NOW), PACE, 25, NOW)
    assert (got, left.tokens, left.per_s, left.short) == (10, 0, 2.0, True)


@pytest.mark.parametrize(
    ("tokens", "later_s", "want", "got", "left"),
    [
        (0, 0, 1, 0, 0.0),
        (0.5, 0.25, 1, 1, 0.0),
        (0, 1.25, 5, 2, 0.5),
        (3, 0, 2, 2, 1.0),
        (3, 3600, 2, 2, 8.0),  # never more than the burst
        (3, -60, 4, 3, 0.0),  # a clock that went back
    ],
)
def test_it_fills_by_its_rate(
    tokens: float, later_s: float, want: int, got: int, left: float
) -> None:
    after, taken_ = taken(bucket(tokens), PACE, want, ahead(later_s))
    assert (taken_, after.tokens) == (got, pytest.approx(left))
    assert after.at == max(NOW, ahead(later_s))
    assert after.short is (got < want)


@pytest.mark.parametrize(
    ("short", "later_s", "per_s"),
    [
        (False, 3, 2.0),
        (True, 3, 2.6),  # a tenth of 2.0 for each second
        (True, 60, 3.0),  # five seconds at most
    ],
)
def test_it_grows_while_more_is_wanted_than_there_is(
    short: bool, later_s: float, per_s: float
) -> None:
    after, _ = taken(bucket(0, short=short), PACE, 1, ahead(later_s))
    assert after.per_s == pytest.approx(per_s)


def test_a_refusal_empties_and_slows_it() -> None:
    after = slowed(bucket(7, per_s=10.0, short=True), PACE, ahead(1))
    assert after == replace(bucket(0, per_s=7.0), at=ahead(1))


def test_a_slower_bucket_holds_as_much_less() -> None:
    for per_s, most in ((2.0, 10), (1.4, 7), (0.25, 1), (6.0, 10)):
        _, got = taken(bucket(0, per_s=per_s), PACE, 50, ahead(3600))
        assert got == most


def test_it_slows_no_further_than_the_least() -> None:
    slow = bucket(0)
    while can_slow(slow, PACE):
        slow = slowed(slow, PACE, NOW)
    assert slow.per_s == PACE.per_s * LEAST
    assert slowed(slow, PACE, NOW).per_s == slow.per_s


def test_a_refusal_of_an_earlier_moment_does_not_turn_it_back() -> None:
    assert slowed(bucket(7), PACE, ahead(-5)).at == NOW


@pytest.mark.parametrize("refused", [False, True])
def test_a_clock_that_was_an_hour_ahead_does_not_hold_it_up_for_an_hour(refused: bool) -> None:
    now = ahead(-3600)
    first = slowed(bucket(0), PACE, now) if refused else taken(bucket(0), PACE, 1, now)[0]
    _, got = taken(first, PACE, 1, now + AHEAD + timedelta(seconds=1))
    assert got == 1


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100), st.integers(1, 50)), max_size=50))
def test_it_stays_within_its_bounds(steps: list[tuple[bool, float, int]]) -> None:
    """Whatever comes: never below an eighth of the documented rate, never above twenty times, never
    more tokens than fit, never more given out than rate and burst allow."""
    held, now_s, given_out, allowed = full(KEY, PACE, NOW), 0.0, 0, PACE.burst
    for refused, later_s, want in steps:
        now_s += later_s
        allowed += later_s * MOST * PACE.per_s
        if refused:
            held = slowed(held, PACE, ahead(now_s))
        else:
            held, got = taken(held, PACE, want, ahead(now_s))
            given_out += got
        assert PACE.per_s * LEAST <= held.per_s <= PACE.per_s * MOST
        assert 0 <= held.tokens <= PACE.burst
        assert given_out <= allowed


def test_a_steady_limit_is_found() -> None:
    """Against a cloud that takes 12 a second: within a minute it gives between 7 and 13 a second,
    and few are refused."""
    held, left, refused, served = full(KEY, PACE, NOW), 12.0, 0, []
    for second in range(240):
        left = min(left + 12, 24)
        held, got = taken(held, PACE, 1000, ahead(second))
        passed = min(got, int(left))
        left -= passed
        if got > passed:
            refused += got - passed
            held = slowed(held, PACE, ahead(second))
        served.append(passed)
    settled = served[60:]
    assert 7 <= sum(settled) / len(settled) <= 13
    assert refused < sum(served) * 0.05
