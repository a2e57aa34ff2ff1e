"""Jobs in SQLite: handing in, reading, cancelling and moving them."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import datetime

from control_plane.core.model import Job, JobState, Reason
from control_plane.errors import Conflict, NotFound
from control_plane.ports import Page, Place
from control_plane.stores import transitions
from control_plane.stores.placing import spot
from control_plane.stores.sqlite import dependents, listing, records, rows
from control_plane.stores.sqlite.database import Table, reads, writes
from control_plane.stores.sqlite.line import SqliteLine, fresh_position

BY_KEY = f"select {rows.JOB_COLUMNS} from jobs where idempotency_key = ?"


class Jobs(Table):
    """The part of `ports.JobStore` that needs no lease."""

    @writes
    def job_enqueue(
        self, tx: sqlite3.Connection, job: Job, *, idempotency_key: str = ""
    ) -> tuple[Job, bool]:
        if idempotency_key:
            row = tx.execute(BY_KEY, (idempotency_key,)).fetchone()
            if row is not None:
                return rows.job(row), False
        transitions.check_new(job)
        _check_queue(tx, job.queue)
        if tx.execute("select 1 from jobs where id = ?", (job.id,)).fetchone() is not None:
            raise Conflict(f"there is a job {job.id} already")
        dependencies = [records.get(tx, each) for each in job.depends_on]
        stored = transitions.enqueued(job, dependencies, fresh_position(tx))
        records.insert(tx, stored, idempotency_key=idempotency_key)
        return stored, True

    @reads
    def job_get(self, tx: sqlite3.Connection, job_id: str) -> Job:
        return records.get(tx, job_id)

    @reads
    def job_list(
        self,
        tx: sqlite3.Connection,
        *,
        queue: str = "",
        states: frozenset[JobState] = frozenset(),
        machine_id: str = "",
        cursor: str = "",
        limit: int = 100,
    ) -> Page[Job]:
        return listing.page(tx, listing.Wanted(queue, states, machine_id), cursor, limit)

    @writes
    def job_cancel(
        self, tx: sqlite3.Connection, job_id: str, *, reason: Reason, now: datetime
    ) -> Job:
        job = records.get(tx, job_id)
        cancelled = transitions.cancelled(job, reason, now)
        records.save(tx, job, cancelled)
        if cancelled.state is JobState.CANCELLED:
            dependents.let_go(tx, (job_id,), now)
        return cancelled

    @writes
    def job_move(
        self,
        tx: sqlite3.Connection,
        job_id: str,
        *,
        queue: str,
        place: Place,
        expected_version: int | None,
        now: datetime,  # noqa: ARG002 - part of the port: a store may stamp its rows
    ) -> Job:
        transitions.movable(records.get(tx, job_id), expected_version)
        _check_queue(tx, queue)
        priority, position = spot(SqliteLine(tx, queue), records.get(tx, job_id), place)
        # Read again: making room may have numbered this very job anew.
        job = records.get(tx, job_id)
        moved = replace(
            job, queue=queue, priority=priority, position=position, version=job.version + 1
        )
        records.save(tx, job, moved)
        return moved


def _check_queue(tx: sqlite3.Connection, name: str) -> None:
    if tx.execute("select 1 from queues where name = ?", (name,)).fetchone() is None:
        raise NotFound(f"there is no queue {name}")
