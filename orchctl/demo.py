"""`orchctl demo`: the main job, done for real on this machine, with something going wrong.

A training sweep is handed to two queues. Machines start, take jobs and work; one job fails on
purpose; one machine is killed half-way and its job finishes on another. In the end the queues are
empty, no process is left, and the costs add up.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from control_plane.agents import AgentSettings
from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import JobState, MachineState
from control_plane.core.snapshot import Timing
from control_plane.local import Server, serving
from control_plane.loop import Pace
from orchctl.capture import Captured, pack
from orchctl.client import Client

if TYPE_CHECKING:
    from orchctl.views import JobView

_HERE = Path(__file__).resolve().parent
EXAMPLES = next(
    (path for path in (_HERE / "examples", _HERE.parent / "examples") if path.is_dir()), _HERE
)
"""In an installed package beside this file, in a clone beside the package."""
LIMIT_S = 270.0
"""The demo gives up after this long; it takes a minute where the packages are cached."""

_KILL_AFTER_S = 2.0
"""The victim's job has run for this long when its machine is killed: half-way, not at its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One job of the sweep."""

    name: str
    queue: str
    arguments: str
    fails: bool = False
    victim: bool = False
    """Its machine is killed while it runs."""


TRIALS: Sequence[Trial] = (
    Trial(name="long", queue="sweep", arguments="--hidden 160 --epochs 420", victim=True),
    Trial(name="small", queue="sweep", arguments="--hidden 16 --epochs 120"),
    Trial(name="medium", queue="sweep", arguments="--hidden 64 --epochs 120"),
    Trial(name="wide", queue="sweep", arguments="--hidden 256 --epochs 60"),
    Trial(name="slow", queue="sweep", arguments="--hidden 64 --learning-rate 0.0005 --epochs 120"),
    Trial(name="fast", queue="sweep", arguments="--hidden 64 --learning-rate 0.05 --epochs 120"),
    Trial(name="broken", queue="sweep", arguments="--hidden 0", fails=True),
    Trial(name="baseline", queue="urgent", arguments="--hidden 32 --epochs 60"),
    Trial(name="check", queue="urgent", arguments="--hidden 48 --epochs 60"),
)


@dataclass(slots=True)
class Result:
    """What the demo came to; the last line of `orchctl demo --json`."""

    jobs_submitted: int = 0
    jobs_succeeded: int = 0
    jobs_failed_expected: int = 0
    jobs_failed_unexpected: int = 0
    attempts: int = 0
    machines_launched: int = 0
    machines_max: int = 0
    machines_left: int = 0
    """Machines with a living process, from the process table."""
    requeued: int = 0
    cost_usd: str = "0"
    charges_add_up: bool = False
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether everything came out as it must."""
        expected = sum(trial.fails for trial in TRIALS)
        return (
            self.jobs_failed_expected == expected
            and self.jobs_failed_unexpected == 0
            and self.jobs_succeeded == len(TRIALS) - expected
            and self.requeued >= 1
            and self.machines_left == 0
            and self.charges_add_up
        )


@dataclass(slots=True)
class Run:
    """A demo under way."""

    server: Server
    client: Client
    jobs: dict[str, Trial] = field(default_factory=dict)
    """By job id."""
    result: Result = field(default_factory=Result)
    killed: str = ""
    """The machine that was killed."""


def demo(*, json_line: bool = False, keep: bool = False) -> int:
    """Run the demo; returns the exit code. With `keep` the state directory stays."""
    console = Console(stderr=True)
    state_dir = Path(tempfile.mkdtemp(prefix="orchctl-demo-"))
    started = time.monotonic()
    try:
        with (
            serving(
                state_dir,
                timing=Timing(lease_s=9),
                agents=AgentSettings(wait_s=5.0),
                pace=Pace(at_least_s=2.0, unsettled_s=0.3),
            ) as server,
            Client(server.url, server.plane.admin_token) as client,
        ):
            run = Run(server=server, client=client)
            try:
                _play(run, console, started)
            finally:
                server.end_machines()
            _sum_up(run, console, started)
    finally:
        if keep:
            console.print(f"state is kept in {state_dir}")
        else:
            shutil.rmtree(state_dir, ignore_errors=True)
    if json_line:
        sys.stdout.write(json.dumps(asdict(run.result)) + "\n")
    return 0 if run.result.good else 1


def _play(run: Run, console: Console, started: float) -> None:
    document = (EXAMPLES / "quickstart.yaml").read_text()
    run.client.autoscalers.apply("quickstart", document, expected_version=0)
    console.print(f"control plane at {run.server.url}, examples/quickstart.yaml applied")
    source = _files_of(EXAMPLES / "digits")
    requirements = (EXAMPLES / "digits" / "requirements.txt").read_text().split()
    for trial in TRIALS:
        _submit(run, trial, source, requirements)
    console.print(f"{len(run.jobs)} jobs submitted to the queues sweep and urgent")
    with _shown(run, console) as show:
        while time.monotonic() - started < LIMIT_S:
            jobs = list(run.client.jobs.list())
            alive = len(run.server.plane.local.alive())
            run.result.machines_max = max(run.result.machines_max, alive)
            show(jobs)
            _kill_the_victim(run, jobs, console)
            if all(job.state in JOB_ENDED for job in jobs) and alive == 0 and _settled(run):
                return
            time.sleep(0.25)
    console.print("[red]the demo did not end in time[/red]")


def _files_of(directory: Path) -> Captured:
    """Only this directory travels, although the clone around it is a git checkout."""
    archive = pack(directory, [path.name for path in sorted(directory.iterdir()) if path.is_file()])
    return Captured(
        kind="archive",
        archive=archive,
        sha256=hashlib.sha256(archive).hexdigest(),
        summary=directory.name,
    )


def _submit(run: Run, trial: Trial, source: Captured, requirements: Sequence[str]) -> None:
    job = run.client.jobs.submit(
        command=f"python train.py {trial.arguments}",
        queue=trial.queue,
        name=trial.name,
        env={"OMP_NUM_THREADS": "1"},
        source=source,
        requirements=requirements,
        artifacts=["metrics.json"],
        timeout="4m",
        owner="demo",
    )
    run.jobs[job.id] = trial


def _kill_the_victim(run: Run, jobs: Sequence[JobView], console: Console) -> None:
    """SIGKILL to everything of one machine: no notice, no farewell, as a spot machine may go."""
    if run.killed:
        return
    for job in jobs:
        if not run.jobs[job.id].victim or job.state is not JobState.RUNNING or not job.started_at:
            continue
        if (run.server.plane.service.clock.now() - job.started_at).total_seconds() < _KILL_AFTER_S:
            continue
        run.killed = job.machine_id
        for pid in run.server.plane.local.alive().get(job.machine_id, ()):
            _kill(pid)
        console.print(f"killed machine {job.machine_id} while it ran job `{job.name}`")


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _settled(run: Run) -> bool:
    return not any(run.client.machines.list())


def _sum_up(run: Run, console: Console, started: float) -> None:
    result, jobs = run.result, list(run.client.jobs.list())
    machines = [m for m in run.client.machines.list(all=True) if m.launched_at is not None]
    result.jobs_submitted = len(jobs)
    result.jobs_succeeded = sum(job.state is JobState.SUCCEEDED for job in jobs)
    failed = [job for job in jobs if job.state not in (JobState.SUCCEEDED, JobState.CANCELLED)]
    result.jobs_failed_expected = sum(run.jobs[job.id].fails for job in failed)
    result.jobs_failed_unexpected = len(failed) - result.jobs_failed_expected
    result.attempts = sum(job.attempt for job in jobs)
    result.requeued = sum(job.machine_losses for job in jobs)
    result.machines_launched = len(machines)
    result.machines_left = len(run.server.plane.local.alive())
    console.print(_results(run, jobs))
    total = _print_costs(run, console)
    by_machine = sum((m.cost_usd or Decimal(0) for m in machines), Decimal(0))
    result.cost_usd = f"{total:.6f}"
    result.charges_add_up = abs(total - by_machine) < Decimal("0.000001")
    result.seconds = round(time.monotonic() - started, 1)
    console.print(
        f"{result.jobs_succeeded} jobs succeeded, {result.jobs_failed_expected} failed on purpose, "
        f"{result.requeued} requeued after its machine was killed; {result.machines_launched} "
        f"machines launched, {result.machines_left} left; {result.seconds:.0f} s"
    )


def _results(run: Run, jobs: Sequence[JobView]) -> Table:
    table = Table("job", "queue", "state", "attempts", "exit code", "accuracy", title="Results")
    for job in sorted(jobs, key=lambda job: (job.queue, job.id)):
        exit_code = "" if job.exit_code is None else str(job.exit_code)
        note = " (on purpose)" if run.jobs[job.id].fails else ""
        table.add_row(
            job.name,
            job.queue,
            f"{job.state}{note}",
            str(job.attempt),
            exit_code,
            _metric(run, job),
        )
    return table


def _metric(run: Run, job: JobView) -> str:
    if job.state is not JobState.SUCCEEDED:
        return ""
    metrics = json.loads(run.client.jobs.artifact(job.id, "metrics.json"))
    return f"{metrics['accuracy']:.4f}"


def _print_costs(run: Run, console: Console) -> Decimal:
    report = run.client.costs(by=("queue",), since="1h")
    table = Table("queue", "cost USD", "work", "idle", "boot", title="Cost")
    for row in report.rows:
        table.add_row(row.group["queue"], *_figures(row))
    table.add_section()
    table.add_row("total", *_figures(report.totals))
    console.print(table)
    return report.totals.cost_usd


def _figures(row: object) -> Sequence[str]:
    names = ("cost_usd", "work_usd", "idle_usd", "boot_usd")
    return [f"{getattr(row, name):.6f}" for name in names]


class _shown:  # noqa: N801 - reads as the block it is
    """The live view: a table that redraws itself on a terminal, a line per change elsewhere."""

    def __init__(self, run: Run, console: Console) -> None:
        self._run = run
        self._console = console
        self._live = Live(console=console, transient=True) if console.is_terminal else None
        self._told: dict[str, str] = {}

    def __enter__(self) -> Callable[[Sequence[JobView]], None]:
        if self._live is not None:
            self._live.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _show(self, jobs: Sequence[JobView]) -> None:
        if self._live is not None:
            self._live.update(Group(_machines(self._run), _waiting(jobs)))
            return
        for name, text in self._lines(jobs).items():
            if self._told.get(name) != text:
                self._console.print(f"{name}: {text}", highlight=False)
        self._told.update(self._lines(jobs))

    def _lines(self, jobs: Sequence[JobView]) -> Mapping[str, str]:
        lines = {
            f"job {job.name}": f"{job.state} {job.machine_id}".strip()
            for job in jobs
            if job.state is not JobState.QUEUED
        }
        machines = self._run.server.plane.store.machine_list(open_only=False)
        return lines | {f"machine {machine.id}": str(machine.state) for machine in machines}


def _machines(run: Run) -> Table:
    table = Table("machine", "state", "jobs", title="Machines")
    names = {job_id: trial.name for job_id, trial in run.jobs.items()}
    for machine in run.client.machines.list():
        busy = machine.state is MachineState.READY and machine.busy
        jobs = ", ".join(names.get(job, job) for job in machine.jobs)
        table.add_row(machine.id, "busy" if busy else machine.state, jobs)
    return table


def _waiting(jobs: Sequence[JobView]) -> Text:
    counts: dict[str, int] = {}
    for job in jobs:
        counts[job.state] = counts.get(job.state, 0) + 1
    return Text("jobs: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
