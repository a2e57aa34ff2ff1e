"""The table of promises and the tests that keep them agree: `docs/explanation/invariants.md`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "explanation" / "invariants.md"
LINES = range(1, 31)
_ROW = re.compile(r"^\| (\d+) \|(.*)\|$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def _rows() -> dict[int, list[str]]:
    text = TABLE.read_text(encoding="utf-8")
    return {int(line): cells.split(" | ") for line, cells in _ROW.findall(text)}


def _named(line: int) -> list[tuple[str, str]]:
    return _TEST.findall(_rows()[line][-1])


def _functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node


def _own() -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if path.name != Path(__file__).name:
            for function in _functions(path):
                yield f"{path.relative_to(ROOT)}", function


def test_every_line_stands_in_the_table_once() -> None:
    lines = [int(line) for line, _ in _ROW.findall(TABLE.read_text(encoding="utf-8"))]
    assert lines == list(LINES)


@pytest.mark.parametrize("line", LINES)
def test_a_line_says_what_is_promised_who_broke_it_and_how_it_is_kept(line: int) -> None:
    promise, remembers, kept_by, tests = (cell.strip() for cell in _rows()[line])
    assert promise.endswith(".")
    assert remembers
    assert tests
    modules = re.findall(r"`([\w/]+)`", kept_by)
    assert modules
    for module in modules:
        places = (ROOT / module, ROOT / "control_plane" / module)
        assert any(p.is_dir() or p.with_suffix(".py").is_file() for p in places), module


@pytest.mark.parametrize("line", LINES)
def test_every_named_test_exists_and_one_bears_the_number_of_its_line(line: int) -> None:
    named = _named(line)
    for path, name in named:
        assert name in {function.name for function in _functions(ROOT / path)}, f"{path}::{name}"
    assert any(name.startswith(f"test_{line:02}_") for _, name in named)


def test_no_test_of_this_room_is_missing_from_the_line_whose_number_it_bears() -> None:
    for path, function in _own():
        found = re.match(r"test_(\d\d)_", function.name)
        assert found, f"{function.name} bears no number"
        assert (path, function.name) in _named(int(found[1])), f"{path}::{function.name}"


def test_every_test_of_this_room_tells_its_promise() -> None:
    for path, function in _own():
        assert len(ast.get_docstring(function) or "") >= 40, f"{path}::{function.name}"
