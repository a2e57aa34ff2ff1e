"""Help: every command has a working example, and asking for help loads next to nothing."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from orchctl.errors import BY_CODE
from orchctl.main import COMMANDS, app, main

ROOT = Path(__file__).parents[3]
HEAVY = ("fastapi", "pydantic", "boto3", "httpx2", "google", "azure", "rich", "ruamel", "uvicorn")


def _generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate_cli", ROOT / "docs/generate_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _examples() -> list[tuple[str, str]]:
    return [
        (context.command_path, line.removeprefix("$ "))
        for command, context in _generator().commands()
        for line in (command.epilog or "").splitlines()
        if line.startswith("$ ")
    ]


def test_every_command_has_help_and_an_example_of_itself() -> None:
    shown = {path for path, line in _examples() if line.startswith(path)}
    for command, context in _generator().commands():
        assert command.help, context.command_path
        if not hasattr(command, "list_commands"):
            assert context.command_path in shown


@pytest.mark.parametrize(("path", "line"), _examples())
def test_examples_are_accepted(path: str, line: str) -> None:
    program, *words = shlex.split(line.partition(" > ")[0])
    assert program == "orchctl"
    command: Any = typer.main.get_command(app)
    context = typer.Context(command, info_name=program)
    while hasattr(command, "get_command"):
        name, *words = words
        command = command.get_command(context, name)
        assert command is not None, line
    command.make_context(path, words, parent=context)


def _loaded_by(*words: str) -> set[str]:
    code = (
        "import sys\n"
        "from orchctl.main import main\n"
        f"code = main({list(words)!r})\n"
        f"sys.stderr.write(' '.join(name for name in {HEAVY!r} if name in sys.modules))\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "Usage: orchctl" in done.stdout
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "words", [("--help",), ("job", "list", "--help"), ("job", "--help"), (), ("run", "--help")]
)
def test_help_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    assert _loaded_by(*words) == set()


def test_importing_the_package_loads_nothing_of_it() -> None:
    code = "import sys, orchctl; print([n for n in sys.modules if n.startswith('orchctl.')])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "[]\n"


def test_the_list_of_commands_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    modules = {path.stem for path in (ROOT / "orchctl/commands").glob("*.py")} - {"__init__"}
    assert modules == set(COMMANDS)
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


def test_the_one_line_of_a_group_is_the_help_of_the_group() -> None:
    root: Any = typer.main.get_command(app)
    context = typer.Context(root, info_name="orchctl")
    for name, line in COMMANDS.items():
        command = root.get_command(context, name)
        if hasattr(command, "list_commands"):
            assert command.help == line


def test_the_reference_page_is_the_generated_one() -> None:
    generator = _generator()
    assert generator.TARGET.read_text(encoding="utf-8") == generator.generate(), (
        "run: python docs/generate_cli.py"
    )


def test_the_reference_page_knows_every_exit_code() -> None:
    assert {kind.exit_code for kind in BY_CODE.values()} <= set(_generator().EXIT_CODES)


def test_completion_offers_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from orchctl.main import run; run()"],
        env={
            "_ORCHCTL_COMPLETE": "complete_bash",
            "COMP_WORDS": "orchctl mach",
            "COMP_CWORD": "1",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["machine"]
