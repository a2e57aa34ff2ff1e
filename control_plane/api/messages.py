"""Reading agents' messages: `wire.parse`, and then every value checked, because agents are guests.

`wire` itself stays lenient, so that an older agent and a newer server understand each other.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from starlette.requests import Request

from agent_bootstrap import wire
from control_plane.api.fields import ID, safe_file_name
from control_plane.api.problems import Malformed
from control_plane.errors import InvalidInput

TEXT_MAX = 32 * 1024
LIST_MAX = 10_000
INT_MAX = 2**53
NOTICE_MAX_S = 86_400.0

_OUTCOMES = ("succeeded", "failed", "cancelled", "returned", "interrupted")
_NAME = re.compile(r"[\x21-\x7e]{1,200}")

M = TypeVar("M")


async def read(request: Request, kind: type[M]) -> M:
    """The message in a request's body. Raises `Malformed`, `InvalidInput`."""
    return message(kind, await request.body())


def message(kind: type[M], body: bytes) -> M:
    """The message in these bytes. Raises `Malformed`, `InvalidInput`."""
    try:
        data = json.loads(body or b"{}", parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed("the body is not JSON") from error
    try:
        _check(kind, data, kind.__name__)
        found = wire.parse(kind, data)
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


def _check(hint: Any, value: Any, where: str) -> None:
    """Raise `ValueError` where a value is not of its type, or beyond all measure."""
    if isinstance(hint, type) and is_dataclass(hint):
        hints = _hints(hint)
        for name in _keys(value, where) & set(hints):
            _check(hints[name], value[name], f"{where}.{name}")
    elif get_origin(hint) is list:
        _check_items(get_args(hint)[0], value, where)
    elif get_origin(hint) is dict:
        _check_items(str, [*_keys(value, where), *value.values()], where)
    elif not _is_plain(hint, value):
        raise ValueError(f"{where} is not a usable {hint.__name__}")


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _keys(value: Any, where: str) -> set[str]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not a JSON object")
    return set(value)


def _check_items(hint: Any, items: Any, where: str) -> None:
    if not isinstance(items, list) or len(items) > LIST_MAX:
        raise ValueError(f"{where} is not a usable list")
    for item in items:
        _check(hint, item, where)


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
    try:
        return b"\x00" not in text.encode()
    except UnicodeEncodeError:
        return False


def _check_meaning(found: object) -> None:
    match found:
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
        case wire.Finished():
            _check_finished(found)


def _check_finished(found: wire.Finished) -> None:
    if found.outcome not in _OUTCOMES:
        raise ValueError(f"an outcome is one of {', '.join(_OUTCOMES)}")
    _check_not_negative([found.epoch, *(each.size_bytes for each in found.artifacts)])
    for each in found.artifacts:
        safe_file_name(each.name)


def _check_identity(found: wire.Register) -> None:
    if not (_NAME.fullmatch(found.machine_id) and _NAME.fullmatch(found.instance)):
        raise ValueError("a machine and its instance are named by at most 200 plain characters")
    if not all(text.isascii() for text in found.proof.values()):
        raise ValueError("a proof is plain text")


def _check_not_negative(values: Iterable[Any]) -> None:
    if any(not isinstance(value, str) and value < 0 for value in values):
        raise ValueError("a number is negative")
