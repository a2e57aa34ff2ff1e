"""`orchctl events`: what happened, and who did it."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from orchctl.output import Column, text
from orchctl.session import Session, command

app = typer.Typer(add_completion=False, rich_markup_mode=None)

COLUMNS = (
    Column(heading="AT", cell=lambda row: row["at"][:19]),
    Column(heading="KIND", cell=lambda row: row["kind"]),
    Column(heading="ABOUT", cell=lambda row: row["subject"]),
    Column(heading="WHO", cell=lambda row: row["actor"] or "orchctl"),
    Column(heading="WHAT", cell=lambda row: row["text"]),
)
AUDIT_COLUMNS = (
    *COLUMNS[:1],
    *COLUMNS[3:4],
    Column(heading="ROLE", cell=lambda row: text(row["role"])),
    *COLUMNS[4:],
    Column(heading="ABOUT", cell=lambda row: row["subject"], wide=True),
    Column(heading="REQUEST", cell=lambda row: text(row["request_id"]), wide=True),
)


@command(
    app,
    "events",
    example="orchctl events --kind audit --who alice\norchctl events --about m-4d1xq",
)
def events(
    session: Session,
    kind: Annotated[
        str,
        typer.Option(
            help="job, machine, queue, autoscaler, plan, access, error, or audit: "
            "who sent which change.",
            show_default=False,
        ),
    ] = "",
    about: Annotated[
        str, typer.Option("--about", metavar="ID", help="Only about this.", show_default=False)
    ] = "",
    who: Annotated[
        str, typer.Option("--who", metavar="NAME", help="Only by them.", show_default=False)
    ] = "",
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 50,
) -> None:
    """Print what happened, newest first."""
    found = session.client.events(kind=kind, subject=about)
    mine = (each for each in found if who in ("", each.actor))
    session.rows(islice(mine, limit), AUDIT_COLUMNS if kind == "audit" else COLUMNS, key="seq")
