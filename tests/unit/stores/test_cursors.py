"""Cursors belong to one query, and nothing that was touched passes for one."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.errors import InvalidInput
from control_plane.stores import cursors

SCOPE = ("jobs", "q", "")
KEY = (1, -2.5, "j-1")
keys = st.tuples(
    st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=20)
)


@given(keys)
def test_a_cursor_reads_as_it_was_written(key: cursors.Key) -> None:
    assert cursors.read(SCOPE, cursors.write(SCOPE, key), (0, 0.0, "")) == key


@given(st.text(max_size=60))
def test_no_text_passes_by_chance(text: str) -> None:
    with pytest.raises(InvalidInput):
        cursors.read(SCOPE, text, KEY)


@given(st.data())
def test_no_single_character_can_be_changed(data: st.DataObject) -> None:
    cursor = cursors.write(SCOPE, KEY)
    at = data.draw(st.integers(0, len(cursor) - 1))
    new = data.draw(st.sampled_from([c for c in "Aa0-_=\n" if c != cursor[at]]))
    with pytest.raises(InvalidInput):
        cursors.read(SCOPE, cursor[:at] + new + cursor[at + 1 :], KEY)


@pytest.mark.parametrize(
    ("scope", "like"),
    [
        (("jobs", "other", ""), KEY),
        (("events", "q", ""), KEY),
        (("jobs", "q"), KEY),
        (SCOPE, (1, -2.5)),
        (SCOPE, (1, "x", "j-1")),
        (SCOPE, (1.0, -2.5, "j-1")),
        (SCOPE, ()),
    ],
)
def test_a_cursor_of_another_query_is_invalid(scope: cursors.Scope, like: cursors.Key) -> None:
    with pytest.raises(InvalidInput):
        cursors.read(scope, cursors.write(SCOPE, KEY), like)


@pytest.mark.parametrize("payload", ["5", "null", '{"a": 1}', "[1", ""])
def test_a_payload_that_is_no_key_is_invalid(payload: str) -> None:
    text = base64.urlsafe_b64encode(f"{'0' * 12}{payload}".encode()).decode().rstrip("=")
    with pytest.raises(InvalidInput):
        cursors.read(SCOPE, text, KEY)


@pytest.mark.parametrize(
    ("items", "limit", "shown", "more"),
    [("abc", 2, "ab", True), ("ab", 2, "ab", False), ("", 2, "", False), ("ab", 0, "", False)],
)
def test_a_page_has_a_cursor_when_there_is_more(
    items: str, limit: int, shown: str, more: bool
) -> None:
    page = cursors.page(SCOPE, items, limit, lambda item: (item,))
    assert page.items == tuple(shown)
    assert bool(page.cursor) is more
    if more:
        assert cursors.read(SCOPE, page.cursor, ("",)) == (shown[-1],)
