"""What DynamoDB charges for a call, computed from sizes.

DynamoDB tells the consumed capacity on request, but emulators tell it wrongly (a query's is flat in
every one), and a budget that only holds against AWS cannot be tested. The rules are those of the
DynamoDB developer guide, "Capacity units", "Read and write operations", "Item sizes and formats"
and "Using global secondary indexes".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Context
from typing import Any

from control_plane.stores.dynamodb.items import Wire, WireItem

PARTITION_KEY = "pk"
SORT_KEY = "sk"

_WRITE_UNIT_BYTES = 1024
_READ_UNIT_BYTES = 4096
_DIGITS = Context(prec=38)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A sparse global secondary index that holds some attributes of each row (INCLUDE). An item is
    in it while it has both keys."""

    name: str
    partition_key: str
    sort_key: str
    projected: Sequence[str]
    """Attributes besides the keys of index and table."""

    def row(self, item: WireItem | None) -> WireItem | None:
        """What the index holds of an item; None when it is not in it."""
        if item is None or self.partition_key not in item or self.sort_key not in item:
            return None
        names = (PARTITION_KEY, SORT_KEY, self.partition_key, self.sort_key, *self.projected)
        return {name: item[name] for name in names if name in item}

    def same_place(self, one: WireItem, other: WireItem) -> bool:
        """Whether two rows of one item stand under the same key."""
        keys = (self.partition_key, self.sort_key)
        return all(one[key] == other[key] for key in keys)


def write_units(old: WireItem | None, new: WireItem | None, indexes: Iterable[Index]) -> float:
    """Units of a put, update or delete that turned `old` into `new` (None = not there).

    "PutItem … if you overwrite an existing item, the larger of the two sizes"; "UpdateItem …
    considers the size of the item as it appears before and after the update … the larger of these
    item sizes. Even if you update just a subset of the item's attributes"; "DeleteItem … the size
    of the deleted item"; and a delete of nothing costs 1. Indexes add their own writes.
    (DynamoDB developer guide, "Write operations".)"""
    table = _write_units_of(max(item_size(old), item_size(new)))
    return table + sum(_index_units(index, index.row(old), index.row(new)) for index in indexes)


def refused_write_units(old: WireItem | None) -> float:
    """Units of a write whose condition did not hold: "DynamoDB will still consume write capacity
    units from the table … dependent on the size of the existing item (or a minimum of 1)".
    (DynamoDB developer guide, "Write operations".)"""
    return _write_units_of(item_size(old))


def get_units(item: WireItem | None, *, consistent: bool) -> float:
    """Units of reading one item: 4 KB each, half when eventually consistent. "If you perform a read
    operation on an item that does not exist, DynamoDB still consumes" one smallest read.
    (DynamoDB developer guide, "Read operations".)"""
    return read_units(item_size(item), consistent=consistent)


def query_units(items: Iterable[WireItem], *, consistent: bool) -> float:
    """Units of one page: "DynamoDB calculates the number of read capacity units consumed based on
    item size": all of them together, then rounded up.
    (DynamoDB developer guide, "Read operations", Query.)"""
    return read_units(sum(map(item_size, items)), consistent=consistent)


def read_units(size: int, *, consistent: bool) -> float:
    """Units of reading `size` bytes at once."""
    return max(1, _started(size, _READ_UNIT_BYTES)) * (1.0 if consistent else 0.5)


def _index_units(index: Index, old: WireItem | None, new: WireItem | None) -> float:
    # "Five cases" in the guide ("Provisioned throughput considerations for global secondary
    # indexes"): a row put in or taken out is one write, a changed key is both, a changed projected
    # attribute is one, all else none.
    if old is None or new is None:
        row = old or new
        return _write_units_of(item_size(row)) if row else 0.0
    if not index.same_place(old, new):
        return _write_units_of(item_size(old)) + _write_units_of(item_size(new))
    return 0.0 if old == new else _write_units_of(max(item_size(old), item_size(new)))


def _write_units_of(size: int) -> float:
    return float(max(1, _started(size, _WRITE_UNIT_BYTES)))


def _started(size: int, unit: int) -> int:
    return -(-size // unit)


def item_size(item: WireItem | None) -> int:
    """Bytes of an item: names and values. (DynamoDB developer guide, "Item sizes and formats".)"""
    if item is None:
        return 0
    size = 0
    for name, value in item.items():
        for kind, content in value.items():
            size += _text_size(name) + _SIZES[kind](content)
    return size


def _value_size(value: Wire) -> int:
    ((kind, content),) = value.items()
    return _SIZES[kind](content)


def _text_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _number_size(text: str) -> int:
    # "1 byte per two significant digits", zeros at both ends trimmed, "and 1 byte". Pairs end at
    # the decimal point, and a sign is one more; the guide leaves that out and says "approximately".
    sign, digits, exponent = _DIGITS.create_decimal(text).normalize(_DIGITS).as_tuple()
    if digits == (0,):
        return 1
    return (len(digits) + int(exponent) % 2 + 1) // 2 + 1 + sign


def _list_size(content: Sequence[Wire]) -> int:
    return 3 + sum(1 + _value_size(each) for each in content)


def _map_size(content: WireItem) -> int:
    return 3 + len(content) + item_size(content)


_SIZES: dict[str, Callable[[Any], int]] = {
    "S": _text_size,
    "N": _number_size,
    "B": len,
    "BOOL": lambda _: 1,
    "NULL": lambda _: 1,
    "L": _list_size,
    "M": _map_size,
    "SS": lambda content: sum(map(_text_size, content)),
}
