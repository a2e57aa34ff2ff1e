"""Ids say when they were made, and follow from keys that say it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.job_ids import ALPHABET, base32, id_for, made_at, number
from control_plane.system import TimeOrderedIds

NOON = datetime(2026, 3, 1, 12, 0, 0, 125_000, tzinfo=UTC)
TIMES = st.integers(0, 2_500_000_000_000_000).map(
    lambda microseconds: datetime(2020, 1, 2, tzinfo=UTC) + timedelta(microseconds=microseconds)
)
"""Until 2099."""


def uuid7(at: datetime, rest: int = 0) -> str:
    milliseconds = int(at.timestamp() * 1000)
    return str(UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | rest))


@given(st.integers(0, 2**60 - 1), st.integers(0, 2**60 - 1))
def test_numbers_come_back_and_their_texts_sort_like_them(one: int, other: int) -> None:
    texts = base32(one, 12), base32(other, 12)
    assert (number(texts[0]), number(texts[1])) == (one, other)
    assert (texts[0] < texts[1]) == (one < other)


def test_a_letter_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not found"):
        number("u")


@given(TIMES)
def test_an_id_tells_its_millisecond(at: datetime) -> None:
    made = made_at(TimeOrderedIds(lambda: at).new("j"))
    assert made is not None
    assert abs(made - at) <= timedelta(milliseconds=1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "j-1",
        "j-0000000000000",  # 1970
        "j-zzzzzzzzzzzzz",  # the year 3084
        "j-3zzzzzzzz0000",  # the year 2109
        "J-1jqd0wzcm0000",
        "1jqd0wzcm0000",
        "j-1jqd0wzcu0000",
        "j-1jqd0wzcm000",
        "j-1jqd0wzcm000000000",
    ],
)
def test_other_ids_tell_nothing(text: str) -> None:
    assert made_at(text) is None


@given(TIMES, st.integers(0, 2**62 - 1), st.sampled_from(["", "ci/build-", "a b:"]))
def test_a_key_with_a_time_has_an_id_of_that_time(at: datetime, rest: int, prefix: str) -> None:
    key = prefix + uuid7(at, rest)
    job_id = id_for(key)
    assert job_id is not None
    assert len(job_id) <= 40
    assert set(job_id.removeprefix("j-")) <= set(ALPHABET)
    made = made_at(job_id)
    assert made is not None
    assert timedelta(0) <= at - made < timedelta(milliseconds=1)
    assert id_for(key) == job_id


def test_two_keys_of_one_millisecond_have_two_ids() -> None:
    found = {id_for(uuid7(NOON, number)) for number in range(1000)}
    assert len(found) == 1000
    assert {made_at(each) for each in found if each} == {NOON}


def test_the_same_uuid_under_another_prefix_is_another_key() -> None:
    assert id_for("a/" + uuid7(NOON)) != id_for("b/" + uuid7(NOON))


@pytest.mark.parametrize(
    "key",
    [
        "nightly",
        "",
        "0193f5a0-0000-4000-8000-000000000000",  # version 4
        "0193f5a0-0000-7000-c000-000000000000",  # another variant
        "0193f5a0-0000-7000-8000-000000000000x",
        "00000000-0000-7000-8000-000000000000",  # 1970
        "ffffffff-ffff-7fff-bfff-ffffffffffff",  # far beyond any datetime
        "03c00000-0000-7000-8000-000000000000",  # the year 2100 and later
    ],
)
def test_keys_without_a_time_have_no_id(key: str) -> None:
    assert id_for(key) is None
