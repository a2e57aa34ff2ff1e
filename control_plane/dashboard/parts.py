"""The vocabulary of the pages: cells, tables, actions, figures on cards. Templates draw these and
decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from markupsafe import Markup

from control_plane.dashboard.format import NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something to do: a form that works without script, or a link to the page that asks first."""

    label: str
    url: str
    name: str = ""
    """For those who do not see the label in its place, such as `drain m-17`."""
    fields: Mapping[str, str] = field(default_factory=dict)
    css: str = ""
    asks: bool = False
    """The url is a page that shows what would happen."""
    disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One value of a table."""

    text: str | Markup = ""
    href: str = ""
    sub: str = ""
    css: str = ""
    tip: str = ""
    actions: Sequence[Action] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Empty:
    """What stands where nothing is yet: why, and the command that changes it."""

    text: str
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns, rows, and totals below them."""

    columns: Sequence[tuple[str, str]]
    """Heading and css; `num` sets figures to the right."""
    rows: Sequence[Sequence[Cell]]
    foot: Sequence[Cell] = ()
    empty: Empty = Empty(text="Nothing here.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kpi:
    """One figure on a card."""

    label: str
    value: str
    note: str
    href: str
    css: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One line of a description."""

    name: str
    cell: Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Legend:
    """One entry of a chart's key."""

    name: str
    css: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One choice of a selection."""

    value: str
    text: str
    chosen: bool = False


def url(*parts: str, **query: str | Sequence[str]) -> str:
    """A path with its parts escaped, and a query without its empty values."""
    path = "/" + "/".join(quote(part, safe="") for part in parts)
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def badge(text: str, css: str = "") -> Markup:
    """A word in a coloured frame."""
    return Markup('<span class="{}">{}</span>').format(f"badge {css}".strip(), text)


def dot(name: str, css: str) -> Markup:
    """A coloured dot before a name."""
    return Markup('<span class="dot {}"></span>{}').format(css, name)


def num(text: str, *, href: str = "", css: str = "", sub: str = "", tip: str = "") -> Cell:
    """A figure."""
    return Cell(text=text, href=href, css=f"num {css}".strip(), sub=sub, tip=tip)


def fact(name: str, text: str | Markup, *, href: str = "", sub: str = "", css: str = "") -> Fact:
    """A line of a description with one value; an empty one shows as a dash."""
    return Fact(name=name, cell=Cell(text=text or NOTHING, href=href, sub=sub, css=css))


_FIXED = {
    "aws": "s0",
    "gcp": "s1",
    "azure": "s2",
    "local": "s3",
    "simulated": "s4",
    "ssh": "s5",
    "(idle)": "sx",
    "(boot)": "sx pale",
    "other": "sx",
}
_COLOURS = 8


def colour(name: str, position: int) -> str:
    """The colour class of a group: fixed for clouds and for nobody's time, else by position."""
    return _FIXED.get(name, f"s{position % _COLOURS}")
