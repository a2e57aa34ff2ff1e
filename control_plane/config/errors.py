"""What is wrong with a configuration text: each problem with its place, and what to do about it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from control_plane.errors import InvalidInput

_WIDTH = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, for the person who wrote it."""

    file: str
    line: int = 0
    """From 1; 0 = the file as a whole."""
    col: int = 0
    """From 1."""
    path: str = ""
    """Where in the document, such as `pools.l4.warm[0].cron`."""
    what: str
    why: str = ""
    """What is expected there instead."""
    fix: str = ""
    """The next thing to try."""

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}:{self.col}" if self.line else self.file

    def render(self) -> str:
        """The place on one line, then what, why and fix, indented."""
        head = f"{self.place}  {self.path}".rstrip()
        return "\n".join([head, *(_indented(text) for text in self.sentences)])

    @property
    def sentences(self) -> tuple[str, ...]:
        return tuple(text for text in (self.what, self.why, self.fix) if text)


class ConfigError(InvalidInput):
    """A configuration text that cannot be used; `problems` holds all that is wrong with it."""

    code = "config-error"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda each: (each.line, each.col, each.path)))
        first = self.problems[0]
        place = " ".join(part for part in (first.place, first.path) if part)
        more = len(self.problems) - 1
        super().__init__(
            f"{place}: {first.what}" + (f" (and {_counted(more, 'more problem')})" if more else ""),
            fix=first.fix,
        )

    def render(self) -> str:
        """All problems in the order of the text, and how many there are."""
        blocks = [problem.render() for problem in self.problems]
        count = _counted(len(self.problems), "problem")
        return "\n\n".join([*blocks, f"{count} in {self.problems[0].file}"])


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`did you mean ...?` with the choice that looks most like `word`; empty if none does."""
    by_lower = {choice.lower(): choice for choice in choices}
    # One letter of two or three is most of a short word, as in `l5` for `l4`.
    cutoff = 0.6 if len(word) > 3 else 0.5
    close = get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
    return f"did you mean `{by_lower[close[0]]}`?" if close else ""


def _indented(text: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
