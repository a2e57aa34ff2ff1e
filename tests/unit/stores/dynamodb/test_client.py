"""The seam's calls against ministack: what is written is read, and conditions decide."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from control_plane.core.model import QueueRecord
from control_plane.errors import InvalidInput
from control_plane.stores.dynamodb.calls import ConditionFailed, TransactionRefused
from control_plane.stores.dynamodb.client import Check, Delete, Put, TableClient, Update
from control_plane.stores.dynamodb.expressions import ABSENT, PRESENT, Change, Expression, expr
from control_plane.stores.figures import counted
from control_plane.stores.memory import MemoryStore
from tests.unit.stores.dynamodb.conftest import READY


def test_an_item_is_read_as_it_was_put(table: TableClient) -> None:
    table.put({"pk": "a", "sk": "b", "st": "queued", "gone": None, "n": 3})
    assert table.get("a", "b") == {"pk": "a", "sk": "b", "st": "queued", "n": 3}
    assert table.get("a", "c") is None


def test_a_failed_condition_carries_the_item(table: TableClient) -> None:
    table.put({"pk": "a", "sk": "b", "n": 1}, condition=ABSENT)
    with pytest.raises(ConditionFailed) as failure:
        table.put({"pk": "a", "sk": "b", "n": 2}, condition=ABSENT)
    assert failure.value.old is not None
    assert failure.value.old["n"] == 1


def test_an_update_returns_the_item_as_it_is_now(table: TableClient) -> None:
    table.put({"pk": "a", "sk": "b", "status": "queued", "gp": "q", "gs": "1"})
    new = table.update(
        "a",
        "b",
        assign={"status": "leased", "owner": "m-1"},
        add={"n": 2, "set": frozenset({"x"})},
        remove=["gp", "gs"],
        condition=expr("status = :queued", queued="queued"),
    )
    assert new == table.get("a", "b")
    with pytest.raises(ConditionFailed):
        table.update("a", "z", assign={"x": 1}, condition=PRESENT)


def test_query(table: TableClient) -> None:
    table.batch_put(
        {"pk": "a", "sk": f"s{n:03}", "n": n, "gp": "q", "gs": f"{n:03}"} for n in range(60)
    )
    table.put({"pk": "a", "sk": "t", "n": 0})
    assert [item["n"] for item in table.query("a", sk_prefix="s", page_size=7)] == list(range(60))
    page = table.query_page("a", sk_between=("s010", "s012"), forward=False, limit=2)
    assert [item["n"] for item in page.items] == [12, 11]
    page = table.query_page("a", sk_between=("s010", "s012"), forward=False, start=page.next)
    assert [item["n"] for item in page.items] == [10]
    assert [row["gs"] for row in table.query("q", index=READY, sk_prefix="05")] == [
        f"05{n}" for n in range(10)
    ]
    assert len(table.batch_get(("a", f"s{n:03}") for n in range(130))) == 60
    filtered = table.query("a", filter=expr("n > :n", n=57), project=["n"])
    assert list(filtered) == [{"n": 58}, {"n": 59}]


def test_transact(table: TableClient) -> None:
    table.put({"pk": "a", "sk": "1", "n": 1})
    table.put({"pk": "a", "sk": "2", "n": 1})
    table.transact(
        Put(item={"pk": "a", "sk": "3"}, condition=ABSENT),
        Update(key=("a", "1"), change=Change(add={"n": 1}), condition=PRESENT),
        Delete(key=("a", "2")),
        Check(key=("a", "4"), condition=ABSENT),
    )
    with pytest.raises(TransactionRefused) as refusal:
        table.transact(
            Put(item={"pk": "a", "sk": "9"}, condition=ABSENT),
            Update(key=("a", "1"), change=Change(add={"n": 1}), condition=expr("n = :n", n=1)),
        )
    assert refusal.value.failed == {1: {"pk": "a", "sk": "1", "n": 2}}
    assert table.get("a", "9") is None


def test_delete(table: TableClient) -> None:
    table.put({"pk": "a", "sk": "1", "n": 1})
    with pytest.raises(ConditionFailed):
        table.delete("a", "1", condition=expr("n = :n", n=2))
    assert table.delete("a", "1") == {"pk": "a", "sk": "1", "n": 1}
    assert table.delete("a", "1") is None


def test_an_item_that_is_too_large_is_refused_in_our_words(table: TableClient) -> None:
    with pytest.raises(InvalidInput, match="400 KB"):
        table.put({"pk": "a", "sk": "b", "pad": "x" * 410_000})
    table.put({"pk": "a", "sk": "b", "pad": "x" * 390_000})
    with pytest.raises(InvalidInput, match="400 KB"):
        table.update("a", "b", assign={"more": "x" * 30_000})


def test_many_threads_lose_no_update_and_win_each_race_once(table: TableClient) -> None:
    table.put({"pk": "a", "sk": "b", "v": 0})
    lost = []

    def raise_by_ten(_: int) -> None:
        for _ in range(10):
            while True:
                seen = table.get("a", "b")
                assert seen is not None
                try:
                    table.update("a", "b", assign={"v": seen["v"] + 1}, condition=at(seen["v"]))
                    break
                except ConditionFailed:
                    lost.append(1)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(raise_by_ten, range(6)))
    assert table.get("a", "b") == {"pk": "a", "sk": "b", "v": 60}
    assert table.figures.read()["other"].conflicts == len(lost)


def at(version: int) -> Expression:
    return expr("v = :v", v=version)


def test_what_a_call_costs_goes_to_the_operation_that_runs(table: TableClient) -> None:
    @counted
    class Looking(MemoryStore):
        def queue_list(self) -> Sequence[QueueRecord]:
            table.get("a", "b")
            return []

    Looking().queue_list()
    table.get("a", "b")
    assert table.figures.read()["queue_list"].read_units == 1
    assert table.figures.read()["other"].read_units == 1


def test_neither_boto3_nor_its_transfers_are_loaded() -> None:
    program = "import sys, control_plane.stores.dynamodb.client; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert {b"boto3", b"s3transfer", b"botocore"} & set(found.stdout.split()) == {b"botocore"}
