"""DynamoDB as the store sees it: items of plain Python values in one table, and nothing of AWS.

Unclear answers. A write whose answer is lost is repeated, and then fails its own condition. So each
conditional write leaves a random token in the item's attribute `w`; a condition that fails on an
item with our own token is a write that went through. Two cases stay open, and a caller who needs
certainty reads again: somebody who changed the item in between makes our write look refused (then
the failure says `unclear`), and a delete that finds nothing at its repeat counts as done.

A write without a condition is repeated as it is, and may then cover what somebody wrote in between.
An update with no condition that counts numbers up is safe against its own repeat, but counts twice
when its answer is lost and another conditional write comes in between. What must be exact has a
condition that it makes false itself, such as a version.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Any, TypeAlias

from control_plane.stores.dynamodb.calls import (
    Answer,
    Calls,
    Client,
    ConditionFailed,
    TransactionRefused,
    Waiting,
)
from control_plane.stores.dynamodb.capacity import (
    PARTITION_KEY,
    SORT_KEY,
    Index,
    get_units,
    query_units,
    refused_write_units,
    write_units,
)
from control_plane.stores.dynamodb.expressions import Change, Expression, Rendering
from control_plane.stores.dynamodb.items import (
    TOKEN,
    Item,
    Value,
    WireItem,
    decode_item,
    encode,
    encode_item,
)
from control_plane.stores.figures import Figures

Key: TypeAlias = tuple[str, str]
"""`pk` and `sk` of an item."""

READ_BATCH = 100
WRITE_BATCH = 25
"""The most items that DynamoDB takes in one batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a query."""

    items: Sequence[Item]
    """May be empty although more follow: DynamoDB cuts pages before it filters."""
    next: Mapping[str, str] | None
    """Where the next page starts; None = this was the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Write a whole item, in a transaction."""

    item: Mapping[str, Value]
    condition: Expression | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """Change an item, in a transaction."""

    key: Key
    change: Change
    condition: Expression | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Take an item away, in a transaction."""

    key: Key
    condition: Expression | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Change nothing, but let the transaction fail when this does not hold."""

    key: Key
    condition: Expression


Operation: TypeAlias = Put | Update | Delete | Check


class TableClient:
    """One table. Any number of threads may use it.

    Every method raises `Unavailable` when DynamoDB does not answer within the deadline, does not
    let us in or has no such table, and `InvalidInput` for an item over 400 KB. A write that ends in
    `Unavailable` may have been carried out."""

    def __init__(
        self,
        client: Client,
        table: str,
        *,
        indexes: Sequence[Index] = (),
        figures: Figures | None = None,
        waiting: Waiting | None = None,
    ) -> None:
        self.table = table
        self.figures = figures or Figures()
        self._client = client
        self._indexes = indexes
        self._waiting = waiting or Waiting()
        self._calls = Calls(client, table, self.figures, self._waiting)

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    # ------------------------------------------------------------------------------ reading

    def get(self, pk: str, sk: str, *, consistent: bool = True) -> Item | None:
        """One item. `consistent` sees every write that was answered before, for twice the price."""
        request = {"TableName": self.table, "Key": _key(pk, sk), "ConsistentRead": consistent}
        found: WireItem | None = self._calls.send("GetItem", request).get("Item")
        self.figures.add(read_units=get_units(found, consistent=consistent))
        return None if found is None else decode_item(found)

    def batch_get(self, keys: Iterable[Key], *, consistent: bool = True) -> dict[Key, Item]:
        """Many items by key; those that do not exist are missing in the answer."""
        found: dict[Key, Item] = {}
        for some in _batches(dict.fromkeys(keys), READ_BATCH):
            for wire in self._batch_get(some, consistent=consistent):
                item = decode_item(wire)
                found[item[PARTITION_KEY], item[SORT_KEY]] = item
        return found

    def _batch_get(self, keys: Sequence[Key], *, consistent: bool) -> Iterator[WireItem]:
        open_keys = [_key(*key) for key in keys]
        patience = self._calls.patience("BatchGetItem")
        while True:
            asked = {self.table: {"Keys": open_keys, "ConsistentRead": consistent}}
            answer = self._calls.send("BatchGetItem", {"RequestItems": asked})
            found: list[WireItem] = answer["Responses"].get(self.table, [])
            left = answer.get("UnprocessedKeys", {}).get(self.table, {}).get("Keys", [])
            absent = len(open_keys) - len(found) - len(left)
            units = sum(get_units(item, consistent=consistent) for item in found)
            units += absent * get_units(None, consistent=consistent)
            self.figures.add(read_units=units)
            yield from found
            if not left:
                return
            open_keys = left
            patience.wait(f"{len(left)} items were left over", throttled=True)

    def query(
        self,
        pk: str,
        *,
        sk_prefix: str = "",
        sk_between: tuple[str, str] | None = None,
        index: Index | None = None,
        forward: bool = True,
        consistent: bool = False,
        filter: Expression | None = None,  # noqa: A002 - DynamoDB's own word
        project: Sequence[str] = (),
        page_size: int | None = None,
    ) -> Iterator[Item]:
        """All items of a partition in the order of their sort keys, page after page as they are
        taken. The parameters are those of `query_page`."""
        start: Mapping[str, str] | None = None
        while True:
            page = self.query_page(
                pk,
                sk_prefix=sk_prefix,
                sk_between=sk_between,
                index=index,
                forward=forward,
                consistent=consistent,
                filter=filter,
                project=project,
                limit=page_size,
                start=start,
            )
            yield from page.items
            start = page.next
            if start is None:
                return

    def query_page(
        self,
        pk: str,
        *,
        sk_prefix: str = "",
        sk_between: tuple[str, str] | None = None,
        index: Index | None = None,
        forward: bool = True,
        consistent: bool = False,
        filter: Expression | None = None,  # noqa: A002 - DynamoDB's own word
        project: Sequence[str] = (),
        limit: int | None = None,
        start: Mapping[str, str] | None = None,
    ) -> Page:
        """One page of a partition: at most `limit` items and 1 MB, counted before the filter. Of
        an index, `pk` and the sort keys are the index's; it is never `consistent`."""
        rendering = Rendering()
        request: dict[str, Any] = {
            "TableName": self.table,
            "KeyConditionExpression": _key_condition(rendering, pk, sk_prefix, sk_between, index),
            "ScanIndexForward": forward,
            "ConsistentRead": consistent,
        }
        if index:
            request["IndexName"] = index.name
        if filter:
            request["FilterExpression"] = rendering.text(filter)
        if project:
            request["ProjectionExpression"] = ", ".join(map(rendering.name, project))
        if filter or project:
            request["ReturnConsumedCapacity"] = "TOTAL"
        if limit:
            request["Limit"] = limit
        if start:
            request["ExclusiveStartKey"] = encode_item(start)
        answer = self._calls.send("Query", {**request, **rendering.parameters()})
        self._count_page(answer, consistent=consistent)
        after = answer.get("LastEvaluatedKey")
        return Page(
            items=[decode_item(item) for item in answer["Items"]],
            next=decode_item(after) if after else None,
        )

    def _count_page(self, answer: Answer, *, consistent: bool) -> None:
        # What a filter dropped or a projection hid was read and is paid for, but never seen here:
        # then DynamoDB's own count is the better one. What was seen is the least it can be.
        seen = query_units(answer["Items"], consistent=consistent)
        told = answer.get("ConsumedCapacity", {}).get("CapacityUnits", 0.0)
        self.figures.add(read_units=max(seen, told))

    # ------------------------------------------------------------------------------ writing

    def put(self, item: Mapping[str, Value], *, condition: Expression | None = None) -> None:
        """Write a whole item. Raises `ConditionFailed`."""
        wire = encode_item(item)
        rendering = Rendering()
        request: dict[str, Any] = {"TableName": self.table, "ReturnValues": "ALL_OLD"}
        token = ""
        if condition:
            token = self._token()
            wire[TOKEN] = encode(token)
            request.update(_conditional(rendering.text(condition)))
        request["Item"] = wire
        try:
            answer = self._calls.send("PutItem", {**request, **rendering.parameters()})
        except ConditionFailed as failure:
            self._own_or_raise(failure, token)
            self._count_write(None, wire)
        else:
            self._count_write(answer.get("Attributes"), wire)

    def update(
        self,
        pk: str,
        sk: str,
        *,
        assign: Mapping[str, Value] | None = None,
        add: Mapping[str, int | float | Decimal | frozenset[str]] | None = None,
        discard: Mapping[str, frozenset[str]] | None = None,
        remove: Iterable[str] = (),
        condition: Expression | None = None,
    ) -> Item:
        """Change some attributes and return the whole item as it is now. An item that does not
        exist is made, unless the condition says `PRESENT`. Raises `ConditionFailed`."""
        change = Change(
            assign=assign or {}, add=add or {}, discard=discard or {}, remove=tuple(remove)
        )
        rendering = Rendering()
        request: dict[str, Any] = {
            "TableName": self.table,
            "Key": _key(pk, sk),
            "ReturnValues": "ALL_OLD",
        }
        token = ""
        if condition or not change.repeatable:
            token = self._token()
            change = change.marked(TOKEN, token)
            request.update(_conditional(_guarded(rendering, condition, change, token)))
        request["UpdateExpression"] = change.text(rendering)
        try:
            answer = self._calls.send("UpdateItem", {**request, **rendering.parameters()})
        except ConditionFailed as failure:
            new = self._own_or_raise(failure, token)
            old = new
        else:
            old = answer.get("Attributes") or _key(pk, sk)
            new = change.applied(old)
        self._count_write(old, new)
        return decode_item(new)

    def delete(self, pk: str, sk: str, *, condition: Expression | None = None) -> Item | None:
        """Take an item away and return it; None when there was none. Raises `ConditionFailed`."""
        rendering = Rendering()
        request: dict[str, Any] = {
            "TableName": self.table,
            "Key": _key(pk, sk),
            "ReturnValues": "ALL_OLD",
        }
        if condition:
            request.update(_conditional(rendering.text(condition)))
        try:
            answer = self._calls.send("DeleteItem", {**request, **rendering.parameters()})
        except ConditionFailed as failure:
            self._count_refusal(failure)
            if failure.unclear and failure.wire is None:
                return None
            raise
        old: WireItem | None = answer.get("Attributes")
        self._count_write(old, None)
        return None if old is None else decode_item(old)

    def batch_put(self, items: Iterable[Mapping[str, Value]]) -> None:
        """Write many whole items, in no order and not as one step: a crash leaves some of them.
        Counted as if none had been there before, which DynamoDB does not tell."""
        for some in _batches(map(encode_item, items), WRITE_BATCH):
            self._batch_put(some)

    def _batch_put(self, items: Sequence[WireItem]) -> None:
        requests: list[Any] = [{"PutRequest": {"Item": item}} for item in items]
        patience = self._calls.patience("BatchWriteItem")
        while True:
            answer = self._calls.send("BatchWriteItem", {"RequestItems": {self.table: requests}})
            left = answer.get("UnprocessedItems", {}).get(self.table, [])
            self.figures.add(write_units=self._batch_units(requests) - self._batch_units(left))
            if not left:
                return
            requests = left
            patience.wait(f"{len(left)} items were left over", throttled=True)

    def _batch_units(self, requests: Sequence[Any]) -> float:
        items = (request["PutRequest"]["Item"] for request in requests)
        return sum(write_units(None, item, self._indexes) for item in items)

    def transact(self, *operations: Operation) -> None:
        """Carry out all operations (at most 100, of different items) or none, for twice the price.
        A lost answer is repeated under one token, so nothing happens twice. Raises
        `TransactionRefused`."""
        request = {
            "TransactItems": [self._transacted(operation) for operation in operations],
            "ClientRequestToken": self._token(),
            "ReturnConsumedCapacity": "TOTAL",
        }
        try:
            answer = self._calls.send("TransactWriteItems", request)
        except TransactionRefused as refusal:
            units = [refused_write_units(refusal.wires.get(at)) for at in range(len(operations))]
            self.figures.add(conflicts=1, write_units=2 * sum(units))
            raise
        # Transactions do not tell what was there before, so DynamoDB's own count is taken.
        for told in answer.get("ConsumedCapacity", ()):
            read = told.get("ReadCapacityUnits", 0.0)
            self.figures.add(read_units=read, write_units=told["CapacityUnits"] - read)

    def _transacted(self, operation: Operation) -> dict[str, Any]:
        rendering = Rendering()
        request: dict[str, Any] = {"TableName": self.table}
        if isinstance(operation, Put):
            request["Item"] = encode_item(operation.item)
        else:
            request["Key"] = _key(*operation.key)
        if isinstance(operation, Update):
            request["UpdateExpression"] = operation.change.text(rendering)
        if operation.condition:
            request.update(_conditional(rendering.text(operation.condition)))
        return {_VERBS[type(operation)]: {**request, **rendering.parameters()}}

    # ------------------------------------------------------------------------------ helpers

    def _token(self) -> str:
        return f"{self._waiting.chance.getrandbits(64):016x}"

    def _own_or_raise(self, failure: ConditionFailed, token: str) -> WireItem:
        """The item, when the failed condition met our own earlier try. That try was paid for too;
        what was there before it is lost, so the index writes of an update stay uncounted."""
        own = failure.wire is not None and failure.wire.get(TOKEN) == encode(token)
        if failure.wire is None or not own:
            self._count_refusal(failure)
            raise failure
        self.figures.add(write_units=refused_write_units(failure.wire))
        return failure.wire

    def _count_refusal(self, failure: ConditionFailed) -> None:
        self.figures.add(conflicts=1, write_units=refused_write_units(failure.wire))

    def _count_write(self, old: WireItem | None, new: WireItem | None) -> None:
        self.figures.add(write_units=write_units(old, new, self._indexes))


_VERBS = {Put: "Put", Update: "Update", Delete: "Delete", Check: "ConditionCheck"}


def _key(pk: str, sk: str) -> WireItem:
    return {PARTITION_KEY: encode(pk), SORT_KEY: encode(sk)}


def _conditional(condition: str) -> dict[str, Any]:
    return {
        "ConditionExpression": condition,
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _guarded(rendering: Rendering, condition: Expression | None, change: Change, token: str) -> str:
    """The condition of an update; one that counts must not find that it has counted already."""
    parts = [f"({rendering.text(condition)})"] if condition else []
    if not change.repeatable:
        parts.append(f"NOT {rendering.name(TOKEN)} = {rendering.value(token)}")
    return " AND ".join(parts)


def _key_condition(
    rendering: Rendering,
    pk: str,
    sk_prefix: str,
    sk_between: tuple[str, str] | None,
    index: Index | None,
) -> str:
    partition = rendering.name(index.partition_key if index else PARTITION_KEY)
    sort = index.sort_key if index else SORT_KEY
    text = f"{partition} = {rendering.value(pk)}"
    if sk_between:
        low, high = map(rendering.value, sk_between)
        return f"{text} AND {rendering.name(sort)} BETWEEN {low} AND {high}"
    if sk_prefix:
        return f"{text} AND begins_with({rendering.name(sort)}, {rendering.value(sk_prefix)})"
    return text


def _batches(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(values)
    while some := list(islice(rest, size)):
        yield some
