"""Proves that the start-up text of a local machine starts the agent, or ends, and leaves nothing.

The text is run as the local provider runs it: `/bin/sh startup.sh` in the machine's directory, in a
session of its own."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_bootstrap import shutdown, user_data
from agent_bootstrap.bundle import bundle_sha256
from agent_bootstrap.user_data import local_startup
from tests.agent.conftest import Stage
from tests.agent.server import TOKEN, Fault, eventually


class Box:
    """A machine's directory and its first process."""

    def __init__(self, stage: Stage, directory: Path, **settings: object) -> None:
        self.directory = directory
        directory.mkdir()
        token = directory / "the token"
        token.write_text(TOKEN)
        values = {
            "server_url": stage.plane.url,
            "machine_id": "m-startup" + directory.parent.name[-12:],
            "fleet": "it's $(touch pwned)",
            "pool": "`touch pwned`",
            "agent_sha256": bundle_sha256(),
            "boot_timeout_s": 60,
            "max_lifetime_s": 600,
            "token_file": str(token),
        } | settings
        self.machine_id = str(values["machine_id"])
        (directory / "startup.sh").write_text(local_startup(**values))  # type: ignore[arg-type]
        with (directory / "console.log").open("wb") as console:
            self.process = subprocess.Popen(
                ["/bin/sh", "startup.sh"],
                cwd=directory,
                env={**os.environ, "ORCHCTL_PYTHON": sys.executable, "MARK": str(directory)},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )

    @property
    def console(self) -> str:
        return (self.directory / "console.log").read_text()

    def wait(self) -> int:
        return self.process.wait(30)

    def alive(self) -> list[int]:
        """Every process of this box: the first one's children inherit one mark, jobs another."""
        marks = (
            f"MARK={self.directory}\0".encode(),
            f"ORCHCTL_MACHINE={self.machine_id}\0".encode(),
        )
        found = []
        for process in Path("/proc").iterdir():
            try:
                environ = (process / "environ").read_bytes() if process.name.isdigit() else b""
                if any(mark in environ for mark in marks):
                    found.append(int(process.name))
            except OSError:
                continue
        return found

    def gone(self) -> None:
        eventually(lambda: not self.alive(), "nothing is left")

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        shutdown.kill_jobs(self.machine_id)


@pytest.fixture
def boxes(stage: Stage) -> Iterator[list[Box]]:
    boxes: list[Box] = []
    yield boxes
    for box in boxes:
        box.close()


def start(stage: Stage, boxes: list[Box], **settings: object) -> Box:
    boxes.append(Box(stage, stage.directory / "box", **settings))
    return boxes[0]


def test_it_runs_to_its_end_and_leaves_nothing(stage: Stage, boxes: list[Box]) -> None:
    stage.plane.advice.idle_timeout_s = 0.2
    job_id = stage.give("echo works")
    box = start(stage, boxes)
    assert box.wait() == shutdown.LEFT, box.console
    assert stage.finish(job_id).text == "works\n"
    assert stage.plane.told("register")[0]["machine_id"] == box.machine_id
    assert not (box.directory / "pwned").exists()
    box.gone()


def test_another_agent_than_expected_is_not_run(stage: Stage, boxes: list[Box]) -> None:
    stage.plane.bundle = b"import pathlib; pathlib.Path('pwned').touch()"
    box = start(stage, boxes)
    assert box.wait() == 7
    assert "SHA-256" in box.console
    assert not (box.directory / "pwned").exists()
    assert not (box.directory / "agent.pyz").exists()
    box.gone()


def test_a_fetch_that_fails_is_repeated(stage: Stage, boxes: list[Box]) -> None:
    stage.plane.faults["bundle.pyz"] = Fault(status=503, times=1)
    stage.plane.advice.idle_timeout_s = 0
    assert start(stage, boxes).wait() == shutdown.LEFT


def test_its_own_timer_ends_it_when_there_is_nothing_to_fetch(
    stage: Stage, boxes: list[Box]
) -> None:
    stage.plane.close()
    box = start(stage, boxes, boot_timeout_s=1)
    assert box.wait() != 0
    ended_at = time.monotonic()
    assert "out of time" in box.console
    box.gone()
    assert time.monotonic() - ended_at < 5, "its timer waits on, with nobody left to kill"


def test_a_hanging_agent_and_its_jobs_do_not_outlive_the_life_limit(
    stage: Stage, boxes: list[Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = (
        b"import os, signal, subprocess, sys\n"
        b"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        b"open('registered', 'w').close()\n"
        b"machine = sys.argv[sys.argv.index('--machine') + 1]\n"
        b"env = dict(os.environ, ORCHCTL_MACHINE=machine, ORCHCTL_JOB_ID='j1')\n"
        b"subprocess.Popen(['sleep', '600'], env=env, start_new_session=True).wait()\n"
    )
    stage.plane.bundle = hanging
    sha256 = hashlib.sha256(hanging).hexdigest()
    # The margin of a minute and the wait before SIGKILL, made short; all else is the real text.
    assert "sleep 15" in user_data._LOCAL
    monkeypatch.setattr(user_data, "_LOCAL", user_data._LOCAL.replace("sleep 15", "sleep 1"))
    monkeypatch.setattr(user_data, "LIFE_MARGIN_S", 0)
    box = start(stage, boxes, agent_sha256=sha256, max_lifetime_s=2)
    assert box.wait() == -signal.SIGKILL
    box.gone()


def test_terminating_its_session_ends_agent_and_jobs(stage: Stage, boxes: list[Box]) -> None:
    job_id = stage.give("echo up; exec sleep 600")
    box = start(stage, boxes)
    stage.printed(job_id, "up")
    os.killpg(box.process.pid, signal.SIGTERM)
    assert box.wait() == 128 + signal.SIGTERM
    assert stage.finish(job_id).finished.outcome == "interrupted"
    box.gone()


def test_an_agent_that_was_killed_leaves_no_jobs(stage: Stage, boxes: list[Box]) -> None:
    job_id = stage.give("echo up; exec sleep 600")
    box = start(stage, boxes)
    stage.printed(job_id, "up")
    agents = [
        pid
        for pid in box.alive()
        if b"agent.pyz\0--server" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(agents[0], signal.SIGKILL)
    assert box.wait() == 128 + signal.SIGKILL
    box.gone()
