"""What commands print: results on stdout in the chosen format, messages on stderr.

Colour only ever repeats what a word says already. `NO_COLOR` switches it off, `FORCE_COLOR` on.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TextIO

from orchctl.errors import OrchctlError

Row = Mapping[str, Any]


class Format(StrEnum):
    """How a result is written."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class ColorChoice(StrEnum):
    """When colour is used."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table: its heading and the cell of a row."""

    heading: str
    cell: Callable[[Row], str]
    right: bool = False
    wide: bool = False
    """Only in the `wide` format."""


_GREEN, _YELLOW, _RED, _DIM = "32", "33", "31", "2"
_COLORS = {
    **dict.fromkeys(("ready", "succeeded", "running", "ok"), _GREEN),
    **dict.fromkeys(("queued", "leased", "booting", "launching", "draining", "paused"), _YELLOW),
    **dict.fromkeys(("failed", "lost", "exhausted", "interrupted", "boot_failed"), _RED),
    **dict.fromkeys(("launch_failed", "error:"), _RED),
    **dict.fromkeys(("cancelled", "terminated"), _DIM),
}
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def color_wanted(stream: TextIO, choice: ColorChoice = ColorChoice.AUTO) -> bool:
    """Whether to colour what goes to `stream`."""
    if choice is not ColorChoice.AUTO:
        return choice is ColorChoice.ALWAYS
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


def paint(word: str, on: bool) -> str:
    """A state word in its colour."""
    color = _COLORS.get(word)
    return f"\x1b[{color}m{word}\x1b[0m" if on and color else word


def as_json(value: object) -> str:
    """Indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def as_yaml(value: object) -> str:
    """YAML 1.2."""
    from ruamel.yaml import YAML

    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(value, text)
    return text.getvalue().rstrip("\n")


def as_csv(rows: Sequence[Row]) -> str:
    """Comma-separated values with a heading line; nested values become `key.inner` columns."""
    flat = [_flat(row) for row in rows]
    headings = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, headings, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().rstrip("\n")


def as_table(rows: Sequence[Row], columns: Sequence[Column], *, color: bool = False) -> str:
    """Aligned columns with headings."""
    cells = [[column.heading for column in columns]]
    cells += [[paint(column.cell(row), color) for column in columns] for row in rows]
    widths = [max(_width(line[at]) for line in cells) for at in range(len(columns))]
    return "\n".join(_line(line, columns, widths) for line in cells)


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    padded = []
    for cell, column, width in zip(cells, columns, widths, strict=True):
        space = " " * (width - _width(cell))
        padded.append(space + cell if column.right else cell + space)
    return "  ".join(padded).rstrip()


def _width(text: str) -> int:
    return len(_ESCAPES.sub("", text))


def _flat(row: Row, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


# -------------------------------------------------------------------------------- cell texts


def text(value: object) -> str:
    """A cell; what is missing is a dash."""
    return "-" if value in (None, "") else str(value)


def usd(value: object, places: int = 2) -> str:
    """An amount in US dollars, without the sign; less than a cent gets two places more."""
    if value is None:
        return "-"
    amount = float(str(value))
    return f"{amount:.{places + 2 if 0 < abs(amount) < 0.01 else places}f}"


def count(number: int, noun: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def span(seconds: float | None) -> str:
    """A length of time in its two largest units: `1h5m`."""
    if seconds is None:
        return "-"
    left = max(0, int(seconds))
    parts = []
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2]) or "0s"


def between(start: str | None, end: str | None, now: datetime) -> str:
    """The time from `start` to `end`, or to now while it goes on."""
    if not start:
        return "-"
    until = datetime.fromisoformat(end) if end else now
    return span((until - datetime.fromisoformat(start)) / timedelta(seconds=1))


def since(moment: str | None, now: datetime) -> str:
    """How long ago."""
    return between(moment, None, now)


# ----------------------------------------------------------------------------------- errors


def error_lines(error: OrchctlError) -> Iterable[str]:
    """What happened, why, and what to do: the same three parts for every error."""
    yield f"error: {error.message}"
    if error.why:
        yield f"  {error.why}"
    for detail in error.details:
        yield from _detail_lines(detail.pointer, detail.text.splitlines())
    if error.fix:
        yield f"  fix: {error.fix}"


def _detail_lines(pointer: str, text: Sequence[str]) -> Iterable[str]:
    if len(text) == 1:
        yield f"  {pointer}: {text[0]}" if pointer else f"  {text[0]}"
        return
    yield f"  {pointer}"
    for line in text:
        yield f"    {line}"


def print_error(error: OrchctlError) -> None:
    """Write an error to stderr."""
    lines = list(error_lines(error))
    lines[0] = lines[0].replace("error:", paint("error:", color_wanted(sys.stderr)), 1)
    sys.stderr.write("\n".join(lines) + "\n")
