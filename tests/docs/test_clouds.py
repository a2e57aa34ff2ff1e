"""The table of facts in `docs/clouds.md` names places and tests that exist."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.pages import ROOT

_ROW = re.compile(r"^\| (AWS|GCP|Azure|all) \| (.+) \| `(.+)` \| `(.+)::(.+)` \|$", re.MULTILINE)
ROWS = _ROW.findall((ROOT / "docs" / "clouds.md").read_text(encoding="utf-8"))


def test_every_cloud_has_facts() -> None:
    assert {row[0] for row in ROWS} == {"AWS", "GCP", "Azure", "all"}
    assert len(ROWS) >= 35


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[-1])
def test_a_fact_is_used_somewhere_and_held_by_a_test(row: tuple[str, ...]) -> None:
    _, fact, place, path, test = row
    assert len(fact) > 30
    assert (ROOT / place).is_file(), place
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert test in {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}
