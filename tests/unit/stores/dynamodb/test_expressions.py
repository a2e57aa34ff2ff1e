"""Expressions are sent as written, and a change is computed as DynamoDB carries it out."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.stores.dynamodb.client import TableClient
from control_plane.stores.dynamodb.expressions import Change, Expression, Rendering, expr
from control_plane.stores.dynamodb.items import encode_item
from tests.unit.stores.dynamodb.conftest import STEADY

_keys = count()


@pytest.mark.parametrize(
    ("expression", "text", "values"),
    [
        (expr("status = :st", st="queued"), "#status = :0", {":0": {"S": "queued"}}),
        (expr("attribute_not_exists(pk)"), "attribute_not_exists(#pk)", {}),
        (
            expr("NOT (size IN (:a, :b)) OR size(size) > :a", a=1, b=2),
            "NOT (#size IN (:0, :1)) OR size(#size) > :2",
            {":0": {"N": "1"}, ":1": {"N": "2"}, ":2": {"N": "1"}},
        ),
        (
            expr("a.b[3] BETWEEN :x AND c", x="x"),
            "#a.#b[3] BETWEEN :0 AND #c",
            {":0": {"S": "x"}},
        ),
    ],
)
def test_names_and_values_travel_beside_the_text(
    expression: Expression, text: str, values: Any
) -> None:
    rendering = Rendering()
    assert rendering.text(expression) == text
    assert rendering.parameters().get("ExpressionAttributeValues", {}) == values
    names = rendering.parameters()["ExpressionAttributeNames"]
    assert names == {f"#{name}": name for name in names.values()}


def test_a_value_that_was_forgotten_is_named() -> None:
    with pytest.raises(KeyError, match="st"):
        Rendering().text(expr("status = :st"))


def test_an_assignment_of_nothing_takes_the_attribute_away() -> None:
    change = Change(assign={"a": None, "b": 1, "c": frozenset()}, remove=("d",))
    rendering = Rendering()
    assert change.text(rendering) == "SET #b = :0 REMOVE #a, #c, #d"
    old = encode_item({"a": 1, "b": 0, "c": {"x"}, "d": 1})
    assert change.applied(old) == encode_item({"b": 1})


texts = st.text(max_size=5)
numbers = st.integers(-(10**15), 10**15) | st.floats(-1e9, 1e9).filter(lambda x: abs(x) > 1e-9)
members = st.frozensets(st.text("abcd", min_size=1, max_size=1), min_size=1)
olds = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("n1", "n2", "n3"), numbers),
        **dict.fromkeys(("s1", "s2", "s3"), members),
        **dict.fromkeys(("t1", "t2"), texts),
    },
)
changes = st.builds(
    Change,
    assign=st.dictionaries(st.sampled_from(["n1", "s1", "t1"]), texts | numbers | st.none()),
    add=st.fixed_dictionaries({"n2": numbers}, optional={"s2": members}),
    discard=st.dictionaries(st.just("s3"), members),
    remove=st.lists(st.sampled_from(["t2", "n3"]), unique=True).map(tuple),
)


@given(old=olds, change=changes)
@STEADY
def test_a_change_is_what_dynamodb_does(
    table: TableClient, old: dict[str, Any], change: Change
) -> None:
    key = str(next(_keys))
    table.put({"pk": key, "sk": "x", **old})
    new = table.update(
        key,
        "x",
        assign=change.assign,
        add=change.add,
        discard=change.discard,
        remove=change.remove,
    )
    assert new == table.get(key, "x")


@pytest.mark.parametrize(
    ("change", "repeatable"),
    [
        (Change(assign={"a": 1}, remove=("b",), discard={"c": frozenset("x")}), True),
        (Change(add={"s": frozenset("x")}), True),
        (Change(add={"n": 1}), False),
    ],
)
def test_only_counting_must_not_happen_twice(change: Change, repeatable: bool) -> None:
    assert change.repeatable is repeatable
