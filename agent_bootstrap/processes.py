"""The processes of a job, found and ended as one, whatever they did to get away.

A job starts as a session of its own. A process that left the session is still found by the marks
that every process of the job inherits in its environment, and by descent. Where there is no `/proc`
only the process group is known.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Callable, Dict, Iterable, List, Mapping, Set

KILL_ROUNDS = 100
"""A tree that forks while it is being killed is looked at again, but not for ever."""

KILL_PAUSE_S = 0.02
"""Between two looks: as long as the kernel takes to end a killed process."""


@dataclass(frozen=True)
class Process:
    """One line of the process table."""

    pid: int
    parent: int
    group: int
    session: int


class Tree:
    """All processes of one job: the leader's session, who carries the marks, who descends."""

    def __init__(self, leader: int, marks: Mapping[str, str]) -> None:
        self._leader = leader
        self._marks = marks

    def members(self) -> List[int]:
        """Who of the tree is alive now; without `/proc` the leader stands for its group."""
        if not os.path.isdir("/proc/self"):
            return [self._leader] if _signal_group(self._leader, 0) else []
        table = _table()
        found = {each.pid for each in table if self._leader in (each.group, each.session)}
        found.update(_marked(table, self._marks))
        return sorted(_with_descendants(found, table) - {os.getpid()})

    def terminate(self) -> None:
        """SIGTERM to the process group; who left it is not told, only killed in the end."""
        _signal_group(self._leader, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to all, until none is left."""
        _signal_group(self._leader, signal.SIGKILL)
        _kill_all(self.members)


def kill_marked(marks: Mapping[str, str]) -> None:
    """End every process that carries all these marks in its environment, except this one; an empty
    value stands for any. Does nothing where there is no `/proc`."""
    if os.path.isdir("/proc/self"):
        _kill_all(lambda: sorted(set(_marked(_table(), marks)) - {os.getpid()}))


def _kill_all(members: Callable[[], Iterable[int]]) -> None:
    clear = 0
    for _ in range(KILL_ROUNDS):
        alive = list(members())
        # In the middle of an exec a process shows no environment: one empty look proves nothing.
        clear = 0 if alive else clear + 1
        if clear == 2:
            return
        for pid in alive:
            _signal(pid, signal.SIGKILL)
        time.sleep(KILL_PAUSE_S)


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _signal_group(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _table() -> List[Process]:
    """Every process that is not a zombie."""
    rows = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            # The second field is the program's name in brackets and may hold anything.
            fields = _read("/proc/%s/stat" % name).rpartition(b")")[2].split()
            if len(fields) > 3 and fields[0] not in (b"Z", b"X"):
                rows.append(Process(int(name), *(int(each) for each in fields[1:4])))
    return rows


def _marked(table: Iterable[Process], marks: Mapping[str, str]) -> List[int]:
    wanted = [
        (b"\0" + os.fsencode(name) + b"=", os.fsencode(value)) for name, value in marks.items()
    ]
    found = []
    for each in table:
        environ = b"\0" + _read("/proc/%d/environ" % each.pid)
        if all(name + (value + b"\0" if value else b"") in environ for name, value in wanted):
            found.append(each.pid)
    return found


def _with_descendants(found: Set[int], table: Iterable[Process]) -> Set[int]:
    children: Dict[int, List[int]] = {}
    for each in table:
        children.setdefault(each.parent, []).append(each.pid)
    result: Set[int] = set()
    open_pids = list(found)
    while open_pids:
        pid = open_pids.pop()
        if pid not in result:
            result.add(pid)
            open_pids.extend(children.get(pid, ()))
    return result


def _read(path: str) -> bytes:
    """A file of the process table; empty when the process is gone or somebody else's."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
