"""The `orchctl` program: finds a command, runs it, turns errors into messages and exit codes.

A command's module is imported only when that command is asked for, so help and completion stay
quick. Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 differences, 4 not found, 5 denied,
6 conflict, 7 unavailable, 130 interrupted; `run --wait` ends with the job's own exit code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from orchctl.errors import InvalidInput, OrchctlError
from orchctl.output import print_error
from orchctl.session import Group

DEBUG_VARIABLE = "ORCHCTL_DEBUG"
INTERRUPTED = 130

COMMANDS = {
    "run": "Run a command on a machine of a queue.",
    "job": "Jobs: list, logs, events, wait, report, cancel, retry, clone.",
    "queue": "Queues: order, move, pause, clear.",
    "autoscaler": "Autoscalers: what may be bought, for which queues.",
    "machine": "Machines: what runs, drain, protect, terminate.",
    "cost": "What it cost, and what spot saved.",
    "up": "Start a control plane on this machine.",
    "demo": "Watch a whole run on this machine, no cloud account needed.",
    "events": "What happened, and who did it.",
    "token": "Tokens of people and programs: create, list, revoke.",
    "federation": "CI systems that come in without a stored token.",
    "hook": "Webhooks: jobs that others start, and alerts that were sent.",
    "context": "Which servers there are, and which one is in use.",
    "server": "The server: its state, its events, backup, moving to another store.",
    "sweep": "Find and remove what machines left at their clouds.",
    "doctor": "Find out what is wrong; each finding prints its fix.",
}
"""Each command's one line of help; its module in `orchctl.commands` has the same name."""


class Root(Group):
    """The top level: knows the commands by name, loads them on demand."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # Names alone are enough for the list of commands and for "did you mean".
        self.commands.update(dict.fromkeys(COMMANDS))  # type: ignore[arg-type]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - typer's signature
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"orchctl.commands.{cmd_name}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - typer's
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(cls=Root, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        from orchctl import version

        typer.echo(version.installed() or "not installed")
        raise typer.Exit


@app.callback(epilog="Example:\n\n\b\n$ orchctl run --gpu L4:1 -- python train.py")
def root(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """Runs jobs on exactly the GPU machines they need, and on nothing else."""


def main(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors go to stderr, never as a traceback."""
    try:
        return _invoke(arguments)
    except OrchctlError as error:
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        print_error(_unexpected(error))
        return 1


def run() -> None:
    """The entry point of the installed program."""
    sys.exit(main(sys.argv[1:]))


def _invoke(arguments: Sequence[str]) -> int:
    command = typer.main.get_command(app)
    try:
        result = command.main(list(arguments), prog_name="orchctl", standalone_mode=False)
    except typer.Abort:
        return INTERRUPTED
    except typer.TyperException as error:
        raise _usage(error) from None
    return result if isinstance(result, int) else 0


def _usage(error: Any) -> InvalidInput:
    path = error.ctx.command_path if getattr(error, "ctx", None) else "orchctl"
    return InvalidInput(error.format_message(), fix=f"see `{path} --help`")


def _unexpected(error: Exception) -> OrchctlError:
    return OrchctlError(
        f"unexpected: {type(error).__name__}: {error}",
        fix=f"a mistake in orchctl: repeat with {DEBUG_VARIABLE}=1 and report the traceback",
    )
