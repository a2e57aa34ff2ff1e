"""Writes `docs/reference/cli.md` from the program itself: `python docs/generate_cli.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from orchctl.main import app

TARGET = Path(__file__).parent / "reference" / "cli.md"
WIDTH = 96

EXIT_CODES = {
    0: "ok",
    1: "failed, or refused as things are",
    2: "wrong usage or configuration",
    3: "there are differences (`autoscaler diff --exit-code` only)",
    4: "not found",
    5: "denied",
    6: "conflict: it changed since it was read",
    7: "unavailable: the server does not answer",
    130: "interrupted",
}

VARIABLES = {
    "ORCHCTL_SERVER": "server address; wins over the contexts file, loses against `--server`",
    "ORCHCTL_TOKEN": "API token; there is no flag, because others can read arguments",
    "ORCHCTL_CONTEXT": "name of the context to use",
    "ORCHCTL_CONFIG_DIR": "directory of the contexts file",
    "NO_COLOR": "no colour",
    "FORCE_COLOR": "colour even where the output is no terminal",
    "ORCHCTL_DEBUG": "show the traceback of an unexpected error",
}


def commands() -> Iterator[tuple[Any, Any]]:
    """Every command with its context, the program itself first."""
    root = typer.main.get_command(app)
    yield from _below(root, typer.Context(root, info_name="orchctl", terminal_width=WIDTH))


def generate() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _below(command: Any, context: typer.Context) -> Iterator[tuple[Any, Any]]:
    yield command, context
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        child = command.get_command(context, name)
        inner = typer.Context(child, info_name=name, parent=context, terminal_width=WIDTH)
        yield from _below(child, inner)


def _lines() -> Iterator[str]:
    yield "# Command line"
    yield ""
    yield "Written by `docs/generate_cli.py` from the program; a test compares."
    yield ""
    yield "Results go to standard output, messages to standard error. With `-o json` standard"
    yield "output holds JSON and nothing else; ignore fields you do not know."
    yield ""
    yield from _table("exit code", "meaning", EXIT_CODES)
    yield "`run --wait`, `run --follow` and `job wait` end with the job's own exit code."
    yield ""
    yield from _table("variable", "meaning", VARIABLES)
    for command, context in commands():
        yield f"## {context.command_path}"
        yield ""
        yield "```text"
        yield from (line.rstrip() for line in command.get_help(context).splitlines())
        yield "```"
        yield ""


def _table(key: str, value: str, rows: dict[Any, str]) -> Iterator[str]:
    yield f"| {key} | {value} |"
    yield "| --- | --- |"
    yield from (f"| {name} | {meaning} |" for name, meaning in rows.items())
    yield ""


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(generate(), encoding="utf-8")
