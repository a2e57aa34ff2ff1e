"""`orchctl hook`: which outside systems start which jobs, and what was told to others."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import typer

from orchctl.commands.job import pairs
from orchctl.job_options import Cpu, Env, Gpu, Memory, Queue, Timeout, Words, command_line
from orchctl.output import Column, text
from orchctl.session import Session, command, group

app = group("Webhooks: jobs that others start, and alerts that were sent.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the hook.")]

COLUMNS = (
    Column(heading="NAME", cell=lambda row: row["name"]),
    Column(heading="ON", cell=lambda row: ", ".join(row["on"])),
    Column(heading="REPOSITORY", cell=lambda row: _any(row["repositories"])),
    Column(heading="REF", cell=lambda row: _any(row["refs"])),
    Column(heading="QUEUE", cell=lambda row: row["queue"]),
    Column(heading="COMMAND", cell=lambda row: text(row["spec"]["command"])),
    Column(heading="SECRET", cell=lambda row: f"no. {row['generation']}", wide=True),
    Column(heading="BY", cell=lambda row: text(row["applied_by"]), wide=True),
)

DELIVERY_COLUMNS = (
    Column(heading="AT", cell=lambda row: row["created_at"][:19]),
    Column(heading="KIND", cell=lambda row: row["kind"]),
    Column(heading="ABOUT", cell=lambda row: row["subject"]),
    Column(heading="TO", cell=lambda row: f"{row['channel']} {row['target']}"),
    Column(heading="STATE", cell=lambda row: row["state"]),
    Column(heading="TRIES", cell=lambda row: str(row["attempts"]), right=True),
    Column(heading="PROBLEM", cell=lambda row: text(row["problem"])),
    Column(heading="TEXT", cell=lambda row: text(row["text"]), wide=True),
)


def _any(patterns: list[str]) -> str:
    return ", ".join(patterns) or "any"


@command(
    app,
    "create",
    example="orchctl hook create deploy --queue default --on push --ref refs/heads/main "
    "--repository acme/vision -- ./train.sh\n"
    "orchctl hook create nightly --queue default --on release.published --gpu L4:1 -- make all",
)
def create(
    session: Session,
    name: NameArgument,
    words: Words,
    on: Annotated[
        list[str],
        typer.Option(metavar="EVENT", help="Such as push, or release.published; repeatable."),
    ],
    repository: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Such as acme/vision, acme/*; repeatable.", show_default=False
        ),
    ] = None,
    ref: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Such as refs/heads/main; repeatable.", show_default=False
        ),
    ] = None,
    queue: Queue = "default",
    gpu: Gpu = "",
    cpu: Cpu = 0,
    memory: Memory = "",
    env: Env = None,
    timeout: Timeout = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Change the hook that is there; its secret stays.")
    ] = False,
) -> None:
    """Let a signed webhook start a job."""
    job: dict[str, Any] = {
        "command": command_line(words),
        "queue": queue,
        "gpu": gpu,
        "cpu": cpu,
        "memory": memory,
        "env": pairs(env or [], "--env"),
        "timeout": timeout,
    }
    made = session.client.hooks.apply(
        name,
        {"on": on, "repositories": repository or [], "refs": ref or [], "job": job},
        new=not replace,
    )
    session.say(f"its address: {session.client.hooks.address(name)}")
    session.done(f"hook {name}: see its secret with `orchctl hook secret {name}`", made, key="name")


@command(app, "list", example="orchctl hook list")
def list_hooks(session: Session) -> None:
    """List hooks, by name."""
    session.rows(session.client.hooks.list(), COLUMNS, key="name")


@command(app, "secret", example="orchctl hook secret deploy")
def secret(session: Session, name: NameArgument) -> None:
    """Print what the sender signs with."""
    _print(session, name, session.client.hooks.secret(name))


@command(app, "rotate", example="orchctl hook rotate deploy")
def rotate(session: Session, name: NameArgument) -> None:
    """Give a hook another secret; the former one is taken for another day."""
    record = session.client.hooks.rotate(name)
    session.done(
        f"hook {name}: secret no. {record.generation}; the former one is good for a day",
        record,
        key="name",
    )


@command(app, "delete", example="orchctl hook delete deploy")
def delete(session: Session, name: NameArgument) -> None:
    """Take nothing for a hook any more."""
    session.client.hooks.remove(name)
    session.done(f"hook {name} is deleted", {"name": name}, key="name")


@command(app, "deliveries", example="orchctl hook deliveries --limit 20")
def deliveries(
    session: Session,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 50,
) -> None:
    """List alerts that were sent or are to be, newest first."""
    found = session.client.hooks.deliveries(limit=min(limit, 200))
    session.rows(islice(found, limit), DELIVERY_COLUMNS, key="id")


@command(app, "alert-secret", example="orchctl hook alert-secret secret://pager")
def alert_secret(
    session: Session,
    target: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="As the document names the receiver.")
    ],
) -> None:
    """Print what our alerts to a receiver are signed with."""
    _print(session, target, session.client.hooks.alert_secret(target))


def _print(session: Session, name: str, found: str) -> None:
    if session.for_people:
        session.print(found)
    else:
        session.one({"name": name, "secret": found}, (), key="secret")
