"""Writing what agents are told, by serializers that are made of the types once: to find out from
each value anew what it is made of takes three times as long."""

from __future__ import annotations

from dataclasses import is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from pydantic_core import CoreSchema, SchemaSerializer
from pydantic_core import core_schema as schema

_PLAIN = {
    str: schema.str_schema(),
    int: schema.int_schema(),
    float: schema.float_schema(),
    bool: schema.bool_schema(),
}


def written(answer: object) -> bytes:
    """An answer of `wire` as JSON."""
    kind: Any = type(answer)
    # A whole number where a fraction may stand is no mistake.
    return _serializer(kind).to_json(answer, warnings=False)


@cache
def _serializer(kind: Any) -> SchemaSerializer:
    return SchemaSerializer(_schema(kind))


def _schema(hint: Any) -> CoreSchema:
    if isinstance(hint, type) and is_dataclass(hint):
        parts = {name: _schema(each) for name, each in get_type_hints(hint).items()}
        fields = [schema.dataclass_field(name, part) for name, part in parts.items()]
        arguments = schema.dataclass_args_schema(hint.__name__, fields)
        return schema.dataclass_schema(hint, arguments, list(parts))
    if get_origin(hint) is list:
        return schema.list_schema(_schema(get_args(hint)[0]))
    if get_origin(hint) is dict:
        return schema.dict_schema(*map(_schema, get_args(hint)))
    return _PLAIN[hint]
