"""What we tell others: the log, and beside what every look reads a copy of what waits to be sent.
One transaction writes both, so a look that finds nothing has paid nothing for it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from control_plane.core.alerts import Delivery, DeliveryState
from control_plane.errors import Conflict
from control_plane.stores import transitions
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb import records
from control_plane.stores.dynamodb.calls import TransactionRefused
from control_plane.stores.dynamodb.client import Delete, Key, Put
from control_plane.stores.dynamodb.expressions import ABSENT, expr
from control_plane.stores.dynamodb.items import Item
from control_plane.stores.dynamodb.parts import Parts


class Deliveries(Parts):
    """The part of `ports.HookStore` about deliveries."""

    def delivery_put(self, record: Delivery, *, expected_version: int) -> None:
        # What is stored is the condition's affair: this refuses a version that does not follow.
        what = f"delivery {record.id}"
        transitions.check_version(what, expected_version, record.version, expected_version)
        seen = expr(f"{at.VERSION} = :seen", seen=expected_version) if expected_version else ABSENT
        log, *waiting = self._delivery_items(record)
        beside = Put(item=waiting[0]) if waiting else Delete(key=at.due_key(record.id))
        try:
            self._table.transact(Put(item=log, condition=seen), beside)
        except TransactionRefused:
            raise Conflict(f"{what} was changed by somebody else") from None

    def delivery_list(self, *, limit: int = 100) -> Sequence[Delivery]:
        items = self._table.query(at.DELIVERIES, forward=False, consistent=True, page_size=limit)
        alive = (each for each in items if not self._expired(each))
        return tuple(map(delivery, islice(alive, limit)))

    def _delivery_items(self, record: Delivery) -> list[Item]:
        """Its place in the log, and among what waits if it does."""
        keys: list[Key] = [at.delivery_key(record.id)]
        if record.state is DeliveryState.WAITING:
            keys.append(at.due_key(record.id))
        return [
            {
                "pk": pk,
                "sk": sk,
                at.VERSION: record.version,
                at.PACKED: records.pack(record),
                at.TTL: self._expiry(),
            }
            for pk, sk in keys
        ]


def delivery(item: Item) -> Delivery:
    """The delivery of an item."""
    return records.unpack(Delivery, item[at.PACKED])
