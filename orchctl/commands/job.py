"""`orchctl job`: what was asked for, how it goes, what it left."""

from __future__ import annotations

import re
import sys
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchctl.errors import InvalidInput, OrchctlError
from orchctl.output import Column, Row, between, span, text, usd
from orchctl.session import Session, command, group

if TYPE_CHECKING:
    from orchctl.views import JobView

app = group("Jobs: list, logs, events, wait, report, cancel, retry, clone.")

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Job id.")]

EVENT_COLUMNS = (
    Column(heading="AT", cell=lambda row: row["at"][:19]),
    Column(heading="KIND", cell=lambda row: row["kind"], wide=True),
    Column(heading="WHO", cell=lambda row: row["actor"] or "orchctl"),
    Column(heading="WHAT", cell=lambda row: row["text"]),
)


@command(
    app, "list", example="orchctl job list --queue default --state running\norchctl job list --dead"
)
def list_jobs(
    session: Session,
    queue: Annotated[str, typer.Option(help="Only of this queue.")] = "",
    state: Annotated[str, typer.Option(help="Only in this state, such as `running`.")] = "",
    machine: Annotated[str, typer.Option(help="Only on this machine.")] = "",
    dead: Annotated[
        bool, typer.Option("--dead", help="Only dead letters: failed or exhausted.")
    ] = False,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 50,
) -> None:
    """List jobs, newest first."""
    if dead and state:
        raise InvalidInput("--dead is a state: leave --state out")
    state = "failed,exhausted" if dead else state
    jobs = session.client.jobs.list(
        queue=queue, state=state, machine=machine, page_size=min(limit, 100)
    )
    session.rows(islice(jobs, limit), columns(session), key="id")


@command(app, "get", example="orchctl job get j-7k2m9 -o json")
def get(session: Session, job: JobArgument) -> None:
    """Show one job."""
    extra = (
        Column(
            heading="SOURCE", cell=lambda row: text((row["spec"]["source"] or {}).get("summary"))
        ),
        Column(heading="AFTER", cell=lambda row: text(", ".join(row["depends_on"]))),
        Column(heading="NOT BEFORE", cell=lambda row: text(row["not_before"])),
        Column(heading="POSITION", cell=lambda row: text(row["position_in_queue"])),
        Column(heading="REASON", cell=lambda row: text((row["reason"] or {}).get("sentence"))),
    )
    session.one(session.client.jobs.get(job), (*columns(session), *extra), key="id")


@command(app, "logs", example="orchctl job logs -f j-7k2m9")
def logs(
    session: Session,
    job: JobArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")
    ] = False,
) -> None:
    """Print what a job has written."""
    stream_log(session, job, follow=follow)


@command(app, "events", example="orchctl job events j-7k2m9")
def events(session: Session, job: JobArgument) -> None:
    """Print what happened to a job, newest first."""
    session.rows(session.client.jobs.events(job), EVENT_COLUMNS, key="seq")


@command(app, "wait", example="orchctl job wait j-7k2m9 --timeout 600")
def wait(
    session: Session,
    job: JobArgument,
    timeout: Annotated[
        float | None, typer.Option(help="Give up after this many seconds (exit code 1).")
    ] = None,
) -> None:
    """Wait until a job has ended, then exit with its exit code."""
    ended = session.client.jobs.wait(job, timeout_s=timeout)
    if not ended.ended:
        raise OrchctlError(
            f"{job} is still {ended.state}", fix=f"wait on with `orchctl job wait {job}`"
        )
    finish(session, ended)


@command(app, "report", example="orchctl job report j-7k2m9")
def report(session: Session, job: JobArgument) -> None:
    """Print what became of a job and what it cost, as Markdown; for the summary of a CI run."""
    found = session.client.jobs.get(job)
    cost = session.client.jobs.cost(job)
    if not session.for_people:
        session.one(
            {"job": job, "state": found.state.value, "cost_usd": str(cost.cost_usd)}, (), key="job"
        )
        return
    rows = {
        "job": f"`{found.id}`",
        "state": found.state.value + (f", exit code {found.exit_code}" if found.exit_code else ""),
        "queue": found.queue,
        "waited": _between(found.queued_at, found.leased_at, session.now),
        "ran": _between(found.started_at, found.finished_at, session.now),
        "attempts": str(found.attempt),
        "cost": f"{usd(str(cost.cost_usd), 4)} USD",
        "saved by spot": f"{usd(str(cost.saved_usd), 4)} USD",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    heading = f"### {_markdown(found.name or found.id)}"
    session.print("\n".join((heading, "", "| | |", "| --- | --- |", *lines)))


def _between(start: datetime | None, end: datetime | None, now: datetime) -> str:
    return between(start.isoformat() if start else None, end.isoformat() if end else None, now)


def _markdown(line: str) -> str:
    """A name that stays a name: whoever hands in a job chooses it."""
    return re.sub(r"([\\`*_{}\[\]<>#|!&])", r"\\\1", line)


@command(app, "cancel", example="orchctl job cancel j-7k2m9")
def cancel(session: Session, job: JobArgument) -> None:
    """Cancel a job: a waiting one at once, a running one after its grace time."""
    cancelled = session.client.jobs.cancel(job)
    how = "cancelled" if cancelled.ended else "will be cancelled: its machine has been told"
    session.done(f"job {job} {how}", cancelled, key="id")


@command(app, "retry", example="orchctl job retry j-7k2m9")
def retry(session: Session, job: JobArgument) -> None:
    """Submit a job once more, as a new job with the same specification."""
    copy = session.client.jobs.retry(job)
    session.done(queued(copy), copy, key="id")


@command(app, "clone", example="orchctl job clone j-7k2m9 --set LR=1e-3 --queue urgent")
def clone(
    session: Session,
    job: JobArgument,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="Environment value to replace; repeatable."),
    ] = None,
    queue: Annotated[str, typer.Option(help="Another queue.")] = "",
    command_line: Annotated[
        str, typer.Option("--command", metavar="LINE", help="Another command line.")
    ] = "",
) -> None:
    """Submit a new job like an earlier one, with some values replaced."""
    copy = session.client.jobs.clone(
        job, set_env=pairs(assignments or [], "--set"), queue=queue, command=command_line
    )
    session.done(queued(copy), copy, key="id")


@command(
    app,
    "artifacts",
    example="orchctl job artifacts j-7k2m9\norchctl job artifacts j-7k2m9 --download results",
)
def artifacts(
    session: Session,
    job: JobArgument,
    download: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Write the files below here.")
    ] = None,
) -> None:
    """List the files a job left, or download them."""
    found = list(session.client.jobs.artifacts(job))
    for artifact in found if download else ():
        path = safe_path(download or Path(), artifact.name)
        session.client.jobs.download(job, artifact.name, path)
        session.say(f"wrote {path}")
    session.rows(
        found,
        (
            Column(heading="NAME", cell=lambda row: row["name"]),
            Column(heading="BYTES", cell=lambda row: text(row["size_bytes"]), right=True),
            Column(heading="SHA256", cell=lambda row: row["sha256"], wide=True),
        ),
        key="name",
    )


# ------------------------------------------------------------------ shared with `orchctl run`


def columns(session: Session) -> tuple[Column, ...]:
    """A job's row."""
    now = session.now
    return (
        Column(heading="ID", cell=lambda row: row["id"]),
        Column(heading="NAME", cell=lambda row: text(row["name"])),
        Column(heading="QUEUE", cell=lambda row: row["queue"]),
        Column(heading="STATE", cell=lambda row: row["state"]),
        Column(heading="NEEDS", cell=_need),
        Column(heading="MACHINE", cell=lambda row: text(row["machine_id"])),
        Column(heading="WAITED", cell=lambda r: between(r["queued_at"], _served(r), now)),
        Column(heading="RAN", cell=lambda r: between(r["started_at"], r["finished_at"], now)),
        Column(heading="EXIT", cell=lambda row: text(row["exit_code"]), right=True),
        Column(heading="TRIES", cell=lambda row: str(row["attempt"]), right=True, wide=True),
        Column(heading="OWNER", cell=lambda row: text(row["owner"]), wide=True),
        Column(heading="COMMAND", cell=lambda row: row["spec"]["command"], wide=True),
    )


def queued(job: JobView) -> str:
    """`job j-7k2m9 queued in default, position 3; estimated start 1m40s`."""
    sentence = f"job {job.id} {job.state} in {job.queue}"
    if job.position_in_queue is not None:
        sentence += f", position {job.position_in_queue}"
    if job.estimated_start_s is not None:
        sentence += f"; estimated start {span(job.estimated_start_s)}"
    return sentence


def stream_log(session: Session, job_id: str, *, follow: bool) -> None:
    """Copy a log to stdout, or to stderr when stdout is for the result."""
    stream = sys.stdout if session.for_people else sys.stderr
    for piece in session.client.jobs.logs(job_id, follow=follow):
        stream.buffer.write(piece)
        stream.flush()


def finish(session: Session, job: JobView) -> None:
    """Say how a job ended and exit as it did."""
    if session.for_people:
        code = "" if job.exit_code is None else f": exit code {job.exit_code}"
        why = f": {job.reason.sentence}" if job.reason else code
        session.say(f"job {job.id} {job.state}{why}")
    else:
        session.one(job, (), key="id")
    raise typer.Exit(job.process_exit_code)


def pairs(assignments: list[str], option: str) -> dict[str, str]:
    """`K=V` texts as a mapping. Raises `InvalidInput`."""
    found = {}
    for each in assignments:
        name, sign, value = each.partition("=")
        if not (sign and name):
            raise InvalidInput(f"{option} {each} is not of the form NAME=VALUE")
        found[name] = value
    return found


def safe_path(directory: Path, name: str) -> Path:
    """Where a file of this name belongs. Raises `InvalidInput` for one that would land outside: the
    name was chosen by a job, and a job may be hostile."""
    path = (directory / name).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise InvalidInput(f"the artifact {name!r} would be written outside {directory}")
    return path


def _served(row: Row) -> Any:
    return row["leased_at"] or row["finished_at"]


def _need(row: Row) -> str:
    need = row["spec"]["need"]
    gpu = f"{need['gpu_name'] or 'gpu'}:{need['gpus']}" if need["gpus"] else ""
    cpus = f"{need['cpus']} cpu" if need["cpus"] else ""
    memory = f"{need['memory_mib'] / 1024:g} GiB" if need["memory_mib"] else ""
    return text(", ".join(part for part in (gpu, cpus, memory) if part))
