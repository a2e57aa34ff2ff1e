"""`orchctl machine`: what runs, what it costs, and ending it."""

from __future__ import annotations

import sys
import time
from itertools import islice
from typing import Annotated, Any

import typer

from orchctl.commands.job import EVENT_COLUMNS
from orchctl.commands.queue import YesOption
from orchctl.output import Column, Row, count, span, text, usd
from orchctl.session import Session, command, group

app = group("Machines: what runs, drain, protect, terminate.")

MachineArgument = Annotated[str, typer.Argument(metavar="MACHINE", help="Machine id.")]
WATCH_PAUSE_S = 2.0
_CLEAR_SCREEN = "\x1b[H\x1b[2J"


def _offer(row: Row) -> Any:
    offers = row["offers"]
    return offers[min(row["attempt"], len(offers)) - 1]


def _does(row: Row) -> str:
    if row["jobs"]:
        return ", ".join(row["jobs"])
    return f"idle {span(row['idle_s'])}" if row["idle_s"] else "-"


COLUMNS = (
    Column(heading="ID", cell=lambda row: row["id"]),
    Column(heading="STATE", cell=lambda row: row["state"]),
    Column(heading="POOL", cell=lambda row: row["pool"]),
    Column(heading="CLOUD", cell=lambda row: _offer(row)["provider"]),
    Column(heading="WHERE", cell=lambda row: _offer(row)["zone"] or _offer(row)["region"]),
    Column(heading="TYPE", cell=lambda row: _offer(row)["instance_type"]),
    Column(heading="MARKET", cell=lambda row: _offer(row)["capacity"]["market"]),
    Column(heading="USD/H", cell=lambda row: usd(row["price_usd_hour"], 3), right=True),
    Column(heading="USD", cell=lambda row: usd(row["cost_usd"]), right=True),
    Column(heading="AGE", cell=lambda row: span(row["age_s"]), right=True),
    Column(heading="DOES", cell=_does),
    Column(heading="KEPT", cell=lambda row: "yes" if row["protected"] else "-", wide=True),
    Column(heading="CLOUD ID", cell=lambda row: text(row["provider_id"]), wide=True),
)

REASONS = (
    Column(heading="BOUGHT", cell=lambda row: text((row["launch_reason"] or {}).get("sentence"))),
    Column(heading="REASON", cell=lambda row: text((row["reason"] or {}).get("sentence"))),
)


@command(app, "list", example="orchctl machine list --watch")
def list_machines(
    session: Session,
    everything: Annotated[bool, typer.Option("--all", help="Ended ones too.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again every 2 seconds.")] = False,
) -> None:
    """List machines, with what they cost and do."""
    while True:
        machines = list(session.client.machines.list(all=everything))
        if watch and sys.stdout.isatty():
            sys.stdout.write(_CLEAR_SCREEN)
        session.rows(machines, COLUMNS, key="id")
        if not watch:
            return
        sys.stdout.flush()
        time.sleep(WATCH_PAUSE_S)


@command(app, "get", example="orchctl machine get m-4d1xq -o yaml")
def get(session: Session, machine: MachineArgument) -> None:
    """Show one machine, with why it was bought and why it ended."""
    session.one(session.client.machines.get(machine), (*COLUMNS, *REASONS), key="id")


@command(app, "drain", example="orchctl machine drain m-4d1xq")
def drain(
    session: Session,
    machine: MachineArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
) -> None:
    """Give a machine no new job and end it when its jobs have ended."""
    if dry_run:
        jobs = session.client.machines.get(machine).jobs
        sentence = f"would drain {machine} after {count(len(jobs), 'job')}"
        session.done(sentence, {"id": machine, "jobs": list(jobs)}, key="id")
        return
    session.client.machines.drain(machine)
    session.done(f"machine {machine} drains", {"id": machine}, key="id")


@command(app, "protect", example="orchctl machine protect m-4d1xq")
def protect(session: Session, machine: MachineArgument) -> None:
    """Keep a machine even when it is idle; its maximum life still ends it."""
    session.client.machines.protect(machine)
    session.done(f"machine {machine} is protected", {"id": machine, "protected": True}, key="id")


@command(app, "unprotect", example="orchctl machine unprotect m-4d1xq")
def unprotect(session: Session, machine: MachineArgument) -> None:
    """Let a protected machine end when it is idle."""
    session.client.machines.unprotect(machine)
    sentence = f"machine {machine} is no longer protected"
    session.done(sentence, {"id": machine, "protected": False}, key="id")


@command(app, "terminate", example="orchctl machine terminate m-4d1xq --yes")
def terminate(session: Session, machine: MachineArgument, yes: YesOption = False) -> None:
    """End a machine now; its jobs go back to their queues."""
    if not session.confirm(f"End {machine} now?", yes=yes):
        session.say("nothing was ended")
        return
    session.client.machines.terminate(machine)
    session.done(f"machine {machine} is being ended", {"id": machine}, key="id")


@command(app, "logs", example="orchctl machine logs m-4d1xq")
def logs(
    session: Session,
    machine: MachineArgument,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 50,
) -> None:
    """Print what happened to a machine, newest first."""
    events = session.client.machines.events(machine)
    session.rows(islice(events, limit), EVENT_COLUMNS, key="seq")
