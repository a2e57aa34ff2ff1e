"""What pydantic refuses, in words: each of its errors as one problem with its place in the text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from control_plane.config.errors import Problem, did_you_mean
from control_plane.config.fields import kind_of
from control_plane.config.schema import PLACES, place_of
from control_plane.config.yaml_tree import Loc, Tree

_EXAMPLES = {
    "apiVersion": "apiVersion: orchctl/v1",
    "kind": "kind: Autoscaler",
    "name": "name: research",
    "queues": "queues: {default: {pools: [local]}}",
    "pools": "pools: {local: {clouds: {local: {}}}}",
    "clouds": "clouds: {aws: {regions: [us-east-1]}}",
    "regions": "regions: [us-east-1]",
    "project": "project: acme-ml",
    "resource_group": "resource_group: orchctl",
    "cron": 'cron: "0 8 * * MON-FRI"',
    "for": "for: 10h",
    "machines": "machines: 1",
    "on": "on: [budget, no-capacity]",
}
"""How a required field looks, for whoever forgot it. Wherever one name occurs, one line fits."""
_EXAMPLES_AT: dict[tuple[str, ...], str] = {
    ("queues", "*", "pools"): "pools: [l4]",
    ("pools", "*", "machines"): "machines: {max: 4}",
    ("pools", "*", "warm"): 'warm: [{cron: "0 8 * * MON-FRI", for: 10h, machines: 1}]',
    ("pools", "*", "closed"): 'closed: [{cron: "0 20 * * FRI", for: 60h}]',
    ("pools", "*", "gpus_max"): "gpus_max: 8",
    ("pools", "*", "clouds", "gcp", "regions"): "regions: [us-central1]",
    ("pools", "*", "clouds", "azure", "regions"): "regions: [eastus]",
}
"""Where it does not."""

_WANTED = {
    "dict_type": "a map (`name: …` lines, or `{…}`)",
    "model_type": "a map (`name: …` lines, or `{…}`)",
    "list_type": "a list (`- …` lines, or `[…]`)",
    "string_type": "a text",
    "int_type": "a whole number",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    """One of pydantic's errors, with the text it is about."""

    detail: ErrorDetails
    loc: Loc
    tree: Tree

    @property
    def found(self) -> str:
        return kind_of(self.detail["input"])


def problems_of(error: ValidationError, tree: Tree) -> Iterator[Problem]:
    """The problems of one document, in no order."""
    for detail in error.errors(include_url=False):
        # For a bad key pydantic adds a step of its own to the key's place.
        loc = tuple(step for step in detail["loc"] if step != "[key]")
        yield _WORDS.get(detail["type"], _other)(_Refusal(detail=detail, loc=loc, tree=tree))


def _unknown(it: _Refusal) -> Problem:
    word, place = str(it.loc[-1]), place_of(it.loc[:-1])
    fields = sorted(place.fields) if place else []
    takes = f"takes: {', '.join(fields)}" if fields else "takes no fields: write `{}`"
    return it.tree.problem(
        it.loc,
        f"unknown field `{word[:40]}`",
        why=f"{place.noun if place else 'this'} {takes}",
        fix=did_you_mean(word, fields) or _elsewhere(word),
        at_key=True,
    )


def _elsewhere(word: str) -> str:
    """Where in the document a field belongs that is right but misplaced."""
    nouns = [place.noun for place in PLACES if word in place.fields]
    return f"it is a field of {' and of '.join(nouns)}" if nouns else ""


def _example(loc: Loc) -> str:
    """How the field at a place looks, ready to be added; empty when no example is kept for it."""
    if not loc:
        return ""
    field, place = str(loc[-1]), place_of(loc[:-1])
    usual = _EXAMPLES.get(field, "")
    return _EXAMPLES_AT.get((*place.pattern, field), usual) if place else usual


def _missing(it: _Refusal) -> Problem:
    place, example = place_of(it.loc[:-1]), _example(it.loc)
    return it.tree.problem(
        it.loc[:-1],
        f"`{it.loc[-1]}` is missing",
        why=f"{place.noun if place else 'this'} needs it",
        fix=f"add it, such as `{example}`" if example else "",
        at_key=True,
    )


def _kind(it: _Refusal) -> Problem:
    what = f"expected {_WANTED[it.detail['type']]}, found {it.found}"
    example = _example(it.loc)
    return it.tree.problem(it.loc, what, fix=f"write it like `{example}`" if example else "")


def _too_small(it: _Refusal) -> Problem:
    bound = it.detail["ctx"]["ge"]
    return it.tree.problem(it.loc, f"{it.found} is too small", why=f"at least {bound}")


def _too_large(it: _Refusal) -> Problem:
    bound = it.detail["ctx"]["le"]
    return it.tree.problem(it.loc, f"{it.found} is too large", why=f"at most {bound}")


def _empty(it: _Refusal) -> Problem:
    example = _example(it.loc)
    fix = f"add one, such as `{example}`" if example else ""
    what = f"`{it.loc[-1]}` is empty"
    return it.tree.problem(it.loc, what, why="it needs at least one entry", fix=fix)


def _refused(it: _Refusal) -> Problem:
    words: dict[str, Any] = it.detail["ctx"]
    is_key = it.detail["loc"][-1] == "[key]"
    return it.tree.problem(it.loc, words["what"], why=words["why"], fix=words["fix"], at_key=is_key)


def _other(it: _Refusal) -> Problem:
    return it.tree.problem(it.loc, it.detail["msg"])


_WORDS: dict[str, Callable[[_Refusal], Problem]] = {
    "extra_forbidden": _unknown,
    "missing": _missing,
    "refused": _refused,
    "greater_than_equal": _too_small,
    "less_than_equal": _too_large,
    "too_short": _empty,
    **dict.fromkeys(_WANTED, _kind),
}
