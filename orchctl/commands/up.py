"""`orchctl up`: the whole control plane on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchctl.session import command, server_errors

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@command(app, "up", example="orchctl up --config examples/quickstart.yaml")
def up(
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Autoscaler to apply at the start.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port to listen on; 0 = any free one.")] = 8080,
    state_dir: Annotated[
        Path, typer.Option(metavar="DIRECTORY", help="Where everything is kept.")
    ] = Path(".orchctl"),
    public_url: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Where machines of clouds reach this server, over a proxy or a tunnel, with "
            "`{port}` for the port; without it, none are launched there.",
            show_default=False,
        ),
    ] = "",
    browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the dashboard in a browser.")
    ] = False,
) -> None:
    """Start the control plane here: database file, API, dashboard, and the loop. Ctrl-C ends it."""
    from orchctl.up import up as serve

    with server_errors():
        raise typer.Exit(serve(state_dir, port, config, browser, public_url))
