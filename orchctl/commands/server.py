"""`orchctl server`: the server itself."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from orchctl.commands.machine import EVENT_COLUMNS
from orchctl.output import Column, text, usd
from orchctl.session import Session, command, group

app = group("The server: its state, its events, a tick right now.")


@command(app, "status", example="orchctl server status")
def status(session: Session) -> None:
    """Say whether the server works."""
    columns = (
        Column(heading="STATUS", cell=lambda row: row["status"]),
        Column(heading="VERSION", cell=lambda row: text(row["version"])),
    )
    session.one(session.client.health(), columns, key="status")


@command(app, "events", example="orchctl server events --kind machine --limit 20")
def events(
    session: Session,
    kind: Annotated[str, typer.Option(help="Only of this kind.", show_default=False)] = "",
    subject: Annotated[str, typer.Option(help="Only about this id.", show_default=False)] = "",
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 50,
) -> None:
    """Print what happened, newest first."""
    found = session.client.events(kind=kind, subject=subject)
    subject_column = Column(heading="ABOUT", cell=lambda row: row["subject"])
    columns = (EVENT_COLUMNS[0], subject_column, *EVENT_COLUMNS[1:])
    session.rows(islice(found, limit), columns, key="seq")


@command(app, "offers", example="orchctl server offers --pool l4")
def offers(
    session: Session,
    pool: Annotated[str, typer.Option(help="Only what fits this pool.", show_default=False)] = "",
) -> None:
    """List what can be bought, and for how much."""
    columns = (
        Column(heading="CLOUD", cell=lambda row: row["provider"]),
        Column(heading="WHERE", cell=lambda row: row["zone"] or row["region"]),
        Column(heading="TYPE", cell=lambda row: row["instance_type"]),
        Column(heading="GPU", cell=lambda row: text(row["capacity"]["gpu_name"])),
        Column(heading="GPUS", cell=lambda row: str(row["capacity"]["gpus"]), right=True),
        Column(heading="MARKET", cell=lambda row: row["capacity"]["market"]),
        Column(heading="USD/H", cell=lambda row: usd(row["price_usd_hour"], 3), right=True),
        Column(heading="REFUSED", cell=lambda row: text(row["last_refusal"])),
    )
    session.rows(session.client.offers(pool=pool), columns, key="instance_type")


@command(app, "reconcile", example="orchctl server reconcile")
def reconcile(session: Session) -> None:
    """Let the loop decide now instead of at its next tick."""
    session.client.reconcile()
    session.done("the loop was woken", {"woken": True}, key="woken")
