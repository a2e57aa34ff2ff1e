"""Keys sort as they must and give back what went in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.errors import InvalidInput
from control_plane.stores.dynamodb import layout as at

PLACES = st.tuples(
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15),
    st.text("abcdefgh0123456789-", min_size=1, max_size=8),
)
NAMES = st.text("abc#-_.", min_size=1, max_size=12)
TIMES = st.integers(1, 1 << 54).map(at.moment)


@given(PLACES, PLACES)
def test_the_line_sorts_by_priority_then_position_then_id(
    one: tuple[int, float, str], other: tuple[int, float, str]
) -> None:
    texts = at.line_sort(*one), at.line_sort(*other)
    assert at.line_place(texts[0]) == one
    assert (texts[0] < texts[1]) == ((-one[0], *one[1:]) < (-other[0], *other[1:]))
    assert texts[0].startswith(at.priority_prefix(one[0]))


@pytest.mark.parametrize("priority", [2**34, -(2**34), 10**12])
def test_a_priority_that_has_no_place_is_invalid(priority: int) -> None:
    with pytest.raises(InvalidInput):
        at.line_sort(priority, 1.0, "j-1")


@given(TIMES, TIMES, NAMES, PLACES)
def test_what_is_held_back_sorts_by_time(
    one: datetime, other: datetime, queue: str, place: tuple[int, float, str]
) -> None:
    sorts = [at.parked_sort(each, "d", queue, at.line_sort(*place)) for each in (one, other)]
    assert at.parked_place(sorts[0]) == (one, "d", queue, at.line_sort(*place))
    if one != other:
        assert (sorts[0] < sorts[1]) == (one < other)


@given(TIMES)
def test_times_come_back_to_the_microsecond(moment: datetime) -> None:
    assert at.moment(at.stamp(moment)) == moment
    zone = moment.astimezone(tz=None)
    assert at.stamp(zone) == at.stamp(moment)


@given(st.text("ab:-0", min_size=1, max_size=9), st.integers(1, 10**6), TIMES)
def test_tokens_come_back(job_id: str, epoch: int, moment: datetime) -> None:
    second = int(moment.timestamp())
    assert at.token_parts(at.token(job_id, epoch, second)) == (job_id, epoch, second)
    mark = at.entry_mark(second, 2**20 - 1)
    assert at.token_parts(at.entry(job_id, epoch, mark)) == (job_id, epoch, mark)
    assert at.entry_second(mark) == second


def test_a_job_is_found_from_its_id_alone_under_the_day_it_carries() -> None:
    partition, sort = at.job_key("j-1m7xxsqk00000")
    assert sort == "j-1m7xxsqk00000"
    assert partition.startswith(f"J#{at.job_day(sort)}#")
    assert at.job_key("nightly")[0].startswith("J#00000000#")
    shards = {at.job_key(f"j-{number}")[0] for number in range(100)}
    assert len(shards) == at.SHARDS


def test_the_run_of_a_machine_stands_right_behind_its_record() -> None:
    keys = [at.machine_key("m-1"), at.run_key("m-1"), at.machine_key("m-1-x"), at.run_key("m-1-x")]
    assert sorted([*keys, at.machine_key("m-10"), at.machine_key("m-0")])[1:5] == keys


def test_days_are_those_of_utc() -> None:
    late = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
    assert (at.day(late), at.day(late + timedelta(hours=1))) == ("20260301", "20260302")
