"""Values survive the way to DynamoDB and back."""

from __future__ import annotations

import random
from collections import OrderedDict
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.stores.dynamodb.client import TableClient
from control_plane.stores.dynamodb.items import decode, decode_item, encode, encode_item
from tests.unit.stores.dynamodb.conftest import STEADY

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(10**37), 10**37)
    | st.floats(-9e125, 9e125).filter(lambda x: x == 0 or abs(x) >= 1e-130)
    | st.text()
    | st.binary()
    | st.frozensets(st.text(), min_size=1)
)
values = st.recursive(leaves, lambda some: st.lists(some) | st.dictionaries(st.text(), some))


@STEADY
@given(values)
def test_any_value_comes_back(value: Any) -> None:
    assert decode(encode(value)) == value


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        ("a", {"S": "a"}),
        (Colour.RED, {"S": "red"}),
        (True, {"BOOL": True}),
        (1, {"N": "1"}),
        (0.1, {"N": "0.1"}),
        (2.0, {"N": "2"}),
        (3.6e16, {"N": "36000000000000000"}),
        (1.5e-9, {"N": "1.5e-09"}),
        (1e40, {"N": "1e+40"}),
        (Decimal("1.50"), {"N": "1.50"}),
        (b"a", {"B": b"a"}),
        (("a", 1), {"L": [{"S": "a"}, {"N": "1"}]}),
        (OrderedDict(a=None), {"M": {"a": {"NULL": True}}}),
        ({"b", "a"}, {"SS": ["a", "b"]}),
    ],
)
def test_each_kind_of_value_has_its_spelling(value: Any, wire: Any) -> None:
    assert encode(value) == wire


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3", 3),
        ("-3", -3),
        ("0.25", 0.25),
        ("-0.25", -0.25),
        ("1E+3", 1000),
        ("12345678901234567890123456789012345678", 12345678901234567890123456789012345678),
        ("-12345678901234567890123456789012345678", -12345678901234567890123456789012345678),
    ],
)
def test_whole_numbers_are_read_as_int_and_others_as_float(text: str, number: int | float) -> None:
    read = decode({"N": text})
    assert read == number
    assert type(read) is type(number)


def test_what_is_absent_is_left_out() -> None:
    assert encode_item({"a": None, "b": frozenset(), "c": "", "d": [], "e": 0}) == {
        "c": {"S": ""},
        "d": {"L": []},
        "e": {"N": "0"},
    }


def test_the_token_of_the_last_write_is_not_shown() -> None:
    assert decode_item({"a": {"S": "x"}, "w": {"S": "token"}}) == {"a": "x"}
    assert decode_item({"a": {"M": {"w": {"S": "mine"}}}}) == {"a": {"w": "mine"}}


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), Decimal("NaN"), 1e127, -1e-131, 10**38]
)
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="no number"):
        encode(value)


@pytest.mark.parametrize("value", [object(), {1, 2}, [frozenset()]])
def test_what_dynamodb_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="DynamoDB"):
        encode(value)


def test_floats_come_back_exactly_from_a_real_table(table: TableClient) -> None:
    chance = random.Random(7)
    floats = [chance.uniform(-1, 1) * 10.0 ** chance.randint(-125, 125) for _ in range(500)]
    table.put({"pk": "a", "sk": "b", "floats": floats, "ints": [2**100, -(2**63), 0]})
    found = table.get("a", "b")
    assert found is not None
    assert found["floats"] == floats
    assert found["ints"] == [2**100, -(2**63), 0]
