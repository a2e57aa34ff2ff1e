"""The table is made as it must be, and one that is not is told apart before anything is written."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.errors import Unavailable
from control_plane.stores.dynamodb.calls import Client
from control_plane.stores.dynamodb.client import TableClient
from control_plane.stores.dynamodb.table import check_table, create_table, ready_index
from tests.emulators.unreliable import Unreliable, hear
from tests.unit.stores.dynamodb.conftest import READY
from tests.unit.stores.dynamodb.line import line_to


def test_the_table_has_keys_index_ttl_and_no_fixed_capacity(
    dynamodb: Client, table_name: str
) -> None:
    create_table(dynamodb, table_name, [READY])
    made = dynamodb.describe_table(TableName=table_name)["Table"]
    assert made["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert [key["AttributeName"] for key in made["KeySchema"]] == ["pk", "sk"]
    (index,) = made["GlobalSecondaryIndexes"]
    assert index["IndexName"] == "ready"
    assert [key["AttributeName"] for key in index["KeySchema"]] == ["gp", "gs"]
    assert index["Projection"] == {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["nd", "sz"]}
    ttl = dynamodb.describe_time_to_live(TableName=table_name)["TimeToLiveDescription"]
    assert ttl == {"TimeToLiveStatus": "ENABLED", "AttributeName": "ttl"}


def test_making_it_again_changes_nothing(dynamodb: Client, table_name: str) -> None:
    create_table(dynamodb, table_name, [READY])
    table = TableClient(dynamodb, table_name, indexes=[READY])
    table.put({"pk": "a", "sk": "b"})
    create_table(dynamodb, table_name, [READY])
    assert table.get("a", "b") is not None


def test_making_it_waits_until_it_can_be_used(dynamodb: Client, table_name: str) -> None:
    seen = []

    def slow(parsed: dict[str, Any], **_: Any) -> None:
        seen.append(1)
        parsed["Table"]["TableStatus"] = "CREATING" if len(seen) < 3 else "ACTIVE"

    dynamodb.meta.events.register("after-call.dynamodb.DescribeTable", slow)
    try:
        create_table(dynamodb, table_name, [READY])
    finally:
        dynamodb.meta.events.unregister("after-call.dynamodb.DescribeTable", slow)
    assert len(seen) == 3 + 1


def test_a_table_that_is_missing_is_named(dynamodb: Client, table_name: str) -> None:
    with pytest.raises(Unavailable, match=f"no DynamoDB table '{table_name}'"):
        check_table(dynamodb, table_name, [READY])
    with pytest.raises(Unavailable, match=f"no DynamoDB table '{table_name}'"):
        TableClient(dynamodb, table_name).get("a", "b")


def foreign(dynamodb: Client, name: str, *, sort_type: str = "N") -> None:
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": "id", "AttributeType": "S"},
            {"AttributeName": "at", "AttributeType": sort_type},
        ],
        KeySchema=[
            {"AttributeName": "id", "KeyType": "HASH"},
            {"AttributeName": "at", "KeyType": "RANGE"},
        ],
    )


def test_a_foreign_table_is_told_by_its_keys(dynamodb: Client, table_name: str) -> None:
    foreign(dynamodb, table_name)
    says = r"its keys are id \(S\), at \(N\), not pk \(S\), sk \(S\); it has no index 'ready'"
    with pytest.raises(Unavailable, match=says):
        check_table(dynamodb, table_name, [READY])
    with pytest.raises(Unavailable, match=says):
        create_table(dynamodb, table_name, [READY])


def test_every_call_on_a_foreign_table_says_so(dynamodb: Client, table_name: str) -> None:
    foreign(dynamodb, table_name)
    table = TableClient(dynamodb, table_name)
    for call in (
        lambda: table.get("a", "b"),
        lambda: table.put({"pk": "a", "sk": "b"}),
        lambda: table.update("a", "b", assign={"n": 1}),
        lambda: table.delete("a", "b"),
        lambda: list(table.query("a")),
        lambda: list(table.query("a", index=READY)),
        lambda: table.batch_get([("a", "b")]),
        lambda: table.batch_put([{"pk": "a", "sk": "b"}]),
    ):
        with pytest.raises(Unavailable, match=f"'{table_name}' is not one of orchctl's"):
            call()


def test_an_index_of_an_older_version_is_told_by_what_it_lacks(
    dynamodb: Client, table_name: str
) -> None:
    create_table(dynamodb, table_name, [READY])
    newer = ready_index(["nd", "sz", "zz", "aa"])
    with pytest.raises(Unavailable, match="index 'ready' does not hold aa, zz") as refusal:
        check_table(dynamodb, table_name, [newer])
    assert "template" in refusal.value.fix


def test_an_index_with_other_keys_is_told(dynamodb: Client, unreliable: Unreliable) -> None:
    names = ["pk", "sk", "gp", "xx"]
    unreliable.script = [
        hear(
            {
                "Table": {
                    "AttributeDefinitions": [
                        {"AttributeName": name, "AttributeType": "S"} for name in names
                    ],
                    "KeySchema": [
                        {"AttributeName": "sk", "KeyType": "RANGE"},
                        {"AttributeName": "pk", "KeyType": "HASH"},
                    ],
                    "GlobalSecondaryIndexes": [
                        {
                            "IndexName": "ready",
                            "KeySchema": [
                                {"AttributeName": "gp", "KeyType": "HASH"},
                                {"AttributeName": "xx", "KeyType": "RANGE"},
                            ],
                            "Projection": {"ProjectionType": "ALL"},
                        }
                    ],
                }
            },
            forward=False,
        )
    ]
    with (
        line_to(unreliable.url) as line,
        pytest.raises(Unavailable, match=r"keys of index 'ready' are gp \(S\), xx \(S\), not gp"),
    ):
        check_table(line._client, "jobs", [READY])
