"""Proves that a tree of processes is found and ended whatever its members did to get away."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from agent_bootstrap.processes import Tree, kill_marked

MACHINE = f"m-unit-{os.getpid()}-processes"
"""Of this test process alone: marks are looked for in all processes of the computer, and the same
test may run beside this one."""
MARKS = {"ORCHCTL_JOB_ID": "j-unit", "ORCHCTL_MACHINE": MACHINE}


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    kill_marked(MARKS)
    for process in started:
        process.kill()
        process.wait()


def start(started: list[subprocess.Popen[bytes]], script: str, **marks: str) -> Tree:
    environment = {"PATH": "/usr/bin:/bin", **(marks or MARKS)}
    process = subprocess.Popen(["/bin/sh", "-c", script], env=environment, start_new_session=True)
    started.append(process)
    return Tree(process.pid, marks or MARKS)


def members(tree: Tree, count: int) -> list[int]:
    deadline = time.monotonic() + 20
    while len(tree.members()) != count:
        assert time.monotonic() < deadline, f"{tree.members()}, not {count}"
        time.sleep(0.01)
    return tree.members()


@pytest.mark.parametrize(
    ("script", "count"),
    [
        ("sleep 60 & sleep 60 & wait", 3),
        ("setsid sleep 60 & wait", 2),
        ("env -i /bin/sleep 60 & wait", 2),  # has no mark any more, but is of the session
        ("setsid env -i /bin/sleep 60 & wait", 2),  # has nothing but its parent
        ("(setsid sleep 60 &) ; exec sleep 60", 2),  # has lost its parent, but not its mark
    ],
)
def test_members_are_found_and_killed(
    started: list[subprocess.Popen[bytes]], script: str, count: int
) -> None:
    tree = start(started, script)
    members(tree, count)
    tree.kill()
    started[0].wait(10)
    assert tree.members() == []


def test_a_tree_without_its_leader_is_still_found(started: list[subprocess.Popen[bytes]]) -> None:
    tree = start(started, "setsid sleep 60 & exit 0")
    started[0].wait(10)
    members(tree, 1)
    tree.kill()
    assert tree.members() == []


def test_similar_marks_are_somebody_elses(started: list[subprocess.Popen[bytes]]) -> None:
    other = start(started, "exec sleep 60", **{**MARKS, "ORCHCTL_MACHINE": f"{MACHINE}2"})
    members(other, 1)
    kill_marked(MARKS)
    kill_marked({"ORCHCTL_MACHINE": MACHINE[:-1], "ORCHCTL_JOB_ID": ""})
    assert len(other.members()) == 1
    kill_marked({"ORCHCTL_MACHINE": f"{MACHINE}2", "ORCHCTL_JOB_ID": ""})
    assert other.members() == []


def test_terminate_reaches_the_group(started: list[subprocess.Popen[bytes]]) -> None:
    tree = start(started, "sleep 60 & wait")
    members(tree, 2)
    tree.terminate()
    started[0].wait(10)
    assert members(tree, 0) == []
