"""`orchctl token`: who may come in by a token, and as what."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import Annotated

import typer

from orchctl.errors import InvalidInput
from orchctl.output import Column, text
from orchctl.session import Session, command, group, server_errors

app = group("Tokens of people and programs: create, list, revoke.")

NEVER = "never"

QUEUES = Column(
    heading="QUEUES", cell=lambda row: "all" if "*" in row["queues"] else ", ".join(row["queues"])
)
COLUMNS = (
    Column(heading="ID", cell=lambda row: row["id"]),
    Column(heading="NAME", cell=lambda row: row["name"]),
    Column(heading="ROLE", cell=lambda row: row["role"]),
    QUEUES,
    Column(heading="EXPIRES", cell=lambda row: _expires(row["expires_at"], row["expired"])),
    Column(heading="MADE", cell=lambda row: row["created_at"][:10]),
    Column(heading="BY", cell=lambda row: text(row["created_by"])),
    Column(heading="PREFIX", cell=lambda row: row["prefix"], wide=True),
)


def _expires(at: str | None, expired: bool) -> str:
    return "expired" if expired else (at or NEVER)[:10]


@command(
    app,
    "create",
    example="orchctl token create alice --role submitter --queue default --expires 90d\n"
    "orchctl token create grafana --role viewer --all-queues --expires never",
)
def create(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is.")],
    role: Annotated[str, typer.Option(help="viewer, submitter, operator or admin.")],
    queue: Annotated[
        list[str] | None,
        typer.Option(metavar="QUEUE", help="For this queue; repeatable.", show_default=False),
    ] = None,
    all_queues: Annotated[
        bool, typer.Option("--all-queues", help="For all queues, machines and costs.")
    ] = False,
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="Such as 90d, a date, or never.")
    ] = "90d",
) -> None:
    """Make a token and print it, this once."""
    if bool(queue) == all_queues:
        raise InvalidInput("which queues?", fix="pass --queue QUEUE, or --all-queues")
    made = session.client.tokens.create(
        name,
        role=role,
        queues=queue or ["*"],
        expires_at=None if expires == NEVER else _moment(expires, session.now),
    )
    session.say(f"token {made.record.id} of {name}; it is not shown again")
    if session.for_people:
        session.print(made.token)
    else:
        session.one({"id": made.record.id, "token": made.token, "name": name}, (), key="token")


@command(app, "list", example="orchctl token list")
def list_tokens(session: Session) -> None:
    """List tokens, oldest first."""
    session.rows(session.client.tokens.list(), COLUMNS, key="id")


@command(app, "revoke", example="orchctl token revoke t-1m80mtgpepw69")
def revoke(
    session: Session,
    token: Annotated[str, typer.Argument(metavar="ID", help="Its id, as `token list` shows it.")],
) -> None:
    """End a token now."""
    session.client.tokens.revoke(token)
    session.done(f"token {token} is revoked", {"id": token}, key="id")


@command(
    app,
    "exchange",
    example="orchctl token exchange",
)
def exchange(session: Session) -> None:
    """Exchange a CI system's token, read from standard input, for a session; print that."""
    token = sys.stdin.read().strip()
    if not token:
        raise InvalidInput(
            "there is no token on standard input", fix="let the CI system write it there"
        )
    made = session.client.exchange(token)
    until = made.who.expires_at
    session.say(f"{made.who.actor}: {made.who.role} until {until:%H:%M:%S} UTC" if until else "")
    if session.for_people:
        session.print(made.token)
    else:
        session.one({"token": made.token, "actor": made.who.actor}, (), key="token")


def _moment(text: str, now: datetime) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        with server_errors():
            from control_plane.config.units import parse_duration_s

            return now + timedelta(seconds=parse_duration_s(text))
