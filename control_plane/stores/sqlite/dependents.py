"""What follows for jobs that wait for others, when those have ended."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable
from datetime import datetime

from control_plane.core.lifecycle import JOB_ENDED
from control_plane.stores import transitions
from control_plane.stores.sqlite import records

ALL = 1 << 62
DEPENDENTS = "select dependent from dependencies where dependency = ? order by dependent"

WAITED_FOR = "select distinct dependency from dependencies"


def let_go(tx: sqlite3.Connection, ended: Iterable[str], now: datetime) -> None:
    """Let go or cancel the jobs that waited for these, and so on down the line."""
    for job_id in ended:
        blocked = tx.execute(DEPENDENTS, (job_id,)).fetchall()
        if blocked:
            look_again(tx, (dependent for (dependent,) in blocked), now)


def let_go_of_many(tx: sqlite3.Connection, ended: Iterable[str], now: datetime) -> None:
    """The same for so many that few of them are waited for."""
    waited_for = {dependency for (dependency,) in tx.execute(WAITED_FOR)}
    let_go(tx, (job_id for job_id in ended if job_id in waited_for), now)


def look_again(
    tx: sqlite3.Connection, blocked: Iterable[str], now: datetime, *, limit: int = ALL
) -> int:
    """Let go or cancel those of these blocked jobs that have nothing to wait for, and so on down
    the line; returns how many moved, `limit` at most."""
    moved = 0
    line = deque(blocked)
    while line and moved < limit:
        job = records.get(tx, line.popleft())
        after = transitions.unblocked(job, records.dependencies(tx, job), now)
        if after is job:
            continue
        records.save(tx, job, after)
        moved += 1
        if after.state in JOB_ENDED:
            line.extend(dependent for (dependent,) in tx.execute(DEPENDENTS, (after.id,)))
    return moved
