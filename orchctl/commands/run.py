"""`orchctl run`: capture what is here, submit it, and if wanted wait for it."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchctl.commands.job import finish, pairs, queued, stream_log
from orchctl.errors import InvalidInput
from orchctl.job_options import Cpu, Env, Gpu, Memory, Queue, Timeout, Words, command_line
from orchctl.session import Session, command, server_errors

if TYPE_CHECKING:
    from orchctl.capture import Captured, Packages

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@command(
    app,
    "run",
    example="orchctl run --queue default --gpu L4:1 -- python train.py --lr 3e-4\n"
    "orchctl run --wait --follow -- pytest -x\n"
    "orchctl run --after j-7k2m9 --not-before 90m -- python evaluate.py",
    context_settings={"allow_interspersed_args": False},
)
def run(
    session: Session,
    words: Words,
    queue: Queue = "default",
    gpu: Gpu = "",
    cpu: Cpu = 0,
    memory: Memory = "",
    disk: Annotated[
        str, typer.Option(metavar="SIZE", help="Such as 100GB.", show_default=False)
    ] = "",
    on_demand: Annotated[bool, typer.Option("--on-demand", help="Never on spot capacity.")] = False,
    name: Annotated[str, typer.Option(help="A name for people.", show_default=False)] = "",
    env: Env = None,
    artifact: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Files to keep afterwards; repeatable."),
    ] = None,
    timeout: Timeout = "",
    max_attempts: Annotated[
        int, typer.Option(help="How often it may be tried when it fails.", min=1)
    ] = 1,
    priority: Annotated[int, typer.Option(help="Higher first, inside its queue.")] = 0,
    python: Annotated[
        str, typer.Option(metavar="VERSION", help="Python version.", show_default=False)
    ] = "",
    requirements: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Packages to install.", show_default=False)
    ] = None,
    packages: Annotated[
        str,
        typer.Option(
            metavar="auto|lock|none",
            help="auto: requirements.txt where there is one; "
            "lock: what is installed in this environment; none: nothing.",
        ),
    ] = "auto",
    after: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JOB", help="Only after this job has succeeded; repeatable.", show_default=False
        ),
    ] = None,
    not_before: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="Not before 2026-03-01T22:00, or 90m from now.", show_default=False
        ),
    ] = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for its end; exit with its exit code.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Print its log as it grows; implies --wait.")
    ] = False,
    idempotency_key: Annotated[
        str,
        typer.Option(metavar="KEY", help="Same key, same job: safe to repeat.", show_default=False),
    ] = "",
    no_capture: Annotated[
        bool, typer.Option("--no-capture", help="Send no files, only the command.")
    ] = False,
    archive: Annotated[
        bool,
        typer.Option(
            "--archive",
            help="Send the files themselves even where a git remote has them, "
            "for repositories that machines cannot read.",
        ),
    ] = False,
) -> None:
    """Run a command on a machine of a queue, with the files of this directory."""
    captured = None if no_capture else _capture(session, ship=archive)
    chosen = _packages(packages, requirements)
    job = session.client.jobs.submit(
        command=_command_line(words, captured),
        queue=queue,
        gpu=gpu,
        cpu=cpu,
        memory=memory,
        disk=disk,
        market="on-demand" if on_demand else "",
        name=name,
        env=pairs(env or [], "--env"),
        artifacts=[_below(captured, pattern) for pattern in artifact or []],
        timeout=timeout,
        max_attempts=max_attempts,
        priority=priority,
        python=python or chosen.python,
        requirements=chosen.lines,
        source=captured,
        not_before=moment(not_before, session.now) if not_before else None,
        depends_on=after or [],
        idempotency_key=idempotency_key,
    )
    if not (wait or follow):
        session.done(queued(job), job, key="id")
        return
    session.say(queued(job))
    _attend(session, job.id, follow=follow)


def moment(text: str, now: datetime) -> datetime:
    """A time as people write it: ISO 8601, in local time where no offset is given, or a duration
    from now. Raises `InvalidInput`."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        with server_errors():
            from control_plane.config.units import parse_duration_s

            return now + timedelta(seconds=parse_duration_s(text))


def _attend(session: Session, job_id: str, *, follow: bool) -> None:
    try:
        if follow:
            stream_log(session, job_id, follow=True)
        ended = session.client.jobs.wait(job_id)
    except KeyboardInterrupt:
        session.say(f"job {job_id} goes on; end it with `orchctl job cancel {job_id}`")
        raise
    finish(session, ended)


def _capture(session: Session, *, ship: bool) -> Captured:
    from orchctl.capture import capture

    captured = capture(Path.cwd(), ship=ship)
    session.say(f"captured {captured.summary}")
    return captured


def _packages(choice: str, requirements: Path | None) -> Packages:
    from orchctl import capture

    if requirements is not None:
        return capture.from_file(requirements)
    if choice == "auto":
        return capture.found_in(Path.cwd())
    if choice == "lock":
        return capture.locked()
    if choice == "none":
        return capture.Packages()
    raise InvalidInput(f"--packages {choice} is not one of auto, lock, none")


def _command_line(words: list[str], captured: Captured | None) -> str:
    line = command_line(words)
    return captured.at(line) if captured else line


def _below(captured: Captured | None, pattern: str) -> str:
    return f"{captured.subdirectory}/{pattern}" if captured and captured.subdirectory else pattern
