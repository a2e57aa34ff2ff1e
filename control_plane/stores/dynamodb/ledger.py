"""What was paid for, and when.

An interval stands under its machine, and once more where it is looked for: among those that are
open, or among those that ended in the same month. One transaction writes both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from control_plane.core.model import PriceInterval
from control_plane.ports import PriceKey
from control_plane.stores import transitions
from control_plane.stores.dynamodb import layout, records
from control_plane.stores.dynamodb.calls import TransactionRefused
from control_plane.stores.dynamodb.client import Delete, Key, Put
from control_plane.stores.dynamodb.expressions import ABSENT, Expression, expr
from control_plane.stores.dynamodb.items import Item
from control_plane.stores.dynamodb.parts import TRIES, Parts, too_busy

Writes = dict[Key, PriceInterval | None]
"""What is to stand under each key; None = nothing."""


class Ledger(Parts):
    """`ports.LedgerStore`."""

    def price_open(self, interval: PriceInterval) -> None:
        for _ in range(TRIES):
            same, open_ = self._paid(interval)
            if same is not None and transitions.same_interval(same, interval):
                return
            writes = {**_gone(same), **_gone(open_)}
            if open_ is not None and open_.started_at != interval.started_at:
                writes |= _both(_closed(open_, interval.started_at))
            if self._written(writes | _both(interval), interval.machine_id, open_):
                return
        raise too_busy(f"the price of machine {interval.machine_id}")

    def price_close(self, machine_id: str, *, at: datetime) -> None:
        for _ in range(TRIES):
            item = self._table.get(*layout.open_price_key(machine_id))
            if item is None:
                return
            open_ = price(item)
            if self._written(_gone(open_) | _both(_closed(open_, at)), machine_id, open_):
                return
        raise too_busy(f"the price of machine {machine_id}")

    def prices_between(self, start: datetime, end: datetime) -> Sequence[PriceInterval]:
        began_before = (layout.FIRST, layout.time_text(end))
        found = {
            (each.started_at, each.machine_id): each
            for each in self._open_and_closed(start, began_before)
            if each.started_at < end and (each.ended_at is None or each.ended_at > start)
        }
        return tuple(found[key] for key in sorted(found))

    def prices_begun(self, since: datetime) -> Sequence[PriceInterval]:
        # What began later has ended later.
        found = self._open_and_closed(since, (layout.time_text(since), layout.LAST))
        return tuple({layout.price_key(each): each for each in found}.values())

    def prices_get(self, keys: Sequence[PriceKey]) -> Sequence[PriceInterval]:
        found = self._table.batch_get([layout.begun_price_key(*key) for key in keys])
        return tuple(map(price, found.values()))

    def _open_and_closed(
        self, ended_since: datetime, began: tuple[str, str]
    ) -> Iterator[PriceInterval]:
        """What is open, then what ended in the month of a time or later and began within a span:
        what is closed in between is seen twice, not missed."""
        yield from map(price, self._table.query(layout.OPEN_PRICES, consistent=True))
        for month in self._days(layout.PAID_MONTHS):
            if month >= layout.month(ended_since):
                partition = layout.closed_prices_of(month)
                closed = self._table.query(partition, sk_between=began, consistent=True)
                yield from map(price, closed)

    def _paid(self, interval: PriceInterval) -> tuple[PriceInterval | None, PriceInterval | None]:
        """What is stored of a machine with the same start, and what is open."""
        keys = (layout.price_key(interval), layout.open_price_key(interval.machine_id))
        found = self._table.batch_get(keys)
        same, open_ = (price(found[key]) if key in found else None for key in keys)
        return same, open_

    def _written(
        self,
        writes: Mapping[Key, PriceInterval | None],
        machine_id: str,
        open_: PriceInterval | None,
    ) -> bool:
        """Write all, if what is open of the machine is still this; False when it is not."""
        for each in writes.values():
            if each is not None and each.ended_at is not None:
                self._note_day(layout.PAID_MONTHS, layout.month(each.ended_at))
        key = layout.open_price_key(machine_id)
        conditions = {key: ABSENT if open_ is None else _started(open_)}
        steps = [
            Delete(key=each, condition=conditions.get(each))
            if paid is None
            else Put(item=price_item(each, paid), condition=conditions.get(each))
            for each, paid in {key: None, **writes}.items()
        ]
        with suppress(TransactionRefused):
            self._table.transact(*steps)
            return True
        return False


def price(item: Item) -> PriceInterval:
    """The interval of an item."""
    return records.unpack(PriceInterval, item[layout.PACKED])


def price_item(key: Key, paid: PriceInterval) -> Item:
    """The item of an interval under one of its two keys."""
    return {
        "pk": key[0],
        "sk": key[1],
        layout.STARTED_AT: layout.stamp(paid.started_at),
        layout.PACKED: records.pack(paid),
    }


def found_under(paid: PriceInterval) -> Key:
    """Where an interval is looked for."""
    if paid.ended_at is None:
        return layout.open_price_key(paid.machine_id)
    return layout.closed_price_key(paid)


def _both(paid: PriceInterval) -> Writes:
    return {layout.price_key(paid): paid, found_under(paid): paid}


def _gone(paid: PriceInterval | None) -> Writes:
    """No longer where it was looked for; what stands under the machine is written anew."""
    return {} if paid is None else {found_under(paid): None}


def _closed(open_: PriceInterval, at: datetime) -> PriceInterval:
    return replace(open_, ended_at=max(at, open_.started_at))


def _started(open_: PriceInterval) -> Expression:
    return expr(f"{layout.STARTED_AT} = :start", start=layout.stamp(open_.started_at))
