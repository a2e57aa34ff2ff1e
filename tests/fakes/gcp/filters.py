"""The `filter` of listings: `field=value`, `field:part`, `field:*`, `AND`, `OR`, parentheses, and
the older `field eq regex`. As in the API, the two kinds do not mix, and unknown fields are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from tests.fakes.gcp.discovery import ApiError, Json

Match = Callable[[Json], bool]

_TOKEN = re.compile(
    r"""\s*(?:(?P<mark>[()]|!=|<=|>=|=|:|<|>)|"(?P<double>[^"]*)"|'(?P<single>[^']*)'"""
    r"""|(?P<word>[^\s()"'=:<>!]+))"""
)
_REGEX = re.compile(r"""\(?\s*([\w.-]+)\s+(eq|ne)\s+(?:"([^"]*)"|'([^']*)'|([^\s)]+))\s*\)?\s*""")


def parse(text: str, fields: Collection[str]) -> Match:
    """A test for listed things. Raises 400."""
    if not text.strip():
        return lambda thing: True
    if re.search(r"\s(eq|ne)\s", text):
        return _regular(text, fields)
    return _Parser(text, fields).parse()


def _refuse(text: str, why: str) -> ApiError:
    return ApiError(400, "invalid", f"Invalid value for field 'filter': '{text}'. {why}")


def _regular(text: str, fields: Collection[str]) -> Match:
    matches: list[Match] = []
    at = 0
    while at < len(text):
        found = _REGEX.match(text, at)
        if found is None:
            raise _refuse(text, "Regular expressions cannot be mixed with other operators.")
        _known(text, found[1], fields)
        pattern = re.compile(found[3] or found[4] or found[5] or "")
        matches.append(_regex(found[1], pattern, wanted=found[2] == "eq"))
        at = found.end()
    return lambda thing: all(match(thing) for match in matches)


def _regex(path: str, pattern: re.Pattern[str], *, wanted: bool) -> Match:
    return lambda thing: (pattern.fullmatch(_value(thing, path) or "") is not None) == wanted


def _known(text: str, path: str, fields: Collection[str]) -> None:
    if path.partition(".")[0] not in fields:
        raise _refuse(text, f"Field '{path}' does not exist.")


def _value(thing: Json, path: str) -> str | None:
    """A nested value as text; None = not there."""
    found: object = thing
    first, _, rest = path.partition(".")
    for name in (first, *([rest] if first == "labels" else rest.split(".") if rest else [])):
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return str(found).lower() if isinstance(found, bool) else str(found)


@dataclass(slots=True)
class _Parser:
    text: str
    fields: Collection[str]
    at: int = 0

    def parse(self) -> Match:
        match = self._terms()
        if self._peek():
            raise _refuse(self.text, "Unexpected end.")
        return match

    def _terms(self) -> Match:
        """Terms joined by `AND`, by nothing (the same) or by `OR`; a mixture needs parentheses."""
        matches, joins = [self._term()], set[str]()
        while (token := self._peek()) and token != ")":
            if token in ("AND", "OR"):
                self._next()
            joins.add("OR" if token == "OR" else "AND")
            matches.append(self._term())
        if len(joins) > 1:
            raise _refuse(self.text, "AND and OR need parentheses.")
        joined = any if joins == {"OR"} else all
        return lambda thing: joined(match(thing) for match in matches)

    def _term(self) -> Match:
        if self._peek() == "(":
            self._next()
            match = self._terms()
            if self._next() != ")":
                raise _refuse(self.text, "A parenthesis is not closed.")
            return match
        path, operator, value = self._next(), self._next(), self._next()
        _known(self.text, path, self.fields)
        return self._comparison(path, operator, value)

    def _comparison(self, path: str, operator: str, value: str) -> Match:
        if operator == "=":
            return lambda thing: _value(thing, path) == value
        if operator == "!=":
            return lambda thing: _value(thing, path) != value
        if operator == ":" and value == "*":
            return lambda thing: _value(thing, path) is not None
        if operator == ":":
            return lambda thing: value in (_value(thing, path) or "")
        raise _refuse(self.text, f"Operator '{operator}' is not known here.")

    def _peek(self) -> str:
        found = _TOKEN.match(self.text, self.at)
        return _text(found) if found else ""

    def _next(self) -> str:
        found = _TOKEN.match(self.text, self.at)
        if found is None:
            raise _refuse(self.text, "Syntax error.")
        self.at = found.end()
        return _text(found)


def _text(found: re.Match[str]) -> str:
    return next((part for part in found.groups() if part is not None), "")
