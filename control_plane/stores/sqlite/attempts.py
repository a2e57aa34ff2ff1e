"""What attempts there were, in SQLite. One that goes on is told by the columns of its job."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from operator import attrgetter

from control_plane.core.model import Artifact, Attempt
from control_plane.stores.sqlite import rows
from control_plane.stores.sqlite.database import Table, reads

ENDED = f"select {rows.ATTEMPT_COLUMNS} from attempts"
OPEN = f"""
    select id, attempt, epoch, queue, owner, machine_id, need,
        max(queued_at, coalesce(not_before, queued_at)), leased_at, started_at, null, '', null, null
    from jobs where {rows.HELD}"""
"""Attempts that go on, as `rows.ATTEMPT_COLUMNS`."""
LAST_ARTIFACTS = "select artifacts from attempts where job_id = ? order by number desc limit 1"
ENDED_BETWEEN = f"{ENDED} indexed by attempts_by_end where ended_at > ? and leased_at < ?"


class Attempts(Table):
    """The part of `ports.JobStore` that is about attempts."""

    @reads
    def job_attempts(self, tx: sqlite3.Connection, job_id: str) -> Sequence[Attempt]:
        ended = tx.execute(f"{ENDED} where job_id = ? order by number", (job_id,))
        goes_on = tx.execute(f"{OPEN} and id = ?", (job_id,))
        return tuple(rows.attempt(row) for row in chain(ended, goes_on))

    @reads
    def job_artifacts(self, tx: sqlite3.Connection, job_id: str) -> Sequence[Artifact]:
        row = tx.execute(LAST_ARTIFACTS, (job_id,)).fetchone()
        return rows.loads(tuple[Artifact, ...], row[0]) if row else ()

    @reads
    def attempts_between(
        self, tx: sqlite3.Connection, start: datetime, end: datetime
    ) -> Sequence[Attempt]:
        ended = tx.execute(ENDED_BETWEEN, (rows.text(start), rows.text(end)))
        going_on = tx.execute(f"{OPEN} and leased_at < ?", (rows.text(end),))
        found = [rows.attempt(row) for row in chain(ended, going_on)]
        return tuple(sorted(found, key=attrgetter("leased_at", "job_id", "number")))
