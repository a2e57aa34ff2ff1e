"""Writes whose answers are lost: the real SDK, a real ministack, and a line between that loses what
it is told to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from control_plane.stores.dynamodb.calls import Client, ConditionFailed
from control_plane.stores.dynamodb.client import Delete, Put, TableClient, Update
from control_plane.stores.dynamodb.expressions import ABSENT, PRESENT, Change, expr
from control_plane.stores.dynamodb.table import create_table
from tests.emulators.ministack import Ministack
from tests.emulators.unreliable import (
    CUT,
    GARBLE,
    LOSE,
    PASS,
    Step,
    Unreliable,
    hear,
    refuse,
    spoil,
)
from tests.unit.stores.dynamodb.conftest import READY
from tests.unit.stores.dynamodb.line import line_to

LOST = [CUT, LOSE, GARBLE, spoil(500, "InternalServerError"), refuse(500, "InternalServerError")]
"""Every way not to know: it happened or not, and the answer is missing or an error."""


KEY = {"pk": {"S": "a"}, "sk": {"S": "07"}}


@pytest.fixture
def far(
    ministack: Ministack, unreliable: Unreliable, dynamodb: Client, table_name: str
) -> Iterator[TableClient]:
    """The table over the bad line; `table` is the same without."""
    create_table(dynamodb, table_name, [READY])
    account = dynamodb._get_credentials().access_key
    with line_to(unreliable.url, table=table_name, account=account) as made:
        yield made


@pytest.mark.parametrize("lost", LOST)
def test_a_new_item_is_put_once_and_reported_as_new(
    far: TableClient, table: TableClient, unreliable: Unreliable, lost: Step
) -> None:
    unreliable.script = [lost]
    far.put({"pk": "a", "sk": "b", "n": 1}, condition=ABSENT)
    assert table.get("a", "b") == {"pk": "a", "sk": "b", "n": 1}
    assert far.figures.read()["other"].conflicts == 0


def test_a_new_item_that_somebody_else_put_first_is_refused(
    far: TableClient, table: TableClient, unreliable: Unreliable
) -> None:
    theirs = Step(
        forward=False,
        answer=False,
        after=lambda: table.put({"pk": "a", "sk": "b", "n": 2}, condition=ABSENT),
    )
    unreliable.script = [theirs]
    with pytest.raises(ConditionFailed) as failure:
        far.put({"pk": "a", "sk": "b", "n": 1}, condition=ABSENT)
    assert failure.value.old == {"pk": "a", "sk": "b", "n": 2}


@pytest.mark.parametrize("lost", LOST)
def test_a_step_forward_is_made_once(
    far: TableClient, table: TableClient, unreliable: Unreliable, lost: Step
) -> None:
    table.put({"pk": "a", "sk": "b", "v": 1})
    unreliable.script = [lost]
    new = far.update("a", "b", assign={"v": 2}, condition=expr("v = :v", v=1))
    assert new == {"pk": "a", "sk": "b", "v": 2} == table.get("a", "b")


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("condition", [None, PRESENT])
def test_a_count_goes_up_once(
    far: TableClient,
    table: TableClient,
    unreliable: Unreliable,
    lost: Step,
    condition: object,
) -> None:
    table.put({"pk": "a", "sk": "b", "n": 5})
    unreliable.script = [lost, lost]
    new = far.update("a", "b", add={"n": 1}, condition=condition)  # type: ignore[arg-type]
    assert new == {"pk": "a", "sk": "b", "n": 6} == table.get("a", "b")


def test_a_write_that_was_overtaken_looks_refused(
    far: TableClient, table: TableClient, unreliable: Unreliable
) -> None:
    table.put({"pk": "a", "sk": "b", "v": 1})
    overtaken = Step(
        answer=False,
        after=lambda: table.update("a", "b", assign={"v": 3}, condition=expr("v = :v", v=2)),
    )
    unreliable.script = [overtaken]
    with pytest.raises(ConditionFailed) as failure:
        far.update("a", "b", assign={"v": 2}, condition=expr("v = :v", v=1))
    assert failure.value.old == {"pk": "a", "sk": "b", "v": 3}
    assert failure.value.unclear


def test_an_unconditional_change_in_between_does_not_hide_our_write(
    far: TableClient, table: TableClient, unreliable: Unreliable
) -> None:
    table.put({"pk": "a", "sk": "b", "v": 1})
    unreliable.script = [
        Step(answer=False, after=lambda: table.update("a", "b", assign={"beat": 7}))
    ]
    new = far.update("a", "b", assign={"v": 2}, condition=expr("v = :v", v=1))
    assert new == {"pk": "a", "sk": "b", "v": 2, "beat": 7}


@pytest.mark.parametrize("lost", LOST)
def test_a_delete_is_made_and_not_refused(
    far: TableClient, table: TableClient, unreliable: Unreliable, lost: Step
) -> None:
    table.put({"pk": "a", "sk": "b", "v": 1})
    unreliable.script = [lost]
    far.delete("a", "b", condition=expr("v = :v", v=1))
    assert table.get("a", "b") is None


def test_a_delete_of_nothing_is_refused_while_answers_are_clear(
    far: TableClient, unreliable: Unreliable
) -> None:
    unreliable.script = [refuse(400, "ThrottlingException")]
    with pytest.raises(ConditionFailed) as failure:
        far.delete("a", "b", condition=PRESENT)
    assert failure.value.old is None
    assert not failure.value.unclear


@pytest.mark.parametrize("lost", LOST)
def test_a_transaction_happens_once(
    far: TableClient, table: TableClient, unreliable: Unreliable, lost: Step
) -> None:
    table.put({"pk": "a", "sk": "n", "n": 1})
    table.put({"pk": "a", "sk": "old"})
    unreliable.script = [lost, PASS]
    far.transact(
        Put(item={"pk": "a", "sk": "new"}, condition=ABSENT),
        Update(key=("a", "n"), change=Change(add={"n": 1})),
        Delete(key=("a", "old"), condition=PRESENT),
    )
    assert [item["sk"] for item in table.query("a", consistent=True)] == ["n", "new"]
    assert table.get("a", "n") == {"pk": "a", "sk": "n", "n": 2}


def test_a_write_found_again_is_charged_with_its_refusal(
    far: TableClient, unreliable: Unreliable
) -> None:
    unreliable.script = [LOSE]
    far.put({"pk": "a", "sk": "b", "pad": "x" * 1500}, condition=ABSENT)
    figures = far.figures.read()["other"]
    assert figures.write_units == 2 + 2
    assert figures.retries == 1


def test_what_a_batch_leaves_over_is_sent_again(
    far: TableClient, table: TableClient, unreliable: Unreliable
) -> None:
    unreliable.script = [hear({"UnprocessedItems": {far.table: [{"PutRequest": {"Item": KEY}}]}})]
    far.batch_put({"pk": "a", "sk": f"{n:02}"} for n in range(30))
    assert len(list(table.query("a"))) == 30
    assert [len(body["RequestItems"][far.table]) for _, body in unreliable.seen] == [25, 1, 5]
    assert far.figures.read()["other"].write_units == 30
    assert far.figures.read()["other"].throttles == 1


def test_what_a_batch_did_not_read_is_asked_for_again(
    far: TableClient, table: TableClient, unreliable: Unreliable
) -> None:
    table.batch_put({"pk": "a", "sk": sk} for sk in ("07", "08"))
    other = {"pk": {"S": "a"}, "sk": {"S": "08"}}
    half = {"Responses": {far.table: [other]}, "UnprocessedKeys": {far.table: {"Keys": [KEY]}}}
    unreliable.script = [hear(half)]
    assert set(far.batch_get([("a", "07"), ("a", "08")])) == {("a", "07"), ("a", "08")}
    assert [len(body["RequestItems"][far.table]["Keys"]) for _, body in unreliable.seen] == [2, 1]
    assert far.figures.read()["other"].read_units == 2
