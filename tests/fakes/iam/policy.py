"""Whether a policy lets something through, by the rules of the IAM User Guide: "Policy evaluation
logic" (no Allow is a no, a Deny is a no whatever else is said), "IAM JSON policy elements: Action",
"Resource" and "Condition operators". What it does not know of a policy is an error, so that nothing
passes unread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

Statement = Mapping[str, Any]

_ELEMENTS = frozenset({"Sid", "Effect", "Action", "Resource", "Condition"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One right that a call needs."""

    action: str
    resource: str
    context: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    """Condition keys of the request; one with several values is a sequence."""


class AccessDenied(Exception):
    """No statement allows it, or one forbids it."""

    def __init__(self, ask: Ask, *, explicit: bool) -> None:
        why = "with an explicit deny" if explicit else "because no policy allows it"
        super().__init__(f"not authorized to perform {ask.action} on {ask.resource} {why}")
        self.action = ask.action


def check(statements: Sequence[Statement], ask: Ask) -> None:
    """Raise `AccessDenied` unless the statements let it through."""
    told = [each["Effect"] for each in statements if applies(each, ask)]
    if "Deny" in told or "Allow" not in told:
        raise AccessDenied(ask, explicit="Deny" in told)


def allows(statements: Sequence[Statement], ask: Ask) -> bool:
    """Whether the statements let it through."""
    try:
        check(statements, ask)
    except AccessDenied:
        return False
    return True


def applies(statement: Statement, ask: Ask) -> bool:
    """Whether a statement speaks of this."""
    if unknown := set(statement) - _ELEMENTS:
        raise ValueError(f"a statement has {', '.join(sorted(unknown))}")
    return (
        any(_like(each.lower(), ask.action.lower()) for each in listed(statement["Action"]))
        and any(_arn_like(each, ask.resource) for each in listed(statement["Resource"]))
        and all(
            _holds(operator, key, listed(wanted), ask.context)
            for operator, tests in statement.get("Condition", {}).items()
            for key, wanted in tests.items()
        )
    )


def listed(value: Any) -> list[str]:
    """One or several, as policies write them."""
    found = [value] if isinstance(value, str) else list(value)
    if any("${" in each for each in found):
        raise ValueError(f"policy variables are not known here: {found}")
    return found


def _holds(
    operator: str, key: str, wanted: Sequence[str], context: Mapping[str, str | Sequence[str]]
) -> bool:
    """One line of a condition. A key that the request lacks fulfils none of these operators."""
    quantifier, _, name = operator.rpartition(":")
    matches = _OPERATORS[name]
    found = {name.lower(): value for name, value in context.items()}.get(key.lower())
    if found is None:
        return False
    values = [found] if isinstance(found, str) else list(found)
    if quantifier == "ForAnyValue":
        return any(matches(one, each) for one in wanted for each in values)
    if quantifier or not isinstance(found, str):
        raise ValueError(f"{operator} is not known here for {key}")
    return any(matches(one, found) for one in wanted)


@lru_cache(maxsize=10_000)
def _pattern(text: str) -> re.Pattern[str]:
    kinds = {"*": ".*", "?": "."}
    return re.compile("".join(kinds.get(each, re.escape(each)) for each in text), re.DOTALL)


def _like(pattern: str, text: str) -> bool:
    return _pattern(pattern).fullmatch(text) is not None


def _arn_like(pattern: str, arn: str) -> bool:
    """Part by part, so that a `*` in one never reaches into the next; a lone `*` is everything."""
    if pattern == "*":
        return True
    parts, found = pattern.split(":", 5), arn.split(":", 5)
    return len(parts) == len(found) and all(map(_like, parts, found))


_OPERATORS: Mapping[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda wanted, found: wanted == found,
    "StringLike": _like,
    "ArnLike": _arn_like,
    "Bool": lambda wanted, found: wanted.lower() == found.lower(),
}
