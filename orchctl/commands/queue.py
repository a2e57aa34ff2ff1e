"""`orchctl queue`: the lists of waiting jobs and their order."""

from __future__ import annotations

from typing import Annotated

import typer

from orchctl.commands.job import JobArgument
from orchctl.errors import InvalidInput
from orchctl.output import Column, Row, count, span, text
from orchctl.session import Session, command, group

app = group("Queues: order, move, pause, clear.")

QueueArgument = Annotated[str, typer.Argument(metavar="QUEUE", help="Queue name.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

COLUMNS = (
    Column(heading="NAME", cell=lambda row: row["name"]),
    Column(heading="STATE", cell=lambda row: "paused" if row["paused"] else "ok"),
    Column(heading="WAITING", cell=lambda row: _at_least(row, "waiting"), right=True),
    Column(heading="RUNNING", cell=lambda row: _running(row), right=True),
    Column(heading="DELAYED", cell=lambda row: _at_least(row, "delayed"), right=True, wide=True),
    Column(heading="BLOCKED", cell=lambda row: _at_least(row, "blocked"), right=True, wide=True),
    Column(heading="OLDEST", cell=lambda row: span(row["oldest_wait_s"]), right=True),
    Column(heading="PRIORITY", cell=lambda row: str(row["priority"]), right=True),
    Column(heading="POOLS", cell=lambda row: text(", ".join(row["pools"]))),
    Column(heading="AUTOSCALER", cell=lambda row: text(row["autoscaler"]), wide=True),
)


@command(app, "list", example="orchctl queue list")
def list_queues(session: Session) -> None:
    """List queues with what waits and runs in them."""
    session.rows(session.client.queues.list(), COLUMNS, key="name")


MaxRunning = Annotated[
    int | None,
    typer.Option(metavar="N", help="Jobs that may run at a time.", min=1, show_default=False),
]
MaxRunningPerOwner = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Jobs of one owner that may run at a time.", min=1, show_default=False
    ),
]


@command(app, "create", example="orchctl queue create bench --max-running 4")
def create(
    session: Session,
    queue: QueueArgument,
    max_running: MaxRunning = None,
    max_running_per_owner: MaxRunningPerOwner = None,
) -> None:
    """Make a queue outside any autoscaler, for own workers."""
    made = session.client.queues.create(
        queue, max_running=max_running, max_running_per_owner=max_running_per_owner
    )
    session.done(f"queue {queue} created", made, key="name")


@command(app, "limit", example="orchctl queue limit bench --max-running 4")
def limit(
    session: Session,
    queue: QueueArgument,
    max_running: MaxRunning = None,
    max_running_per_owner: MaxRunningPerOwner = None,
) -> None:
    """Set how many jobs of a queue may run at a time; what is left out has no limit."""
    limited = session.client.queues.limit(
        queue, max_running=max_running, max_running_per_owner=max_running_per_owner
    )
    text = f"{max_running or 'no limit'} in all, {max_running_per_owner or 'no limit'} per owner"
    session.done(f"queue {queue}: {text}", limited, key="name")


@command(app, "waits", example="orchctl queue waits default")
def waits(session: Session, queue: QueueArgument) -> None:
    """Say how long the jobs waited that were taken last."""
    columns = (
        Column(heading="JOBS", cell=lambda row: str(row["count"])),
        Column(heading="HALF WITHIN", cell=lambda row: span(row["p50_s"])),
        Column(heading="90 % WITHIN", cell=lambda row: span(row["p90_s"])),
        Column(heading="99 % WITHIN", cell=lambda row: span(row["p99_s"])),
        Column(heading="LONGEST", cell=lambda row: span(row["max_s"])),
    )
    session.one(session.client.queues.waits(queue), columns, key="queue")


@command(app, "redrive", example="orchctl queue redrive default")
def redrive(session: Session, queue: QueueArgument) -> None:
    """Submit the failed and exhausted jobs of a queue once more, each only once."""
    jobs = list(session.client.queues.redrive(queue))
    session.done(f"{count(len(jobs), 'job')} queued", {"name": queue, "jobs": jobs}, key="name")


@command(app, "pause", example="orchctl queue pause default")
def pause(session: Session, queue: QueueArgument) -> None:
    """Let waiting jobs wait; running ones go on."""
    session.client.queues.pause(queue)
    session.done(f"queue {queue} paused", {"name": queue, "paused": True}, key="name")


@command(app, "resume", example="orchctl queue resume default")
def resume(session: Session, queue: QueueArgument) -> None:
    """Serve a paused queue again."""
    session.client.queues.resume(queue)
    session.done(f"queue {queue} resumed", {"name": queue, "paused": False}, key="name")


@command(app, "clear", example="orchctl queue clear default --dry-run")
def clear(
    session: Session,
    queue: QueueArgument,
    yes: YesOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
) -> None:
    """Cancel every waiting job of a queue; running ones go on."""
    waiting = session.client.queues.clear_preview(queue)
    if dry_run:
        session.done(
            f"would cancel {count(waiting, 'job')}",
            {"name": queue, "would_cancel": waiting},
            key="name",
        )
        return
    if not session.confirm(f"Cancel {count(waiting, 'waiting job')} of {queue}?", yes=yes):
        session.say("nothing was cancelled")
        return
    cancelled = list(session.client.queues.clear(queue))
    session.done(
        f"{count(len(cancelled), 'job')} cancelled",
        {"name": queue, "cancelled": cancelled},
        key="name",
    )


@command(app, "move", example="orchctl queue move j-7k2m9 --to urgent --top")
def move(
    session: Session,
    job: JobArgument,
    to: Annotated[str, typer.Option(metavar="QUEUE", help="The queue to move it to.")],
    top: Annotated[bool, typer.Option("--top", help="To its top; otherwise to its end.")] = False,
) -> None:
    """Move a waiting job to another queue."""
    moved = session.client.jobs.move(job, queue=to, place="top" if top else "bottom")
    session.done(f"job {job} moved to {to}", moved, key="id")


@command(
    app,
    "reorder",
    example="orchctl queue reorder j-7k2m9 --top\norchctl queue reorder j-7k2m9 --before j-3f8aa",
)
def reorder(
    session: Session,
    job: JobArgument,
    top: Annotated[bool, typer.Option("--top", help="First in its queue.")] = False,
    bottom: Annotated[bool, typer.Option("--bottom", help="Last in its queue.")] = False,
    before: Annotated[
        str, typer.Option(metavar="JOB", help="Right before this job.", show_default=False)
    ] = "",
    after: Annotated[
        str, typer.Option(metavar="JOB", help="Right after this job.", show_default=False)
    ] = "",
) -> None:
    """Change the place of a waiting job in its queue."""
    wanted = {"top": top, "bottom": bottom, "before": bool(before), "after": bool(after)}
    places = [place for place, chosen in wanted.items() if chosen]
    if len(places) != 1:
        raise InvalidInput("say where: exactly one of --top, --bottom, --before, --after")
    moved = session.client.jobs.move(job, place=places[0], of=before or after)
    session.done(f"job {job} moved", moved, key="id")


@command(app, "delete", example="orchctl queue delete bench")
def delete(session: Session, queue: QueueArgument) -> None:
    """Remove a queue in which every job has ended."""
    session.client.queues.delete(queue)
    session.done(f"queue {queue} deleted", {"name": queue}, key="name")


def _at_least(row: Row, name: str) -> str:
    """A count; `+` where it stopped counting."""
    return f"{row[name]}{'' if row['exact'] else '+'}"


def _running(row: Row) -> str:
    return f"{row['running']}/{row['max_running']}" if row["max_running"] else str(row["running"])
