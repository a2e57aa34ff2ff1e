"""A control plane in a process of its own, which tests kill and start again over the same files."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from control_plane.core.model import JobState
from orchctl import Client
from orchctl.errors import Unavailable
from providers.local.provider import LocalProvider

MACHINES_MAX = 2
DOCUMENT = f"""\
apiVersion: orchctl/v1
kind: Autoscaler
name: crash
queues:
  work: {{pools: [box]}}
pools:
  box:
    clouds: {{local: {{}}}}
    machines: {{max: {MACHINES_MAX}}}
    idle_timeout: 2s
    boot_timeout: 30s
"""


class World:
    """One state directory and whatever runs over it."""

    def __init__(self, directory: Path) -> None:
        self.state_dir = directory / "state"
        self.port = _free_port()
        self.local = LocalProvider(self.state_dir / "machines")
        self.process: subprocess.Popen[bytes] | None = None
        self.machines_seen = 0
        self._clients: list[Client] = []
        self._log = (directory / "server.log").open("ab")

    # ---------------------------------------------------------------- the control plane

    def start(self, *crash: str, contact_timeout_s: float = 30.0) -> None:
        """Start it; with a boundary and a count it kills itself there. Machines end themselves when
        they have not reached it for `contact_timeout_s`."""
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.crash.server",
                str(self.state_dir),
                str(self.port),
                str(contact_timeout_s),
                *crash,
            ],
            stdout=self._log,
            stderr=self._log,
            cwd=Path(__file__).resolve().parents[2],
        )

    def wait_killed(self, timeout_s: float = 40.0) -> None:
        """Wait until it has killed itself; anything else is a failure of the test."""
        assert self.process is not None
        self.until(lambda: self.process is not None and self.process.poll() is not None, timeout_s)
        assert self.process.returncode == -signal.SIGKILL

    def kill(self) -> None:
        """SIGKILL, from outside."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Stop it and end every machine that a failing test left."""
        for client in self._clients:
            client.close()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        for pids in self.local.alive().values():
            for pid in pids:
                kill(pid)
        self._log.close()

    # ---------------------------------------------------------------- its users

    @property
    def client(self) -> Client:
        """A client that waits for the control plane to be there."""
        token_file = self.state_dir / "admin-token"
        self.until(token_file.exists, 20)
        client = Client(f"http://127.0.0.1:{self.port}", token_file.read_text())
        self._clients.append(client)
        self.until(lambda: _answers(client), 20)
        return client

    def prepare(self) -> Client:
        """A running control plane with the document applied."""
        client = self.client
        client.autoscalers.apply("crash", DOCUMENT, expected_version=0)
        return client

    def tell(self, request: Callable[[], object]) -> None:
        """Send a request until it is answered or the control plane has died over it."""
        while self.process is not None and self.process.poll() is None:
            try:
                request()
            except Unavailable:
                continue
            return

    def until(self, condition: Callable[[], bool], timeout_s: float = 40.0) -> None:
        """Wait for a condition, looking at the process table all the while: more machines than the
        cap at any moment fail the test."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.look()
            assert time.monotonic() < deadline, "waited too long; see server.log"
            time.sleep(0.05)

    def look(self) -> Sequence[str]:
        """Machines with a living process, held against the cap."""
        alive = sorted(self.local.alive()) if self.state_dir.exists() else []
        self.machines_seen = max(self.machines_seen, len(alive))
        assert len(alive) <= MACHINES_MAX
        return alive

    def all_succeed_once(self, client: Client, job_ids: Sequence[str]) -> None:
        """Every job ends as succeeded, with exactly one attempt that says so; then no machine and
        no process is left and no money runs."""
        self.until(lambda: all(client.jobs.get(job_id).ended for job_id in job_ids), 60)
        for job_id in job_ids:
            outcomes = [attempt.outcome for attempt in client.jobs.attempts(job_id)]
            assert client.jobs.get(job_id).state is JobState.SUCCEEDED, outcomes
            assert outcomes.count("succeeded") == 1
        self.until(lambda: not self.look() and not list(client.machines.list()), 40)


def kill(pid: int) -> None:
    """SIGKILL to a process of ours that may have ended already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _answers(client: Client) -> bool:
    try:
        client.health()
    except Unavailable:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
