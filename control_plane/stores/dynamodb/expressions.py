"""DynamoDB's expressions, written as DynamoDB writes them.

A call site says `expr("st = :st AND ep = :ep", st="queued", ep=3)`. Names need no `#` although many
short ones are reserved words: every name is sent under an alias. Values never become part of a
text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from decimal import Context, Decimal
from typing import Any

from control_plane.stores.dynamodb.items import Value, Wire, WireItem, encode, is_absent

_TOKEN = re.compile(
    r"(?P<function>[a-z_]+(?=\s*\())|(?P<keyword>\b(?:AND|OR|NOT|BETWEEN|IN)\b)"
    r"|:(?P<value>\w+)|(?P<name>[A-Za-z_]\w*)"
)
_ARITHMETIC = Context(prec=38)
"""DynamoDB adds in decimal, with 38 digits."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A condition or a filter. Keywords (`AND`, `OR`, `NOT`, `BETWEEN`, `IN`) are written large,
    functions small, everything else is a name or a `:value`."""

    text: str
    values: Mapping[str, Value] = field(default_factory=dict)


def expr(text: str, /, **values: Value) -> Expression:
    """`expr("ep = :epoch", epoch=3)`."""
    return Expression(text, values)


ABSENT = expr("attribute_not_exists(pk)")
"""There is no such item yet."""
PRESENT = expr("attribute_exists(pk)")
"""The item exists. Without it an update makes one."""


class Rendering:
    """One request's expressions, sharing their names and values."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: WireItem = {}

    def name(self, attribute: str) -> str:
        """The alias of an attribute."""
        alias = f"#{attribute}"
        self._names[alias] = attribute
        return alias

    def value(self, value: Value) -> str:
        """The placeholder of a value."""
        placeholder = f":{len(self._values)}"
        self._values[placeholder] = encode(value)
        return placeholder

    def text(self, expression: Expression) -> str:
        """An expression as the request spells it. Raises `KeyError` for a `:value` that was not
        given."""

        def spelled(token: re.Match[str]) -> str:
            if token["value"]:
                return self.value(expression.values[token["value"]])
            return self.name(token["name"]) if token["name"] else token[0]

        return _TOKEN.sub(spelled, expression.text)

    def parameters(self) -> dict[str, Any]:
        """What the texts refer to, as request parameters."""
        names = {"ExpressionAttributeNames": self._names} if self._names else {}
        values = {"ExpressionAttributeValues": self._values} if self._values else {}
        return {**names, **values}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What an update does to the attributes of one item."""

    assign: Mapping[str, Value] = field(default_factory=dict)
    """New values; one that is None (or an empty set) takes the attribute away."""
    add: Mapping[str, int | float | Decimal | frozenset[str]] = field(default_factory=dict)
    """Numbers to count up by (from 0), members to put into sets."""
    discard: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Members to take out of sets."""
    remove: Collection[str] = ()
    """Attributes to take away."""

    def marked(self, name: str, value: Value) -> Change:
        """The same change, which also assigns this attribute."""
        return replace(self, assign={**self.assign, name: value})

    @property
    def repeatable(self) -> bool:
        """Whether doing it twice is the same as doing it once."""
        return all(isinstance(each, (set, frozenset)) for each in self.add.values())

    def text(self, rendering: Rendering) -> str:
        """The update expression."""
        gone = {name for name, value in self.assign.items() if is_absent(value)}
        clauses = {
            "SET": [
                f"{rendering.name(name)} = {rendering.value(value)}"
                for name, value in self.assign.items()
                if name not in gone
            ],
            "REMOVE": [rendering.name(name) for name in sorted({*self.remove, *gone})],
            "ADD": _pairs(rendering, self.add),
            "DELETE": _pairs(rendering, self.discard),
        }
        return " ".join(f"{verb} {', '.join(parts)}" for verb, parts in clauses.items() if parts)

    def applied(self, old: WireItem) -> WireItem:
        """What the item is afterwards. DynamoDB tells either the old item or the new one; its price
        depends on both."""
        new = dict(old)
        for name in self.remove:
            new.pop(name, None)
        for name, value in self.assign.items():
            if is_absent(value):
                new.pop(name, None)
            else:
                new[name] = encode(value)
        for name, more in self.add.items():
            new[name] = _sum(old.get(name), encode(more))
        for name, members in self.discard.items():
            _discard(new, name, members)
        return new


def _pairs(rendering: Rendering, values: Mapping[str, Value]) -> list[str]:
    return [f"{rendering.name(name)} {rendering.value(value)}" for name, value in values.items()]


def _sum(old: Wire | None, more: Wire) -> Wire:
    if old is None:
        return more
    if "SS" in more:
        return {"SS": sorted({*old["SS"], *more["SS"]})}
    total = _ARITHMETIC.add(Decimal(old["N"]), Decimal(more["N"]))
    return {"N": str(total)}


def _discard(item: WireItem, name: str, members: frozenset[str]) -> None:
    if name in item:
        left = set(item[name]["SS"]) - members
        if left:
            item[name] = {"SS": sorted(left)}
        else:
            del item[name]
