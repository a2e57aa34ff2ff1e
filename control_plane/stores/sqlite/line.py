"""A queue as an ordered line, for `placing.spot`."""

from __future__ import annotations

import sqlite3

from control_plane.core.model import Job
from control_plane.stores.sqlite import rows

_PLACED = ("state = 'queued'", rows.HELD)
"""Two conditions, asked one after the other: each has a partial index of its own."""


def fresh_position(tx: sqlite3.Connection) -> float:
    """A position behind every other; never the same twice."""
    row = tx.execute(
        "update counters set value = value + 1 where name = 'position' returning value"
    ).fetchone()
    return float(row[0])


class SqliteLine:
    """`placing.Line` inside an open transaction."""

    def __init__(self, tx: sqlite3.Connection, queue: str) -> None:
        self._tx = tx
        self._queue = queue

    def waiting(self, job_id: str) -> Job | None:
        row = self._tx.execute(
            f"select {rows.JOB_COLUMNS} from jobs where id = ? and queue = ? and state = 'queued'",
            (job_id, self._queue),
        ).fetchone()
        return None if row is None else rows.job(row)

    def priorities(self) -> tuple[int, int] | None:
        lowest = self._one("select min(priority) from jobs where queue = ? and state = 'queued'")
        highest = self._one("select max(priority) from jobs where queue = ? and state = 'queued'")
        return None if lowest is None or highest is None else (int(lowest), int(highest))

    def first(self, priority: int) -> float | None:
        found = [
            self._one(
                f"select min(position) from jobs where queue = ? and priority = ? and {placed}",
                priority,
            )
            for placed in _PLACED
        ]
        return min((position for position in found if position is not None), default=None)

    def beside(self, job: Job, *, before: bool) -> float | None:
        sign, order = ("<", "desc") if before else (">", "asc")
        found = [
            self._one(
                f"select position from jobs where queue = ? and priority = ? and {placed} "
                f"and (position, id) {sign} (?, ?) order by position {order}, id {order} limit 1",
                job.priority,
                job.position,
                job.id,
            )
            for placed in _PLACED
        ]
        there = [position for position in found if position is not None]
        return (max if before else min)(there, default=None)

    def fresh(self) -> float:
        return fresh_position(self._tx)

    def respace(self, priority: int) -> None:
        placed = self._tx.execute(
            "select id from jobs where queue = ? and priority = ? "
            f"and (state = 'queued' or {rows.HELD}) order by position, id",
            (self._queue, priority),
        ).fetchall()
        for (job_id,) in placed:
            self._tx.execute(
                "update jobs set position = ?, version = version + 1 where id = ?",
                (self.fresh(), job_id),
            )

    def _one(self, query: str, *bound: rows.Value) -> float | None:
        row = self._tx.execute(query, (self._queue, *bound)).fetchone()
        return None if row is None else row[0]
