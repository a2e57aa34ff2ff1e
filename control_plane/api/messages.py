"""Reading agents' messages, every value checked, because agents are guests.

As with `wire.parse`, unknown fields are ignored and missing ones take their default, so that an
older agent and a newer server understand each other.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from starlette.requests import Request

from agent_bootstrap import wire
from control_plane.api.names import ID, safe_file_name
from control_plane.api.problems import Malformed
from control_plane.errors import InvalidInput

TEXT_MAX = 32 * 1024
LIST_MAX = 10_000
INT_MAX = 2**53
NOTICE_MAX_S = 86_400.0

_OUTCOMES = ("succeeded", "failed", "cancelled", "returned", "interrupted")
_NAME = re.compile(r"[\x21-\x7e]{1,200}")
_SHA256 = re.compile("[0-9a-f]{64}")

M = TypeVar("M")


async def read(request: Request, kind: type[M]) -> M:
    """The message in a request's body. Raises `Malformed`, `InvalidInput`."""
    return message(kind, await request.body())


def message(kind: type[M], body: bytes) -> M:
    """The message in these bytes. Raises `Malformed`, `InvalidInput`."""
    try:
        data = _JSON.decode(body.decode() or "{}")
    except (ValueError, RecursionError) as error:
        raise Malformed("the body is not JSON") from error
    try:
        hint: Any = kind
        found: M = _reader(hint, kind.__name__)(data)
        _check_meaning(found)
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    return found


def job_id(text: str) -> str:
    """A job id out of a path. Raises `InvalidInput`."""
    if not re.fullmatch(ID, text):
        raise InvalidInput("this is not a job id")
    return text


def whole_number(request: Request, name: str) -> int:
    """A query parameter that is a whole number from 0. Raises `InvalidInput`."""
    text = request.query_params.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):
        raise InvalidInput(f"`{name}` must be a whole number")
    return int(text)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_JSON = json.JSONDecoder(parse_constant=_no_constant)
_Reader = Callable[[Any], Any]


@cache
def _reader(hint: Any, where: str) -> _Reader:
    """What makes a value of this type from JSON data; raises `ValueError` where one is not of its
    type, or beyond all measure."""
    if isinstance(hint, type) and is_dataclass(hint):
        return _message_reader(hint, where)
    if get_origin(hint) is list:
        return _list_reader(_reader(get_args(hint)[0], where), where)
    if get_origin(hint) is dict:
        return _texts_reader(_list_reader(_reader(str, where), where), where)
    return _plain_reader(hint, where)


def _message_reader(kind: type, where: str) -> _Reader:
    readers = {
        name: _reader(hint, f"{where}.{name}") for name, hint in get_type_hints(kind).items()
    }

    def read(data: Any) -> Any:
        known = {
            name: readers[name](value)
            for name, value in _object(data, where).items()
            if name in readers
        }
        try:
            return kind(**known)
        except TypeError as error:
            raise ValueError(f"not a {kind.__name__}: {error}") from error

    return read


def _list_reader(item: _Reader, where: str) -> _Reader:
    def read(data: Any) -> list[Any]:
        if not isinstance(data, list) or len(data) > LIST_MAX:
            raise ValueError(f"{where} is not a usable list")
        return [item(each) for each in data]

    return read


def _texts_reader(texts: _Reader, where: str) -> _Reader:
    def read(data: Any) -> dict[str, str]:
        texts([*_object(data, where), *data.values()])
        return dict(data)

    return read


def _plain_reader(kind: type, where: str) -> _Reader:
    def read(data: Any) -> Any:
        if not _is_plain(kind, data):
            raise ValueError(f"{where} is not a usable {kind.__name__}")
        return data

    return read


def _object(data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"{where} is not a JSON object")
    return data


def _is_plain(hint: type, value: Any) -> bool:
    if hint is str:
        return isinstance(value, str) and len(value) <= TEXT_MAX and _storable(value)
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, int | float) and math.isfinite(value) and abs(value) <= INT_MAX
    return hint is int and isinstance(value, int) and abs(value) <= INT_MAX


def _storable(text: str) -> bool:
    """Whether a text can be written as UTF-8 and has no NUL."""
    if "\x00" in text:
        return False
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _check_meaning(found: object) -> None:
    match found:
        case wire.Hello():
            _check_name(found.machine_id)
        case wire.Register():
            _check_identity(found)
            _check_not_negative(getattr(found.found, each.name) for each in fields(found.found))
        case wire.Claim():
            _check_not_negative([found.limit])
        case wire.Started():
            _check_not_negative([found.epoch])
        case wire.Notice():
            _check_not_negative([found.seconds_left])
            if found.seconds_left > NOTICE_MAX_S:
                raise ValueError("a notice is at most a day ahead")
        case wire.Upload():
            _check_not_negative([found.epoch, found.size_bytes])
            if not _SHA256.fullmatch(found.sha256):
                raise ValueError("a SHA-256 is 64 digits of lower-case hex")
        case wire.Finished():
            _check_finished(found)


def _check_finished(found: wire.Finished) -> None:
    if found.outcome not in _OUTCOMES:
        raise ValueError(f"an outcome is one of {', '.join(_OUTCOMES)}")
    _check_not_negative([found.epoch, *(each.size_bytes for each in found.artifacts)])
    for each in found.artifacts:
        safe_file_name(each.name)


def _check_identity(found: wire.Register) -> None:
    _check_name(found.machine_id)
    _check_name(found.instance)
    if not all(text.isascii() for text in found.proof.values()):
        raise ValueError("a proof is plain text")


def _check_name(text: str) -> None:
    if not _NAME.fullmatch(text):
        raise ValueError("a machine and its instance are named by at most 200 plain characters")


def _check_not_negative(values: Iterable[Any]) -> None:
    if any(not isinstance(value, str) and value < 0 for value in values):
        raise ValueError("a number is negative")
