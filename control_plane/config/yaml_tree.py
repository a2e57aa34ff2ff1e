"""YAML 1.2 text to plain data, with the place of every key and value.

`no` and `on` stay text, a key written twice is an error, and so are tags, more than one document,
and aliases that multiply. Raises `ConfigError` where nothing can be read at all; what is wrong with
single values is collected, so that a person sees all of it at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from control_plane.config.errors import ConfigError, Problem

BYTES_MAX = 1_000_000
NODES_MAX = 10_000
"""Values after aliases are written out: far above any real document, far below what hurts."""
DEPTH_MAX = 20
_TOO_MANY = f"the document has more than {NODES_MAX} values, aliases written out"
_TOO_DEEP = f"the document is nested more than {DEPTH_MAX} levels deep"

Loc = tuple[str | int, ...]
Position = tuple[int, int]
"""Line and column, both from 1."""

_START = "`orchctl autoscaler init` writes an example to start from"
_TAG = "tag:yaml.org,2002:"
_KNOWN_TAGS = frozenset(
    f"{_TAG}{name}"
    for name in ("str", "int", "float", "bool", "null", "map", "seq", "timestamp", "merge", "value")
)
_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")

_SYNTAX: tuple[tuple[str, str, str], ...] = (
    (r"character '\\t'", "a tab where spaces are needed", "indent with two spaces for each level"),
    (
        "character '(.*)' that cannot start any token",
        "a text cannot begin with `{0}`, which has a meaning of its own in YAML",
        "put the text in single quotes",
    ),
    (
        "unknown escape character '(.*)'",
        r"`\{0}` is not an escape that double quotes know",
        r"put the text in single quotes, or write `\\{0}`",
    ),
    (
        "mapping values are not allowed",
        "a `key: value` where no new key can start",
        "check the indentation and the line above, or put quotes around a text with `: ` in it",
    ),
    (
        "sequence entries are not allowed",
        "a `- item` where no list can start",
        "start the list on the line below its key, indented by two more spaces",
    ),
    (
        "expected <block end>",
        "this line does not line up with the ones around it",
        "give all keys of one map the same indentation",
    ),
    (
        "could not find expected ':'",
        "a key without its colon",
        "write `key: value`, with a space after the colon",
    ),
    (
        "expected ',' or|expected the node content",
        "a `[…]` or `{{…}}` that is not closed, or a comma is missing",
        "close it before this place",
    ),
    ("unexpected end of stream", "a quoted text that is not closed", "add the closing quote"),
    (
        "undefined alias ['\"](.*)['\"]",
        "the alias `*{0}` has no anchor",
        "mark the value it stands for with `&{0}`, above this line",
    ),
    (
        "but found another document",
        "a second document begins here",
        "keep one autoscaler in each file",
    ),
)
"""The parser's words, as a pattern, to ours: what, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """One document as plain values, with where each stands in its text."""

    name: str
    data: Any
    keys: Mapping[Loc, Position]
    """Where each map entry's key is written."""
    values: Mapping[Loc, Position]
    """Where each value begins."""
    problems: tuple[Problem, ...]

    def problem(
        self, loc: Loc, what: str, *, why: str = "", fix: str = "", at_key: bool = False
    ) -> Problem:
        """A problem placed at a value, at its key, or at the nearest thing around it."""
        line, col = self._position(loc, at_key=at_key)
        return Problem(
            file=self.name, line=line, col=col, path=path_text(loc), what=what, why=why, fix=fix
        )

    def at(self, *loc: str | int) -> Any:
        """The value at a place, None where the document has none."""
        value = self.data
        for step in loc:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def _position(self, loc: Loc, *, at_key: bool) -> Position:
        first, second = (self.keys, self.values) if at_key else (self.values, self.keys)
        while loc:
            if loc in first or loc in second:
                return first.get(loc) or second[loc]
            loc, first, second = loc[:-1], self.keys, self.values
        return 1, 1


def path_text(loc: Loc) -> str:
    """`pools.l4.warm[0].cron`"""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)
    return "".join(steps).removeprefix(".")


def read_yaml(text: str, *, name: str) -> Tree:
    """Read one document; raises `ConfigError` when it is not YAML, not a map, or far too large."""
    if len(text) > BYTES_MAX or len(text.encode(errors="replace")) > BYTES_MAX:
        raise _whole(name, "the file is larger than 1 MB", "a configuration is a few kilobytes")
    node = _compose(text, name)
    if node is None:
        raise _whole(name, "the file is empty", fix=_START)
    if not isinstance(node, MappingNode):
        kind = "a list" if isinstance(node, SequenceNode) else "a single value"
        raise ConfigError(
            [
                Problem(
                    file=name,
                    line=node.start_mark.line + 1,
                    col=node.start_mark.column + 1,
                    what=f"the document is {kind}",
                    why="it must be a map that starts with `apiVersion: orchctl/v1`",
                    fix=_START,
                )
            ]
        )
    return _Reader(name).tree(node)


# ------------------------------------------------------------------------------- syntax


class _BoundedComposer(Composer):
    """Stops early, so that a hostile megabyte costs no more time than a large document."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader=loader)
        self.warn_double_anchors = False  # allowed by YAML: the later anchor holds
        self.seen = 0
        self.level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.seen += 1
        self.level += 1
        if self.seen > NODES_MAX or self.level > DEPTH_MAX:
            limit = _TOO_MANY if self.seen > NODES_MAX else _TOO_DEEP
            raise ComposerError(None, None, limit, self.parser.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.level -= 1
        return node


def _compose(text: str, name: str) -> Node | None:
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _BoundedComposer
    try:
        node: Node | None = yaml.compose(text)
    except ReaderError as error:
        raise ConfigError([_bad_character(text, error, name)]) from None
    except MarkedYAMLError as error:
        raise ConfigError([_syntax_problem(error, name)]) from None
    except (
        YAMLError,
        ValueError,
        ArithmeticError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        # The parser lets some broken escapes and directives out as plain Python errors.
        raise _whole(name, "the file is not readable as YAML", str(error)) from None
    return node


def _syntax_problem(error: MarkedYAMLError, name: str) -> Problem:
    text = str(error.problem or error.context or "broken YAML")
    # An unclosed quote or bracket is reported at the end of the text: where it opens helps more.
    opened = error.context_mark if "end of stream" in text or "stream end" in text else None
    mark = opened or error.problem_mark or error.context_mark
    what, fix = _in_our_words(text)
    return Problem(
        file=name,
        line=mark.line + 1 if mark else 0,
        col=mark.column + 1 if mark else 0,
        what=what,
        fix=fix,
    )


def _in_our_words(text: str) -> tuple[str, str]:
    for pattern, what, fix in _SYNTAX:
        if match := re.search(pattern, text):
            return what.format(*match.groups()), fix.format(*match.groups())
    return text if text in (_TOO_MANY, _TOO_DEEP) else f"broken YAML: {text}", ""


def _bad_character(text: str, error: ReaderError, name: str) -> Problem:
    before = text[: error.position]
    return Problem(
        file=name,
        line=before.count("\n") + 1,
        col=error.position - (before.rfind("\n") + 1) + 1,
        what=f"the character U+{ord(text[error.position]):04X} is not allowed in YAML",
        fix="delete it; it is invisible in most editors",
    )


def _whole(name: str, what: str, why: str = "", fix: str = "") -> ConfigError:
    return ConfigError([Problem(file=name, what=what, why=why, fix=fix)])


# --------------------------------------------------------------------------------- data


@dataclass(slots=True)
class _Reader:
    """Walks the nodes of one document once."""

    name: str
    keys: dict[Loc, Position] = field(default_factory=dict)
    values: dict[Loc, Position] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    count: int = 0

    def tree(self, root: MappingNode) -> Tree:
        return Tree(
            data=self.value(root, ()),
            name=self.name,
            keys=self.keys,
            values=self.values,
            problems=tuple(self.problems),
        )

    def value(self, node: Node, loc: Loc) -> Any:
        self._count(node, loc)
        if node.start_mark.index != node.end_mark.index:
            self.values[loc] = _position(node)
        if node.tag not in _KNOWN_TAGS:
            what = f"the tag `{_short(str(node.tag))}` has no meaning here"
            self._add(node, loc, what, fix="leave it out")
            return None
        if isinstance(node, MappingNode):
            return dict(self._entries(node, loc))
        if isinstance(node, SequenceNode):
            return [self.value(item, (*loc, at)) for at, item in enumerate(node.value)]
        return self._scalar(node, loc)

    def _entries(self, node: MappingNode, loc: Loc) -> Iterator[tuple[str, Any]]:
        lines: dict[str, int] = {}
        for key, item in node.value:
            if not isinstance(key, ScalarNode):
                self._add(key, loc, "a key that is a map or a list", "keys are plain words")
                continue
            word = str(key.value)
            if word == "<<":
                why = "YAML 1.2 has no merge keys (`<<`)"
                self._add(key, (*loc, word), why, fix="repeat the fields, or alias a whole value")
                continue
            if word in lines:
                what = f"`{_short(word)}` is written twice; the first is on line {lines[word]}"
                self._add(key, (*loc, word), what, fix="keep one of them")
                continue
            lines[word], self.keys[(*loc, word)] = _position(key)[0], _position(key)
            yield word, self.value(item, (*loc, word))

    def _scalar(self, node: Node, loc: Loc) -> str | int | bool | None:
        text = str(node.value)
        if variable := _VARIABLE.search(text):
            self._variable(node, loc, variable)
        if node.tag == f"{_TAG}null":
            return None
        if node.tag == f"{_TAG}bool":
            return text.lower() == "true"
        return _whole_number(text) if node.tag == f"{_TAG}int" else text

    def _variable(self, node: Node, loc: Loc, variable: re.Match[str]) -> None:
        secret = variable[1].lower().replace("_", "-")
        self._add(
            node,
            loc,
            f"`{_short(variable[0])}` is not filled in: no environment variables are read here",
            "the same document must mean the same on every machine that applies it",
            f"write the value itself, or for a secret a reference such as `secret://{_short(secret)}`",
        )

    def _count(self, node: Node, loc: Loc) -> None:
        """Aliases written out: one text may stand for far more values than it has."""
        self.count += 1
        if self.count > NODES_MAX:
            raise _whole(self.name, _TOO_MANY, "aliases (`*name`) of aliases multiply")
        if len(loc) > DEPTH_MAX:
            self._add(node, (), _TOO_DEEP, "an alias inside its own anchor has no end")
            raise ConfigError(self.problems)

    def _add(self, node: Node, loc: Loc, what: str, why: str = "", fix: str = "") -> None:
        line, col = _position(node)
        self.problems.append(
            Problem(
                file=self.name, line=line, col=col, path=path_text(loc), what=what, why=why, fix=fix
            )
        )


def _position(node: Node) -> Position:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _whole_number(text: str) -> int | str:
    """The number of a YAML integer; texts that are none after all, such as huge ones, stay text."""
    plain = text.replace("_", "")
    try:
        return int(plain[:20], 10 if plain.lstrip("+-").isdigit() else 0)
    except ValueError:
        return text


def _short(text: str) -> str:
    return text.removeprefix(_TAG)[:40]
