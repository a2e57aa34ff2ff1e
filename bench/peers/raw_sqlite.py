"""SQLite without us: the fewest statements that leave the same rows behind as our store does.

It works on a file that our store made, so tables and indexes are the same. It checks nothing that
SQLite does not need: no capacity, no pause, no state of the machine.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bench.peers import files
from bench.peers.work import Kind
from control_plane.stores.sqlite import Durability

CLAIM = """
    update jobs set state = 'leased', lane = null, version = version + 1, epoch = epoch + 1,
        attempt = attempt + 1, machine_id = ?, leased_at = ?, reason = null
    where rowid = (
        select rowid from jobs indexed by jobs_ready where queue = ? and lane is not null
        order by lane, priority desc, position, id limit 1)
    returning id, epoch, attempt, queue, owner, need, queued_at, leased_at"""
FINISH = """
    update jobs set state = 'succeeded', version = version + 1, finished_at = ?, exit_code = 0,
        reason = null
    where id = ? and epoch = ? and state in ('leased', 'running')"""
ATTEMPT = """
    insert into attempts (
        job_id, epoch, number, queue, owner, need, queued_at, leased_at, machine_id, ended_at,
        outcome, exit_code, artifacts)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'succeeded', 0, '[]')"""
IDLE = """
    update machines set idle_since = ? where id = ? and not exists (
        select 1 from jobs where machine_id = ? and state in ('leased', 'running'))"""


class RawSqlite:
    """A fresh copy of `template` for each phase; several workers are processes, as two programs
    that share a file would be."""

    def __init__(self, template: Path, durability: Durability, kind: Kind = "threads") -> None:
        self._template = template
        self._path = template.with_name(f"raw-{durability}.db")
        self._durability = durability
        self.kind = kind

    def ready(self) -> None:
        files.copy(self._template, self._path)

    def opener(self) -> Callable[[int], RawWorker]:
        return partial(RawWorker, self._path, self._durability)

    def ended(self) -> int:
        return files.ended(self._path)

    def rest(self) -> None:
        files.remove(self._path)


class RawWorker:
    """One connection; two transactions per job."""

    def __init__(self, path: Path, durability: Durability, number: int) -> None:
        self._machine_id = files.machine_id(number)
        self._file = sqlite3.connect(path, isolation_level=None, timeout=30)
        self._file.execute(f"pragma synchronous={durability}")

    def claim(self) -> tuple[Any, ...] | None:
        run = self._file.execute
        run("begin immediate")
        row: tuple[Any, ...] | None = run(CLAIM, (self._machine_id, _now(), files.QUEUE)).fetchone()
        run("commit")
        return row

    def finish(self, job: tuple[Any, ...]) -> None:
        run, now, machine_id = self._file.execute, _now(), self._machine_id
        run("begin immediate")
        run(FINISH, (now, *job[:2]))
        run(ATTEMPT, (*job, machine_id, now))
        run(IDLE, (now, machine_id, machine_id))
        run("commit")

    def close(self) -> None:
        self._file.close()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
