"""The quick example of the README, typed as it stands there, against a real control plane.

Then Ctrl-C: nothing that it started is left, also when a job still runs.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.docs.pages import README, ROOT, blocks_of

LIMIT_S = 60.0
ORCHCTL = [sys.executable, "-c", "from orchctl.main import run; run()"]
CHANGING = {"ready", "draining", "terminating", "terminated", "idle", "-"}
"""What a slower or a faster computer may show in place of what the README shows."""


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@dataclass
class Up:
    """`orchctl up` in a directory of its own."""

    folder: Path
    environment: dict[str, str] = field(init=False)
    process: subprocess.Popen[str] = field(init=False)

    def start(self, arguments: list[str]) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ORCHCTL_")}
        config = str(self.folder / "config")
        self.environment = {**kept, "ORCHCTL_CONFIG_DIR": config, "PYTHONPATH": str(ROOT)}
        with self.said_file.open("w") as said:
            self.process = subprocess.Popen(
                [*ORCHCTL, *arguments, "--port", "0", "--state-dir", str(self.folder / "state")],
                cwd=ROOT,
                env=self.environment,
                stderr=said,
                text=True,
            )
        until(lambda: "applied" in self.said or self.process.poll() is not None, "it came up")

    @property
    def said_file(self) -> Path:
        return self.folder / "up.txt"

    @property
    def said(self) -> str:
        return self.said_file.read_text()

    def run(self, arguments: list[str]) -> str:
        done = subprocess.run(
            [*ORCHCTL, *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(LIMIT_S)

    def alive(self) -> dict[int, str]:
        """All processes that have to do with our directory, by their number."""
        return {pid: text for pid, text in _processes() if str(self.folder) in text}

    def clean_up(self) -> None:
        """End what a test that failed has left."""
        for pid in self.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(LIMIT_S)


def _processes() -> Iterator[tuple[int, str]]:
    """Command line and working directory of every process but ours."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with suppress(OSError):
                text = (folder / "cmdline").read_text(errors="replace")
                yield int(folder.name), text + os.readlink(folder / "cwd")


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    made = Up(tmp_path)
    yield made
    made.clean_up()


def _typed() -> list[tuple[str, list[str]]]:
    """Every command of the marked blocks with the output that the README shows."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks_of(README):
        for line in block.text.splitlines() if block.quick else ():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def _like(line: str) -> re.Pattern[str]:
    """What a line of output must look like: its words, but for what differs from run to run."""
    words = [word for word in line.split() if not re.search(r"\d|…|^-$", word)]
    return re.compile(".*".join(re.escape(w) for w in words if w not in CHANGING), re.DOTALL)


def _assert_alike(shown: list[str], said: str) -> None:
    lines = said.splitlines()
    for line in shown:
        assert any(_like(line).search(each) for each in lines), f"{line!r} is not in:\n{said}"


def test_the_quick_example_does_what_the_readme_shows(up: Up) -> None:
    (first, greeting), *typed = _typed()
    assert first.startswith("orchctl up ")
    assert len(typed) >= 5
    up.start(shlex.split(first)[1:])
    _assert_alike(greeting, up.said)
    for line, shown in typed:
        _assert_alike(shown, up.run(shlex.split(line)[1:]))
    assert up.interrupt() == 0
    assert "nothing is left running" in up.said
    assert up.alive() == {}


def test_what_make_up_runs_is_what_the_readme_says() -> None:
    recipe = re.search(r"^up:.*\n\t(.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    assert recipe[1].removeprefix("$(BIN)/").removesuffix(" $(ARGS)") == _typed()[0][0]


def test_ctrl_c_ends_the_machines_of_running_jobs_and_buys_no_others(up: Up) -> None:
    up.start(shlex.split(_typed()[0][0])[1:])
    for _ in range(4):  # two run and two wait, which alone is a reason to buy
        up.run(["run", "--queue", "sweep", "--no-capture", "--", "sleep 600"])
    until(lambda: up.run(["job", "list"]).count("running") == 2, "two jobs run")
    assert len(up.alive()) > 1
    assert up.interrupt() == 0
    assert "nothing is left running" in up.said
    assert up.alive() == {}
