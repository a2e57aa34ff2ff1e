"""How long it takes from handing in a job until its process runs, on an idle system: ours, the
least that does it, and other queues.

Every way runs the same command, which writes down when it runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.http_peers import slurm
from bench.http_peers.clients import Keeping
from bench.http_peers.hot import started
from bench.peers.servers import NotInstalled, Servers

JOBS, SLOW_JOBS = 20, 3
"""In each round; of Slurm, which takes a second for each, fewer."""
PAUSE_S = 0.3
"""After a job: everybody is idle again when the next one comes."""
LATEST_S = 30.0

Submit = Callable[[str], object]


class Clock:
    """The file that commands write to when they run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._path.touch()
        self._number = 0

    def delay_ms(self, submit: Submit) -> float:
        """Hand in a job and wait until it has run. Raises `RuntimeError` when it never does."""
        self._number += 1
        command = f"date +'{self._number} %s%N' >> {self._path}"
        began = time.time_ns()
        submit(command)
        return (self._ran_at(self._number) - began) / 1e6

    def _ran_at(self, number: int) -> int:
        deadline = time.monotonic() + LATEST_S
        while time.monotonic() < deadline:
            lines = self._path.read_text().splitlines()
            for line in lines[-3:]:
                who, _, at = line.partition(" ")
                if who == str(number) and len(at) >= 19:
                    return int(at)
            time.sleep(0.002)
        raise RuntimeError(f"job {number} never ran")


def measure_pickup(
    folder: Path, rounds: int, stack: ExitStack
) -> tuple[Mapping[str, Sequence[Sequence[float]]], Mapping[str, str]]:
    """Delays in ms of each round by who was measured, and who could not be and why."""
    clock = Clock(folder / "ran")
    ways: dict[str, Submit] = {}
    missing: dict[str, str] = {}
    for name, start in _WAYS.items():
        try:
            ways[name] = start(folder, stack)
            clock.delay_ms(ways[name])
        except (NotInstalled, ImportError) as error:
            ways.pop(name, None)
            missing[name] = str(error)
    runs: dict[str, list[Sequence[float]]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in list(ways)[:: 1 if turn % 2 == 0 else -1]:
            jobs = SLOW_JOBS if name == "slurm" else JOBS
            runs[name].append([_one(clock, ways[name]) for _ in range(jobs)])
    return runs, missing


def _one(clock: Clock, submit: Submit) -> float:
    time.sleep(PAUSE_S)
    return clock.delay_ms(submit)


def _orchctl(folder: Path, stack: ExitStack) -> Submit:
    state_dir = folder / "embedded"
    port, pid = started(stack, "bench.http_peers.embedded", str(state_dir))
    stack.callback(_leave, pid)
    token = (state_dir / "admin-token").read_text().strip()
    client = Keeping(port, token)
    stack.callback(client.close)
    return lambda command: client.post("/v1/jobs", {"queue": "default", "command": command})


def _floor(folder: Path, stack: ExitStack) -> Submit:  # noqa: ARG001
    port, _ = started(stack, "bench.http_peers.apps", "floor")
    worker = [sys.executable, "-m", "bench.http_peers.clients", str(port)]
    stack.callback(_end, subprocess.Popen(worker))
    client = Keeping(port)
    stack.callback(client.close)
    rest = {"name": "", "queue": "default", "priority": 0, "gpus": 0, "env": {}}
    return lambda command: client.post("/jobs", {**rest, "command": command})


def _task_spooler(folder: Path, stack: ExitStack) -> Submit:
    settings = {**os.environ, "TS_SOCKET": str(folder / "tsp"), "TMPDIR": str(folder)}
    run = partial(subprocess.run, env=settings, check=True, stdout=subprocess.DEVNULL)
    try:
        run(["tsp", "-S", "4"])
    except FileNotFoundError:
        raise NotInstalled("no program tsp: apt-get install task-spooler") from None
    stack.callback(run, ["tsp", "-K"])
    return lambda command: run(["tsp", "-n", "sh", "-c", command])


def _celery(folder: Path, stack: ExitStack) -> Submit:
    os.environ["BENCH_REDIS"] = f"redis://127.0.0.1:{Servers(folder, stack).redis()}/0"
    from bench.http_peers import celery_jobs

    worker = ["-m", "celery", "-q", "-A", "bench.http_peers.celery_jobs", "worker", "-c", "4"]
    worker += ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "error"]
    stack.callback(_end, subprocess.Popen([sys.executable, *worker]))
    return celery_jobs.run.delay


def _huey(folder: Path, stack: ExitStack) -> Submit:
    os.environ["BENCH_HUEY"] = str(folder / "huey.db")
    from bench.http_peers import huey_jobs

    worker = ["-m", "huey.bin.huey_consumer", "bench.http_peers.huey_jobs.huey", "-w", "4", "-q"]
    stack.callback(_end, subprocess.Popen([sys.executable, *worker, "-k", "process"]))
    return huey_jobs.run


def _leave(pid: int) -> None:
    """Let the control plane end its machine; its process is reaped by who started it."""
    os.kill(pid, signal.SIGTERM)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


_WAYS: Mapping[str, Callable[[Path, ExitStack], Submit]] = {
    "orchctl": _orchctl,
    "floor": _floor,
    "task-spooler": _task_spooler,
    "celery": _celery,
    "huey": _huey,
    "slurm": slurm.start,
}
