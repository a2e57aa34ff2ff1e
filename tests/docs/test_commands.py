"""What pages tell people to type works: commands parse, documents load, programs compile."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import pytest
import typer

from control_plane.config.load import load_text
from orchctl.main import app
from tests.docs.pages import ROOT, SHELL, Block, blocks, simple_commands

OTHER_PROGRAMS = {"aws", "az", "cat", "cd", "cp", "curl", "cut", "export", "gcloud", "git"}
OTHER_PROGRAMS |= {"openssl", "podman", "printf", "sha256sum", "terraform"}
"""What pages use besides `make` and `orchctl`."""


def _name(value: object) -> str:
    return value.name if isinstance(value, Block) else ""


def _programs() -> list[tuple[str, list[str]]]:
    return [
        (f"{block.name} {' '.join(words)}", words)
        for block in blocks(*SHELL)
        for line in block.commands()
        for words in simple_commands(line)
    ]


PROGRAMS = _programs()


def test_there_is_something_to_check() -> None:
    assert len(PROGRAMS) > 50
    assert len(blocks("yaml")) >= 3
    assert len(blocks("python")) >= 2


def test_only_known_programs_are_called() -> None:
    assert {words[0] for _, words in PROGRAMS} <= OTHER_PROGRAMS | {"make", "orchctl"}


@pytest.mark.parametrize(
    "words", [pytest.param(w, id=name) for name, w in PROGRAMS if w[0] == "orchctl"]
)
def test_orchctl_takes_the_command(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    context = typer.Context(command, info_name="orchctl")
    rest = words[1:]
    while hasattr(command, "get_command"):
        name, *rest = rest
        command = command.get_command(context, name)
        assert command is not None, words
    command.make_context(name, rest, parent=context)


@pytest.mark.parametrize(
    "words", [pytest.param(w, id=name) for name, w in PROGRAMS if w[0] == "make"]
)
def test_make_has_the_target(words: list[str]) -> None:
    assert words[1] in _targets()


def test_every_target_of_make_is_in_the_contributors_guide() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert {name for name in _targets() if f"make {name}" not in guide} <= {"clean"}


def _targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[0].split())


@pytest.mark.parametrize("block", blocks("yaml"), ids=_name)
def test_a_document_loads(block: Block) -> None:
    assert load_text(block.text, name=block.name).pools


@pytest.mark.parametrize("block", blocks("python"), ids=_name)
def test_a_program_compiles(block: Block) -> None:
    ast.parse(block.text, block.name)


@pytest.mark.parametrize("block", blocks("json"), ids=_name)
def test_a_json_text_is_one(block: Block) -> None:
    json.loads(block.text)


def test_every_block_says_what_it_is() -> None:
    known = {*SHELL, "yaml", "python", "json", "text", "mermaid", ""}
    assert {each.language for each in blocks(*known)} <= known
    untold = [each.name for each in blocks("") if each.page.name != "ARCHITECTURE.md"]
    assert untold == []
