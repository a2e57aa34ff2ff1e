"""`orchctl demo`: the main job, start to end, on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from orchctl.session import command, server_errors

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@command(app, "demo", example="orchctl demo")
def run_demo(
    json: Annotated[
        bool, typer.Option("--json", help="Print the result as one line of JSON, at the end.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the state directory afterwards.")
    ] = False,
) -> None:
    """Run a small training sweep here: machines start, pull jobs, go idle and end themselves."""
    from orchctl import demo

    with server_errors():
        raise typer.Exit(demo.demo(json_line=json, keep=keep))
