"""A fake control plane and real agents, all ended when the test is over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent_bootstrap.bundle import bundle
from agent_bootstrap.shutdown import kill_jobs
from agent_bootstrap.wire import Work
from tests.agent.server import TOKEN, FakeControlPlane, Seen, eventually
from tests.agent.storage import FakeStorage
from tests.fakes.metadata.server import Metadata

AGENT_PYTHON = os.environ.get("ORCHCTL_AGENT_PYTHON", sys.executable)
"""Set it to an older interpreter to see the agent run there."""


class Machine:
    """One agent process, started as a user would: `python agent.pyz`."""

    def __init__(
        self, plane: FakeControlPlane, directory: Path, environment: dict[str, str], **flags: object
    ) -> None:
        self.id = "m-" + uuid.uuid4().hex[:8]
        self.directory = directory
        self.token_file = directory / "token"
        self.console = directory / "console.log"
        directory.mkdir(exist_ok=True)
        agent = directory / "agent.pyz"
        agent.write_bytes(bundle())
        self.token_file.write_text(TOKEN + "\n")
        self.token_file.chmod(0o600)
        command = [AGENT_PYTHON, "-I", str(agent)]
        options = {
            "server": plane.url,
            "machine": self.id,
            "token-file": self.token_file,
            "dir": directory,
            "cache": directory / "cache",
        }
        for name, value in (options | flags).items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        with self.console.open("wb") as console:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, "ORCHCTL_API_TOKEN": "must-not-reach-the-job", **environment},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )

    def wait(self) -> int:
        """The exit code, once it has ended."""
        return self.process.wait(30)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        kill_jobs(self.id)


class Stage:
    """What a test works with: the control plane, and ways to start machines and give them work."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.plane = FakeControlPlane()
        self.machines: list[Machine] = []
        self.environment: dict[str, str] = {}
        """Of the agents started from now on, besides that of the tests."""

    def start(self, **flags: object) -> Machine:
        directory = self.directory / f"machine{len(self.machines)}"
        machine = Machine(self.plane, directory, self.environment, **flags)
        self.machines.append(machine)
        return machine

    def give(self, command: str, **fields: object) -> str:
        """Put a job where the next claim finds it; its id."""
        job_id = f"j{len(self.plane.jobs)}"
        self.plane.job(job_id)
        work = {"job_id": job_id, "epoch": 1, "attempt": 1, "command": command, "grace_s": 5}
        self.plane.waiting.append(Work(**(work | fields)))  # type: ignore[arg-type]
        return job_id

    def finish(self, job_id: str) -> Seen:
        """The job, once its end is reported."""
        job = self.plane.job(job_id)
        eventually(lambda: job.finishes, f"{job_id} is finished")
        return job

    def printed(self, job_id: str, text: str) -> None:
        """Wait until the job's log shows a text."""
        job = self.plane.job(job_id)
        eventually(lambda: text in job.text, f"{job_id} prints {text!r}")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    for machine in stage.machines:
        machine.close()
    stage.plane.close()


@pytest.fixture
def storage() -> Iterator[FakeStorage]:
    """What is behind a control plane that takes no large files."""
    storage = FakeStorage()
    yield storage
    storage.close()


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    """What a machine of any cloud asks about itself."""
    metadata = Metadata()
    # What is in a proof is proved elsewhere; here it only has to be sent.
    metadata.documents |= {
        "/computeMetadata/v1/instance/service-accounts/default/identity": lambda _: "a.b.c",
        "/metadata/attested/document": lambda _: '{"signature": "a"}',
    }
    yield metadata
    metadata.close()


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Whether a process runs; a zombie does not."""

    def is_alive(pid: int) -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] not in "ZX"

    return is_alive
