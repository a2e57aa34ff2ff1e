"""Reading agents' messages, every value checked, because agents are guests; and writing answers.

As with `wire.parse`, unknown fields are ignored and missing ones take their default, so that an
older agent and a newer server understand each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic_core import CoreSchema, SchemaSerializer, SchemaValidator, ValidationError
from pydantic_core import core_schema as schema
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
_NO_NUL = r"^[^\x00]*$"

M = TypeVar("M")


async def read(request: Request, kind: type[M]) -> M:
    """The message in a request's body. Raises `Malformed`, `InvalidInput`."""
    return message(kind, await request.body())


def message(kind: type[M], body: bytes) -> M:
    """The message in these bytes. Raises `Malformed`, `InvalidInput`."""
    hint: Any = kind
    try:
        found: M = _validator(hint).validate_json(body or b"{}")
        _check_meaning(found)
    except ValidationError as error:
        raise _refusal(kind, error) from error
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    return found


def written(answer: object) -> bytes:
    """An answer of `wire` as JSON."""
    kind: Any = type(answer)
    # A whole number where a fraction may stand is no mistake.
    return _serializer(kind).to_json(answer, warnings=False)


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


@cache
def _validator(kind: Any) -> SchemaValidator:
    return SchemaValidator(_schema(kind))


@cache
def _serializer(kind: Any) -> SchemaSerializer:
    return SchemaSerializer(_schema(kind))


def _schema(hint: Any) -> CoreSchema:
    """What a type of `wire` is made of, to read it and to write it."""
    if isinstance(hint, type) and is_dataclass(hint):
        return _message_schema(hint)
    parts = [_schema(each) for each in get_args(hint)]
    if get_origin(hint) is list:
        return schema.list_schema(*parts, max_length=LIST_MAX)
    if get_origin(hint) is dict:
        return schema.dict_schema(*parts, max_length=LIST_MAX)
    return _PLAIN[hint]


def _message_schema(kind: type) -> CoreSchema:
    hints = get_type_hints(kind)
    found = [
        schema.dataclass_field(field.name, _or_default(field, _schema(hints[field.name])))
        for field in fields(kind)
    ]
    arguments = schema.dataclass_args_schema(kind.__name__, found)
    strict = schema.CoreConfig(strict=True)
    return schema.dataclass_schema(kind, arguments, list(hints), config=strict)


def _or_default(field: Field[Any], inner: CoreSchema) -> CoreSchema:
    if field.default is not MISSING:
        return schema.with_default_schema(inner, default=field.default)
    if field.default_factory is not MISSING:
        return schema.with_default_schema(inner, default_factory=field.default_factory)
    return inner


_PLAIN: Mapping[Any, CoreSchema] = {
    str: schema.str_schema(max_length=TEXT_MAX, pattern=_NO_NUL),
    int: schema.int_schema(ge=-INT_MAX, le=INT_MAX),
    float: schema.float_schema(ge=-INT_MAX, le=INT_MAX, allow_inf_nan=False),
    bool: schema.bool_schema(),
}


def _refusal(kind: type, error: ValidationError) -> InvalidInput:
    """What is wrong first, without the value: it may be long, or a secret."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return Malformed(f"the body is not JSON ({first['msg']})")
    where = ".".join(map(str, (kind.__name__, *first["loc"])))
    return InvalidInput(f"{where}: {first['msg']}")


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
