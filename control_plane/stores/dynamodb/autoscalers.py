"""Declared documents and their history."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

from control_plane.core.policy import AutoscalerRecord
from control_plane.errors import NotFound
from control_plane.stores import transitions
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb import records
from control_plane.stores.dynamodb.calls import TransactionRefused
from control_plane.stores.dynamodb.client import Put
from control_plane.stores.dynamodb.control import document
from control_plane.stores.dynamodb.expressions import ABSENT, expr
from control_plane.stores.dynamodb.items import Item
from control_plane.stores.dynamodb.parts import TRIES, Parts, too_busy


class Autoscalers(Parts):
    """`ports.AutoscalerStore`."""

    def autoscaler_put(self, record: AutoscalerRecord, *, expected_version: int) -> None:
        self._note_day(at.DECLARED, record.name)
        unchanged = expr(f"{at.VERSION} = :seen", seen=expected_version)
        for _ in range(TRIES):
            stored = self._autoscaler(record.name)
            transitions.check_version(
                f"autoscaler {record.name}",
                stored.version if stored else 0,
                record.version,
                expected_version,
            )
            with suppress(TransactionRefused):
                self._table.transact(
                    Put(item=document_item(record), condition=unchanged if stored else ABSENT),
                    Put(item=version_item(record, self._numbers.fresh()), condition=ABSENT),
                )
                return
        raise too_busy(f"autoscaler {record.name}")

    def autoscaler_get(self, name: str) -> AutoscalerRecord:
        found = self._autoscaler(name)
        if found is None:
            raise NotFound(f"there is no autoscaler {name}")
        return found

    def autoscaler_list(self) -> Sequence[AutoscalerRecord]:
        items = self._table.query(at.CONTROL, sk_prefix=at.AUTOSCALER_PREFIX, consistent=True)
        return tuple(map(document, items))

    def autoscaler_history(self, name: str, *, limit: int = 50) -> Sequence[AutoscalerRecord]:
        items = self._table.query(
            at.versions_of(name), forward=False, consistent=True, page_size=limit
        )
        return tuple(document(item) for item in islice(items, limit))

    def autoscaler_remove(self, name: str) -> None:
        self._table.delete(*at.autoscaler_key(name))

    def _autoscaler(self, name: str) -> AutoscalerRecord | None:
        item = self._table.get(*at.autoscaler_key(name))
        return document(item) if item else None


def document_item(record: AutoscalerRecord) -> Item:
    """The item of a current document."""
    pk, sk = at.autoscaler_key(record.name)
    return {"pk": pk, "sk": sk, at.VERSION: record.version, at.PACKED: records.pack(record)}


def version_item(record: AutoscalerRecord, number: int) -> Item:
    """The item of a version, by a number that grows with time."""
    return {
        "pk": at.versions_of(record.name),
        "sk": at.number_text(number),
        at.PACKED: records.pack(record),
    }
