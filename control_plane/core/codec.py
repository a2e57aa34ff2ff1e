"""Frozen dataclasses to plain JSON values and back, by their type hints alone.

One codec serves the snapshot file, the rows of the stores and the bodies of the API, so a value
reads the same wherever a person meets it. Decimal travels as text (never as a float), datetimes as
ISO 8601 with offset, enums as their value, tuples as lists. Unknown keys are ignored on the way in,
so an older program reads what a newer one wrote; a missing key takes the field's default.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, cast

from control_plane.core.model import Capacity, Offer

T = TypeVar("T")
Json = Any
_Convert = Callable[[Any], Any]

_SHARED = frozenset({Capacity, Offer})
"""Of these there are few, and every machine has some: where equal ones are one, whoever counts
machines can count them by what they share."""
_SHARED_MAX = 16_384


def to_json(value: object) -> Json:
    """Turn a frozen value into JSON-ready plain data."""
    kind: Any = type(value)
    return _encoder(kind)(value)


def from_json(kind: type[T], data: Json) -> T:
    """Build a value of `kind` from plain data; raises `ValueError` naming what does not fit."""
    try:
        hint: Any = kind
        return cast("T", _decoder(hint)(data))
    except (ValueError, TypeError, AttributeError, ArithmeticError, LookupError) as error:
        raise ValueError(f"not a {getattr(kind, '__name__', kind)}: {error}") from error


def _same(value: Any) -> Any:
    return value


@cache
def _encoder(kind: Any) -> _Convert:
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
        return lambda value: {name: to_json(getattr(value, name)) for name in names}
    if issubclass(kind, Enum):
        return lambda value: value.value
    if issubclass(kind, Decimal):
        return str
    if issubclass(kind, datetime):
        return lambda value: value.isoformat()
    if issubclass(kind, (tuple, list)):
        return lambda value: [to_json(item) for item in value]
    if issubclass(kind, (set, frozenset)):
        return lambda value: sorted(to_json(item) for item in value)
    if issubclass(kind, Mapping):
        return lambda value: {str(key): to_json(item) for key, item in value.items()}
    if issubclass(kind, (str, int, float, bool, types.NoneType)):
        return _same
    raise TypeError(f"no JSON form for {kind.__name__}")


@cache
def _decoder(kind: Any) -> _Convert:
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        return _optional(kind)
    if origin is tuple:
        return _tuple(typing.get_args(kind))
    if origin is frozenset:
        item = _decoder(typing.get_args(kind)[0])
        return lambda data: frozenset(item(each) for each in data)
    if origin is not None and issubclass(origin, Mapping):
        key, item = (_decoder(each) for each in typing.get_args(kind))
        return lambda data: {key(name): item(each) for name, each in data.items()}
    if isinstance(kind, type):
        return _plain(kind)
    raise TypeError(f"no JSON form for {kind}")


def _plain(kind: type) -> _Convert:
    if dataclasses.is_dataclass(kind):
        return _shared(_dataclass(kind)) if kind in _SHARED else _dataclass(kind)
    if issubclass(kind, datetime):
        return datetime.fromisoformat
    if issubclass(kind, (Enum, Decimal)):
        return kind
    if issubclass(kind, float):
        return float
    if kind in (str, int, bool, types.NoneType):
        return lambda data: _checked(kind, data)
    raise TypeError(f"no JSON form for {kind.__name__}")


def _checked(kind: type, data: Any) -> Any:
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise TypeError(f"expected {kind.__name__}, got {type(data).__name__}")
    return data


def _optional(kind: Any) -> _Convert:
    members = [member for member in typing.get_args(kind) if member is not types.NoneType]
    if len(members) != 1:
        raise TypeError(f"only `X | None` has a JSON form, not {kind}")
    inner = _decoder(members[0])
    return lambda data: None if data is None else inner(data)


def _tuple(arguments: tuple[Any, ...]) -> _Convert:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        item = _decoder(arguments[0])
        return lambda data: tuple(item(each) for each in data)
    items = [_decoder(each) for each in arguments]
    return lambda data: tuple(item(each) for item, each in zip(items, data, strict=True))


def _shared(decode: _Convert) -> _Convert:
    """The same value for the same data, as long as there are not too many."""
    kept: dict[str, Any] = {}

    def decode_once(data: Any) -> Any:
        # The text tells 1 from true and 1.0 from 1.00, which are equal.
        text = json.dumps(data)
        value = kept.get(text)
        if value is None:
            value = decode(data)
            if len(kept) >= _SHARED_MAX:
                kept.clear()
            kept[text] = value
        return value

    return decode_once


def _dataclass(kind: type) -> _Convert:
    hints = typing.get_type_hints(kind)
    fields = [(field.name, _decoder(hints[field.name])) for field in dataclasses.fields(kind)]

    def decode(data: Any) -> Any:
        return kind(**{name: convert(data[name]) for name, convert in fields if name in data})

    return decode
