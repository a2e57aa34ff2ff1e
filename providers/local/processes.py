"""Which processes of this computer belong to which local machine, and how to end them.

A machine's first process is started with a label in its environment, and every descendant inherits
it, whatever it does to its session, process group or parent. So the process table alone says what
runs, for this control plane and the next one. Jobs are given an environment of their own by the
agent, with the machine's id as their mark. A process that carries neither still counts while its
parent does.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LABEL = "ORCHCTL_CARD"
"""Holds the machine's card as one word of text. Not `ORCHCTL_MACHINE`: the start-up text ends all
that carries the mark before it ends itself."""
MARK = "ORCHCTL_MACHINE"
"""Holds the machine's id; set by the agent for its jobs."""

_PROC = Path("/proc")
_POLL_S = 0.02
_EXEC_POLL_S, _EXEC_LIMIT_S = 0.001, 1.0
_DEAD = ("Z", "X")
_KERNEL_THREAD = 0x00200000
"""PF_KTHREAD among a process's flags: it has no environment, and never had."""
_IN_PS_LINE = re.compile(rf"(?:^|\s)({LABEL}|{MARK})=(\S*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One living process. Zombies are not living: nothing of them runs."""

    pid: int
    parent: int
    started: str = ""
    """With the pid it names one process for ever; empty where the system does not tell."""
    label: str = ""
    mark: str = ""

    @property
    def identity(self) -> tuple[int, str]:
        return self.pid, self.started


Owner = Callable[[Process], str]
"""Says by label or mark alone which machine a process belongs to; empty = none."""


def table() -> Mapping[int, Process]:
    """All living processes by pid; labels and marks only of our own user's."""
    return _from_proc() if (_PROC / "self" / "environ").exists() else from_ps()


def machines(owner: Owner) -> Mapping[str, Sequence[Process]]:
    """The living processes of each machine, by the name that `owner` gives it."""
    processes = table()
    found: dict[str, list[Process]] = defaultdict(list)
    for process in processes.values():
        if name := _nearest(process, processes, owner):
            found[name].append(process)
    return found


def end(find: Callable[[], Sequence[Process]], *, grace_s: float, limit_s: float) -> bool:
    """SIGTERM to all that `find` finds, after `grace_s` SIGKILL until it finds nothing more.

    What was found once is followed even when it is not found again. Returns whether nothing is
    left; False after `limit_s`, and the caller tries again later.
    """
    begun = time.monotonic()
    seen: set[tuple[int, str]] = set()
    signal_all(left := _left(find, seen), signal.SIGTERM)
    while left and time.monotonic() - begun < grace_s:
        time.sleep(_POLL_S)
        left = _left(find, seen)
    while left and time.monotonic() - begun < limit_s:
        signal_all(left, signal.SIGKILL)
        time.sleep(_POLL_S)
        left = _left(find, seen)
    return not left


def signal_all(processes: Sequence[Process], number: signal.Signals) -> None:
    """Send a signal to each; one that is gone or not ours to signal is passed over."""
    for process in processes:
        try:
            os.kill(process.pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def _left(find: Callable[[], Sequence[Process]], seen: set[tuple[int, str]]) -> Sequence[Process]:
    seen.update(process.identity for process in find())
    return [process for process in table().values() if process.identity in seen] if seen else []


def _nearest(process: Process, processes: Mapping[int, Process], owner: Owner) -> str:
    """The owner of a process, or else of its nearest ancestor that has one."""
    passed: set[int] = set()
    at: Process | None = process
    while at is not None and at.pid not in passed:
        if name := owner(at):
            return name
        passed.add(at.pid)
        at = processes.get(at.parent)
    return ""


def _from_proc() -> Mapping[int, Process]:
    pids = (int(entry) for entry in os.listdir(_PROC) if entry.isdigit())
    return {pid: process for pid in pids if (process := _read(pid)) is not None}


def _read(pid: int) -> Process | None:
    """One process from /proc; None when it has ended meanwhile."""
    folder = _PROC / str(pid)
    try:
        state, parent, flags, started = _stat(folder)
    except (FileNotFoundError, ProcessLookupError):
        return None
    if state in _DEAD or int(flags) & _KERNEL_THREAD:
        return None
    label, mark = _texts(folder)
    return Process(pid=pid, parent=int(parent), started=started, label=label, mark=mark)


def _stat(folder: Path) -> tuple[str, str, str, str]:
    """State, parent, flags and start time of a process."""
    # The command name stands in brackets and may itself hold spaces and brackets.
    fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return fields[0], fields[1], fields[6], fields[19]


def _texts(folder: Path) -> tuple[str, str]:
    """Label and mark of one of our own user's processes."""
    try:
        if folder.stat().st_uid != os.geteuid():
            return "", ""
        lines = _environment(folder).split(b"\0")
    except OSError:
        return "", ""
    values = dict(os.fsdecode(each).split("=", 1) for each in lines if each.startswith(b"ORCHCTL_"))
    return values.get(LABEL, ""), values.get(MARK, "")


def _environment(folder: Path) -> bytes:
    """The environment of a process, read again while it is between two programs.

    In the middle of an exec the kernel shows neither environment nor arguments. Such a process is
    not without a label, it only cannot be read yet; taking it for a stranger would make a machine
    look dead that has just been started.
    """
    deadline = time.monotonic() + _EXEC_LIMIT_S
    while not (environment := (folder / "environ").read_bytes()):
        readable = (folder / "cmdline").read_bytes() or _stat(folder)[0] in _DEAD
        if readable or time.monotonic() > deadline:
            # The environment may have appeared between the two reads.
            return (folder / "environ").read_bytes()
        time.sleep(_EXEC_POLL_S)
    return environment


def from_ps() -> Mapping[int, Process]:
    """The process table of systems without /proc, where `ps` shows our own environments."""
    flags = "-axEww" if sys.platform == "darwin" else "axeww"
    command = ["ps", flags, "-o", "pid=,ppid=,stat=,command="]
    shown = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True)
    rows = (line.split(maxsplit=3) for line in shown.stdout.splitlines())
    return {
        int(pid): _from_line(int(pid), int(parent), " ".join(rest))
        for pid, parent, state, *rest in rows
        if not state.startswith("Z")
    }


def _from_line(pid: int, parent: int, line: str) -> Process:
    values = dict(_IN_PS_LINE.findall(line))
    return Process(pid=pid, parent=parent, label=values.get(LABEL, ""), mark=values.get(MARK, ""))
