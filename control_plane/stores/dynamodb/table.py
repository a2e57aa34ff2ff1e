"""The one table: its definition, and whether what is there fits it.

A deployment makes the table by its template. This makes it for tests and for a control plane that
runs on one machine with DynamoDB as its store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from botocore.exceptions import ClientError

from control_plane.errors import Unavailable
from control_plane.stores.dynamodb.calls import Calls, Client, Waiting
from control_plane.stores.dynamodb.capacity import PARTITION_KEY, SORT_KEY, Index
from control_plane.stores.figures import Figures

TTL = "ttl"
"""The attribute with the second (since 1970) after which DynamoDB may delete an item."""

CREATION_S = 120.0
"""A table takes about ten seconds to make."""


def ready_index(projected: Sequence[str]) -> Index:
    """The index `ready`, with keys `gp` and `gs`, holding these attributes of each row."""
    return Index(name="ready", partition_key="gp", sort_key="gs", projected=tuple(projected))


def create_table(client: Client, name: str, indexes: Sequence[Index]) -> None:
    """Make the table and wait until it can be used; nothing happens when it is there. Raises
    `Unavailable`, also when what is there is another table."""
    calls = Calls(client, name, Figures(), Waiting(deadline_s=CREATION_S))
    try:
        calls.send("CreateTable", _definition(name, indexes))
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceInUseException":
            raise
    patience = calls.patience("CreateTable")
    while calls.send("DescribeTable", {"TableName": name})["Table"]["TableStatus"] == "CREATING":
        patience.wait("the table is still being made", throttled=False)
    ttl = calls.send("DescribeTimeToLive", {"TableName": name})["TimeToLiveDescription"]
    if ttl["TimeToLiveStatus"] == "DISABLED":
        wanted = {"Enabled": True, "AttributeName": TTL}
        calls.send("UpdateTimeToLive", {"TableName": name, "TimeToLiveSpecification": wanted})
    check_table(client, name, indexes)


def check_table(client: Client, name: str, indexes: Sequence[Index]) -> None:
    """Whether the table can be worked with. Raises `Unavailable` that says what is wrong: it is
    missing, has other keys, or lacks an index or an attribute in one."""
    calls = Calls(client, name, Figures(), Waiting())
    found = calls.send("DescribeTable", {"TableName": name})["Table"]
    wrong = [*_wrong_keys(found), *(text for each in indexes for text in _wrong_index(found, each))]
    if wrong:
        raise Unavailable(
            f"the DynamoDB table {name!r} does not fit: {'; '.join(wrong)}",
            fix="Name another table, or make this one anew with the template of this version.",
        )


def _definition(name: str, indexes: Sequence[Index]) -> dict[str, Any]:
    keys = [(PARTITION_KEY, SORT_KEY), *((each.partition_key, each.sort_key) for each in indexes)]
    definition: dict[str, Any] = {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": key, "AttributeType": "S"} for pair in keys for key in pair
        ],
        "KeySchema": _key_schema(PARTITION_KEY, SORT_KEY),
    }
    if indexes:
        definition["GlobalSecondaryIndexes"] = [
            {
                "IndexName": each.name,
                "KeySchema": _key_schema(each.partition_key, each.sort_key),
                "Projection": {
                    "ProjectionType": "INCLUDE",
                    "NonKeyAttributes": list(each.projected),
                },
            }
            for each in indexes
        ]
    return definition


def _key_schema(partition: str, sort: str) -> list[dict[str, str]]:
    return [
        {"AttributeName": partition, "KeyType": "HASH"},
        {"AttributeName": sort, "KeyType": "RANGE"},
    ]


def _wrong_keys(found: dict[str, Any]) -> list[str]:
    have = _keys(found, found["KeySchema"])
    want = _text_keys(PARTITION_KEY, SORT_KEY)
    return [] if have == want else [f"its keys are {have}, not {want}"]


def _wrong_index(found: dict[str, Any], index: Index) -> list[str]:
    indexes = {each["IndexName"]: each for each in found.get("GlobalSecondaryIndexes", ())}
    if index.name not in indexes:
        return [f"it has no index {index.name!r}"]
    have = indexes[index.name]
    wrong = []
    keys, want = _keys(found, have["KeySchema"]), _text_keys(index.partition_key, index.sort_key)
    if keys != want:
        wrong.append(f"the keys of index {index.name!r} are {keys}, not {want}")
    projection = have["Projection"]
    lacks = set(index.projected) - set(projection.get("NonKeyAttributes", ()))
    if projection["ProjectionType"] != "ALL" and lacks:
        wrong.append(f"index {index.name!r} does not hold {', '.join(sorted(lacks))}")
    return wrong


def _keys(found: dict[str, Any], schema: Sequence[dict[str, str]]) -> str:
    types = {each["AttributeName"]: each["AttributeType"] for each in found["AttributeDefinitions"]}
    order = sorted(schema, key=lambda each: each["KeyType"])
    return ", ".join(f"{each['AttributeName']} ({types[each['AttributeName']]})" for each in order)


def _text_keys(*names: str) -> str:
    return ", ".join(f"{name} (S)" for name in names)
