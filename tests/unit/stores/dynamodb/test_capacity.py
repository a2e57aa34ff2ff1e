"""What calls cost, by hand for reads and by ministack's own count for writes.

ministack counts writes as DynamoDB does; its count of a query is the same for any size, so reads
are held against sums done on paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.ports import OperationFigures
from control_plane.stores.dynamodb.calls import Client, ConditionFailed, TransactionRefused
from control_plane.stores.dynamodb.capacity import get_units, item_size, query_units, write_units
from control_plane.stores.dynamodb.client import Check, Delete, Put, TableClient, Update
from control_plane.stores.dynamodb.expressions import ABSENT, PRESENT, Change, expr
from control_plane.stores.dynamodb.items import encode_item
from tests.unit.stores.dynamodb.conftest import READY, STEADY

NAMES = {"pk": "a", "sk": "b"}  # 2 + 1 + 2 + 1 bytes


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("abc", 3),
        ("ä€", 5),
        ("", 0),
        (b"\x00\x01", 2),
        (True, 1),
        (7, 2),  # one pair, and 1
        (1234, 3),
        (12345, 4),
        (1200, 2),  # zeros at the end are trimmed
        (1732250000.25, 7),  # 17 32 25 00 00 . 25, and 1
        (0.001, 2),  # . 00 10, of which the first is trimmed
        (123.4, 4),  # 01 23 . 40
        (-7, 3),
        (0, 1),
        (["a", None], 3 + (1 + 1) + (1 + 1)),
        ({"ab": "c"}, 3 + 1 + 2 + 1),
        ([], 3),
        (frozenset({"a", "bc"}), 3),
    ],
)
def test_the_size_of_a_value(value: Any, size: int) -> None:
    assert item_size(encode_item({"n": value})) == 1 + size


def item(size: int, **more: Any) -> dict[str, Any]:
    """An item of exactly so many bytes."""
    rest = item_size(encode_item({**NAMES, **more})) + len("pad")
    return {**NAMES, **more, "pad": "x" * (size - rest)}


@pytest.mark.parametrize(
    ("size", "strong", "eventual"),
    [(6, 1, 0.5), (4096, 1, 0.5), (4097, 2, 1), (9000, 3, 1.5), (400_000, 98, 49)],
)
def test_a_get_costs_a_unit_for_each_4_kb(size: int, strong: float, eventual: float) -> None:
    wire = encode_item(item(size) if size > 6 else NAMES)
    assert item_size(wire) == size
    assert get_units(wire, consistent=True) == strong
    assert get_units(wire, consistent=False) == eventual


def test_getting_nothing_costs_the_least() -> None:
    assert get_units(None, consistent=True) == 1
    assert get_units(None, consistent=False) == 0.5


@pytest.mark.parametrize(
    ("count", "size", "strong", "eventual"),
    [(0, 0, 1, 0.5), (20, 1000, 5, 2.5), (20, 1024, 5, 2.5), (22, 180, 1, 0.5), (23, 180, 2, 1)],
)
def test_a_page_is_rounded_up_once(count: int, size: int, strong: float, eventual: float) -> None:
    page = [encode_item(item(size))] * count if count else []
    assert query_units(page, consistent=True) == strong
    assert query_units(page, consistent=False) == eventual


SMALL = {"gp": "q", "gs": "1", "nd": "x"}


@pytest.mark.parametrize(
    ("old", "new", "units"),
    [
        (None, item(500), 1),
        (None, item(1024), 1),
        (None, item(1025), 2),
        (item(3500), item(100), 4),
        (item(100), item(3500), 4),
        (item(3500), None, 4),
        (None, None, 1),
        (None, item(500, **SMALL), 1 + 1),
        (item(500, **SMALL), None, 1 + 1),
        (item(500, **SMALL), item(500), 1 + 1),
        (item(500, **SMALL), item(500, **{**SMALL, "gs": "2"}), 1 + 2),
        (item(500, **SMALL), item(500, **{**SMALL, "nd": "y"}), 1 + 1),
        (item(500, **SMALL), item(600, **SMALL), 1 + 0),
        (item(500, gp="q"), item(500, gp="r"), 1 + 0),
        (None, item(2500, **{**SMALL, "nd": "x" * 2000}), 3 + 2),
        (item(2500, **SMALL), item(2500, **{**SMALL, "nd": "x" * 2000}), 3 + 2),
        (
            item(2500, **{**SMALL, "nd": "x" * 2000}),
            item(2500, **{**SMALL, "gs": "2"}),
            3 + 2 + 1,
        ),
    ],
)
def test_a_write_costs_the_larger_of_both_and_what_its_index_row_does(
    old: dict[str, Any] | None, new: dict[str, Any] | None, units: float
) -> None:
    before, after = (each and encode_item(each) for each in (old, new))
    assert write_units(before, after, [READY]) == units


class Bill:
    """What ministack charged for the writes of a client since the last look."""

    def __init__(self, client: Client) -> None:
        self.units = 0.0
        self._client = client
        for action in ("PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem"):
            self._on(f"provide-client-params.dynamodb.{action}", self._ask)
            self._on(f"after-call.dynamodb.{action}", self._add)

    def _on(self, event: str, hear: Any) -> None:
        self._client.meta.events.register(event, hear, unique_id=f"{event}-{id(self)}")

    def _ask(self, params: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {**params, "ReturnConsumedCapacity": "TOTAL"}

    def _add(self, parsed: dict[str, Any], **_: Any) -> None:
        told = parsed.get("ConsumedCapacity", [])
        for each in told if isinstance(told, list) else [told]:
            self.units += each["CapacityUnits"]

    def forget(self) -> None:
        for event in ("provide-client-params", "after-call"):
            for action in ("PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem"):
                name = f"{event}.dynamodb.{action}"
                self._client.meta.events.unregister(name, unique_id=f"{name}-{id(self)}")


@pytest.fixture
def bill(dynamodb: Client) -> Iterator[Bill]:
    made = Bill(dynamodb)
    yield made
    made.forget()


def total(table: TableClient) -> OperationFigures:
    return table.figures.read()["other"]


sizes = st.text("x", max_size=10) | st.integers(900, 3000).map(lambda n: "y" * n)
attributes = st.fixed_dictionaries(
    {},
    optional={
        "gp": st.sampled_from("qr"),
        "gs": st.sampled_from("12"),
        "nd": sizes,
        "sz": st.integers(-1000, 10**20) | st.floats(0.001, 1e6),
        "pad": sizes,
        "fl": st.frozensets(st.sampled_from("abc")),
        "li": st.lists(sizes, max_size=2),
    },
)


@given(writes=st.lists(st.tuples(st.sampled_from(["put", "assign", "delete"]), attributes)))
@STEADY
def test_any_writes_cost_what_ministack_charges(
    table: TableClient, bill: Bill, writes: list[tuple[str, dict[str, Any]]]
) -> None:
    table.put(NAMES)
    for verb, values in writes:
        if verb == "put":
            table.put({**NAMES, **values})
        elif verb == "delete":
            table.delete("a", "b")
        else:
            gone = dict.fromkeys(("gp", "pad"))
            table.update("a", "b", assign={**gone, **values}, add={"hits": 1})
        assert total(table).write_units == bill.units


def test_a_batch_of_new_items_costs_what_ministack_charges(table: TableClient, bill: Bill) -> None:
    table.batch_put({**item(100 + 50 * n, **SMALL), "sk": str(n)} for n in range(60))
    assert total(table).write_units == bill.units > 60 * 2


def test_transactions_cost_double(table: TableClient) -> None:
    table.put({"pk": "a", "sk": "1", "pad": "x" * 1500})  # 2
    table.put({"pk": "a", "sk": "2"})  # 1
    table.transact(
        Put(item={"pk": "a", "sk": "3", "pad": "x" * 2500}, condition=ABSENT),  # 3 x 2
        Update(key=("a", "1"), change=Change(assign={"n": 1}), condition=PRESENT),  # 2 x 2
        Delete(key=("a", "2")),  # 1 x 2
        Check(key=("a", "4"), condition=ABSENT),  # 1 x 2
    )
    assert total(table).write_units == 3 + 2 * (3 + 2 + 1 + 1)


def test_a_refused_write_costs_the_item_that_is_there(table: TableClient) -> None:
    table.put({**item(3500), **SMALL})
    before = total(table)
    with pytest.raises(ConditionFailed):
        table.put(NAMES, condition=ABSENT)
    with pytest.raises(ConditionFailed):
        table.update("z", "z", assign={"a": 1}, condition=PRESENT)
    with pytest.raises(ConditionFailed):
        table.delete("a", "b", condition=expr("nd = :x", x="other"))
    after = total(table)
    assert after.write_units - before.write_units == 4 + 1 + 4
    assert after.conflicts - before.conflicts == 3


def test_a_refused_transaction_costs_double_what_is_there(table: TableClient) -> None:
    table.put(item(1500))
    with pytest.raises(TransactionRefused):
        table.transact(Put(item=NAMES, condition=ABSENT), Delete(key=("a", "c")))
    assert total(table).write_units == 2 + 2 * (2 + 1)
    assert total(table).conflicts == 1


def test_reads_are_counted_by_size(table: TableClient) -> None:
    table.batch_put({**item(1000, **SMALL), "sk": f"{n:02}"} for n in range(20))
    reads = 0.0

    def cost() -> float:
        nonlocal reads
        before, reads = reads, total(table).read_units
        return reads - before

    list(table.query("a"))
    assert cost() == 2.5  # 20,020 bytes, eventually consistent
    list(table.query("a", consistent=True))
    assert cost() == 5
    list(table.query("a", page_size=10))  # 10,010 bytes twice, and an empty third page
    assert cost() == 1.5 + 1.5 + 0.5
    list(table.query("q", index=READY))  # 20 rows of 19 bytes
    assert cost() == 0.5
    list(table.query("nobody"))
    assert cost() == 0.5
    table.get("a", "00")
    table.get("a", "00", consistent=False)
    table.get("a", "none", consistent=False)
    assert cost() == 1 + 0.5 + 0.5
    table.batch_get([("a", "00"), ("a", "01"), ("a", "none")])
    assert cost() == 3
    table.batch_get([("a", "00"), ("a", "none")], consistent=False)
    assert cost() == 1


def test_of_a_filtered_page_dynamodbs_own_count_is_the_better_one(
    table: TableClient, dynamodb: Client
) -> None:
    table.batch_put({**item(1000), "sk": f"{n:02}"} for n in range(20))

    def tell(parsed: dict[str, Any], **_: Any) -> None:
        parsed["ConsumedCapacity"] = {"CapacityUnits": 2.5}

    dynamodb.meta.events.register("after-call.dynamodb.Query", tell)
    try:
        assert list(table.query("a", filter=expr("sk2 = :x", x=1))) == []
        assert total(table).read_units == 2.5
        assert len(list(table.query("a"))) == 20
    finally:
        dynamodb.meta.events.unregister("after-call.dynamodb.Query", tell)
