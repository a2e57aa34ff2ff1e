"""`orchctl server`: the server itself."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchctl.commands.job import EVENT_COLUMNS
from orchctl.output import Column, count, text, usd
from orchctl.session import Session, command, group, server_errors

if TYPE_CHECKING:
    from control_plane.moving import Moved

app = group("The server: its state, its events, backup, moving to another store.")

StateOption = Annotated[
    Path, typer.Option("--state-dir", metavar="DIRECTORY", help="The server's directory.")
]
STATE_DIR = Path(".orchctl")


@command(app, "status", example="orchctl server status")
def status(session: Session) -> None:
    """Say whether the server works."""
    columns = (
        Column(heading="STATUS", cell=lambda row: row["status"]),
        Column(heading="VERSION", cell=lambda row: text(row["version"])),
        Column(heading="LABEL", cell=lambda row: text(row["installation"])),
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


@command(app, "backup", example="orchctl server backup monday.tar")
def backup(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive to write.")],
    state_dir: StateOption = STATE_DIR,
    blobs: Annotated[
        bool, typer.Option("--blobs/--no-blobs", help="With logs, sources and artifacts.")
    ] = True,
) -> None:
    """Write the server's directory into one file; the server may run meanwhile."""
    with server_errors():
        from control_plane import archive

        made = archive.backup(state_dir, file, blobs=blobs)
    session.done(
        f"{made.path}: {count(made.jobs, 'job')}, {count(made.blobs, 'blob')}, {made.bytes} bytes",
        made,
        key="path",
    )


@command(app, "restore", example="orchctl server restore monday.tar --state-dir restored")
def restore(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive to read.")],
    state_dir: StateOption = STATE_DIR,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Put what is there aside, without a question.")
    ] = False,
) -> None:
    """Make the server's directory from a backup; what was there is kept under another name."""
    with server_errors():
        from control_plane import archive

        made = archive.restore(file, state_dir, replace=yes)
    session.done(
        f"{made.path}: {count(made.jobs, 'job')}, {count(made.blobs, 'blob')}", made, key="path"
    )


FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="The export's folder.")]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store", metavar="STORE", help="A server's directory, or dynamodb:TABLE for a table."
    ),
]


@command(
    app,
    "export",
    example="orchctl server export moved\norchctl server export moved --store dynamodb:orchctl",
)
def export(session: Session, folder: FolderArgument, store: StoreOption = str(STATE_DIR)) -> None:
    """Write all that a store holds into a folder; run again to carry on after a crash."""
    with server_errors():
        from control_plane import moving

        moved = moving.export(store, folder)
    _say(session, moved, f"written to {folder}")


@command(app, "import", example="orchctl server import moved --store dynamodb:orchctl")
def import_(session: Session, folder: FolderArgument, store: StoreOption) -> None:
    """Read an export into an empty store and compare; run again to carry on after a crash."""
    with server_errors():
        from control_plane import moving

        moved = moving.import_(folder, store)
    _say(session, moved, f"imported into {store} and compared")


def _say(session: Session, moved: Moved, done: str) -> None:
    records = sum(moved.records.values())
    text = f"{count(records, 'record')} and {count(moved.blobs, 'blob')} {done}"
    counts: dict[str, int] = {kind.value: number for kind, number in moved.records.items()}
    session.done(text, {**counts, "blobs": moved.blobs}, key="job")
