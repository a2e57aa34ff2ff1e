"""`orchctl context`: which servers there are, and which one is in use."""

from __future__ import annotations

import sys
from getpass import getpass
from typing import Annotated

import typer

from orchctl import contexts
from orchctl.errors import InvalidInput, OrchctlError
from orchctl.output import Column
from orchctl.session import Session, command, group

app = group("Which servers there are, and which one is in use.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Context name.")]

COLUMNS = (
    Column(heading="NAME", cell=lambda row: row["name"]),
    Column(heading="CURRENT", cell=lambda row: "yes" if row["current"] else "-"),
    Column(heading="SERVER", cell=lambda row: row["server"]),
    Column(heading="TOKEN", cell=lambda row: "stored" if row["token"] else "-"),
)


@command(app, "list", example="orchctl context list")
def list_contexts(session: Session) -> None:
    """List the known servers."""
    known = contexts.load()
    rows = [
        {
            "name": name,
            "current": name == known.current,
            "server": each.server,
            "token": bool(each.token),
        }
        for name, each in sorted(known.by_name.items())
    ]
    session.rows(rows, COLUMNS, key="name")


@command(
    app,
    "add",
    example="orchctl context add prod --server https://orchctl.example.com --use\n"
    "orchctl context add prod",
)
def add(
    session: Session,
    name: NameArgument,
    use: Annotated[bool, typer.Option("--use", help="Make it the current one.")] = False,
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Read its token from standard input.")
    ] = False,
) -> None:
    """Remember a server, and say who you are there. On a terminal it asks for what is missing.

    Its token is never an argument: the process list shows those to others."""
    asked = sys.stdin.isatty() and not token_stdin
    server = session.server or (input("Server address: ").strip() if asked else "")
    if not server:
        raise InvalidInput("which server?", fix="pass --server https://…")
    token = sys.stdin.readline().strip() if token_stdin else ""
    if asked:
        token = getpass("Token (not shown; empty = none): ").strip()
    contexts.add(name, server=server, token=token, use=use)
    if token:
        _say_who(session, server, token)
    session.done(f"context {name} added", {"name": name, "server": server}, key="name")


def _say_who(session: Session, server: str, token: str) -> None:
    """What the token opens there; a server that does not answer now is no reason to forget it."""
    from orchctl.client import Client

    try:
        with Client(server, token) as client:
            who = client.whoami()
    except OrchctlError as error:
        session.say(f"the token was not tried: {error.message}")
        return
    queues = "all queues" if "*" in who.queues else ", ".join(who.queues)
    until = f" until {who.expires_at:%Y-%m-%d}" if who.expires_at else ""
    session.say(f"you are {who.actor}: {who.role} for {queues}{until}")


@command(app, "use", example="orchctl context use prod")
def use(session: Session, name: NameArgument) -> None:
    """Make a known server the current one."""
    contexts.use(name)
    session.done(f"context {name} is in use", {"name": name}, key="name")


@command(app, "remove", example="orchctl context remove prod")
def remove(session: Session, name: NameArgument) -> None:
    """Forget a server and its token."""
    contexts.remove(name)
    session.done(f"context {name} removed", {"name": name}, key="name")


@command(app, "show", example="orchctl context show -o json")
def show(session: Session) -> None:
    """Show which server would be used, and where each setting comes from."""
    target = contexts.resolve(context=session.context, server=session.server)
    settings = (("context", target.context), ("server", target.server), ("token", target.token))
    rows = [
        {
            "setting": name,
            "value": ("set" if each.value else "") if name == "token" else each.value,
            "origin": each.origin,
        }
        for name, each in settings
    ]
    columns = (
        Column(heading="SETTING", cell=lambda row: row["setting"]),
        Column(heading="VALUE", cell=lambda row: row["value"] or "-"),
        Column(heading="ORIGIN", cell=lambda row: row["origin"]),
    )
    session.rows(rows, columns, key="value")
