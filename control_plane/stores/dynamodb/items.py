"""Python values to DynamoDB's attribute values and back.

Written by hand instead of boto3's `TypeDeserializer`, which costs a quarter of the time of a full
page. Numbers travel as text that gives a float back exactly; DynamoDB keeps 38 digits and forgets
how a number was written, so whole numbers are read as `int` and all others as `float`. Money that
must stay a `Decimal` therefore travels as text, as in `core.codec`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from math import isfinite
from typing import Any, TypeAlias

Value: TypeAlias = Any
"""`str`, `int`, `float`, `Decimal`, `bool`, `bytes`, `None`, a list or tuple, a mapping with text
keys, or a set of text."""
Item: TypeAlias = dict[str, Value]
"""What an item reads as: attribute names to values."""
Wire: TypeAlias = dict[str, Any]
"""One attribute value as DynamoDB spells it, for example `{"N": "3"}`."""
WireItem: TypeAlias = dict[str, Wire]

TOKEN = "w"
"""The attribute that marks a conditional write; `client.py` says what for. Nobody else uses it."""


_DIGITS = 38
_WHOLE = 10**_DIGITS
_LEAST, _TOO_MUCH = Decimal("1e-130"), Decimal("1e126")
"""What a number can be. (DynamoDB developer guide, "Data types", Number.)"""


def encode_item(item: Mapping[str, Value]) -> WireItem:
    """An item in DynamoDB's spelling. Attributes that are None or an empty set are left out:
    absence is how DynamoDB says both, and keeps a row out of a sparse index."""
    return {name: encode(value) for name, value in item.items() if not is_absent(value)}


def is_absent(value: Value) -> bool:
    """Whether an attribute with this value is one that is not there."""
    return value is None or (isinstance(value, (set, frozenset)) and not value)


def encode(value: Value) -> Wire:
    """One value in DynamoDB's spelling. Raises `TypeError` for what it cannot hold, `ValueError`
    for a number that is none."""
    encoder = _ENCODERS.get(type(value)) or _inherited(value)
    return encoder(value)


def decode_item(item: Mapping[str, Wire]) -> Item:
    """An item as Python values, without the write's token."""
    values = _read_map(item)
    values.pop(TOKEN, None)
    return values


def decode(value: Mapping[str, Any]) -> Value:
    """One value as Python has it."""
    ((kind, content),) = value.items()
    return _DECODERS[kind](content)


def _whole(value: int) -> Wire:
    if abs(value) >= _WHOLE:
        raise ValueError(f"DynamoDB has no number {value}: that is more than {_DIGITS} digits")
    return {"N": str(value)}


def _float(value: float) -> Wire:
    # The shortest text of a large float, such as 3.6e16, is that of another whole number.
    whole = value.is_integer() and abs(value) < _WHOLE
    return {"N": str(int(value))} if whole else _number(value)


def _number(value: float | Decimal) -> Wire:
    if not isfinite(value) or (value and not _LEAST <= abs(Decimal(value)) < _TOO_MUCH):
        raise ValueError(f"DynamoDB has no number {value}")
    return {"N": str(value)}


def _set(value: frozenset[str]) -> Wire:
    if not value or not all(isinstance(member, str) for member in value):
        raise TypeError("a set for DynamoDB has at least one member, and only text")
    return {"SS": sorted(value)}


def _read_map(content: Mapping[str, Wire]) -> Item:
    # One comprehension, for pages of thousands of items: the inner loop has one turn.
    return {
        name: _DECODERS[kind](each)
        for name, value in content.items()
        for kind, each in value.items()
    }


def _read_number(text: str) -> int | float:
    if text.isdigit() and len(text) <= _DIGITS:
        return int(text)
    number = float(text)
    return int(Decimal(text)) if number.is_integer() and abs(number) < _WHOLE else number


def _inherited(value: Value) -> Callable[[Any], Wire]:
    """For values of a subclass: an enum of text, a named tuple, a mapping of another kind."""
    for kind, encoder in _ENCODERS.items():
        if isinstance(value, kind):
            return encoder
    raise TypeError(f"DynamoDB cannot hold a {type(value).__name__}")


def _map(value: Mapping[str, Value]) -> Wire:
    return {"M": {name: encode(each) for name, each in value.items()}}


def _list(value: list[Value]) -> Wire:
    return {"L": [encode(each) for each in value]}


# `bool` stands before `int`, whose subclass it is.
_ENCODERS: dict[type, Callable[[Any], Wire]] = {
    str: lambda value: {"S": value},
    bool: lambda value: {"BOOL": value},
    int: _whole,
    float: _float,
    Decimal: _number,
    bytes: lambda value: {"B": value},
    type(None): lambda _: {"NULL": True},
    list: _list,
    tuple: _list,
    dict: _map,
    frozenset: _set,
    set: _set,
    Mapping: _map,
}

_DECODERS: dict[str, Callable[[Any], Value]] = {
    "S": str,
    "N": _read_number,
    "BOOL": bool,
    "B": bytes,
    "NULL": lambda _: None,
    "L": lambda content: [decode(each) for each in content],
    "M": _read_map,
    "SS": frozenset,
}
