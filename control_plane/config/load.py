"""A configuration text to policy, in one step: all of it is right, or all that is wrong is said.

autoscaler = load_file(Path("config.yaml"))
"""

from __future__ import annotations

from os import fspath
from pathlib import Path

from pydantic import ValidationError

from control_plane.config.cross import cross_problems
from control_plane.config.errors import ConfigError, Problem
from control_plane.config.explain import problems_of
from control_plane.config.schema import AutoscalerDoc
from control_plane.config.yaml_tree import read_yaml
from control_plane.core.policy import Autoscaler


def load_text(text: str, *, name: str = "config.yaml") -> Autoscaler:
    """The policy of a document; `name` is what errors call it. Raises `ConfigError`."""
    tree = read_yaml(text, name=name)
    problems = [*tree.problems, *cross_problems(tree)]
    document = None
    try:
        document = AutoscalerDoc.model_validate(tree.data)
    except ValidationError as error:
        problems += problems_of(error, tree)
    if problems or document is None:
        raise ConfigError(_first_at_each_place(problems))
    return document.policy()


def load_file(path: Path | str) -> Autoscaler:
    """The policy of a file. Raises `ConfigError`, for a file that cannot be read too."""
    return load_text(read_text(path), name=fspath(path))


def read_text(path: Path | str) -> str:
    """The text of a configuration file. Raises `ConfigError` when it cannot be read as UTF-8."""
    name = fspath(path)
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no such file can exist"
        fix = "`orchctl autoscaler init` writes an example" if _missing(error) else ""
        raise ConfigError([_whole(name, f"cannot be read: {reason}", fix)]) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError([_not_utf8(name, data, error.start)]) from None


def _missing(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError)


def _whole(name: str, what: str, fix: str) -> Problem:
    return Problem(file=name, what=what, fix=fix)


def _not_utf8(name: str, data: bytes, start: int) -> Problem:
    before = data[:start]
    return Problem(
        file=name,
        line=before.count(b"\n") + 1,
        col=start - (before.rfind(b"\n") + 1) + 1,
        what=f"not UTF-8 text: byte 0x{data[start]:02X}",
        why="configuration files are UTF-8",
        fix="save the file as UTF-8 in your editor",
    )


def _first_at_each_place(problems: list[Problem]) -> list[Problem]:
    """One problem for each place: the reader of the text finds causes, later checks see effects."""
    firsts: dict[tuple[int, int, str], Problem] = {}
    for problem in problems:
        firsts.setdefault((problem.line, problem.col, problem.path), problem)
    return list(firsts.values())
