"""Jobs in SQLite: submitting, claiming, ending and reading them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from control_plane.core.model import (
    Artifact,
    Attempt,
    Capacity,
    Job,
    JobState,
    Lease,
    MachineState,
    Market,
    Need,
    Reason,
)
from control_plane.errors import Conflict, NotFound
from control_plane.ports import Ending, Page, Place
from control_plane.stores import cursors, transitions
from control_plane.stores.placing import spot
from control_plane.stores.sqlite import rows
from control_plane.stores.sqlite.database import Table, reads, writes
from control_plane.stores.sqlite.line import SqliteLine, fresh_position

# The index is named so that no change of statistics can ever make a claim sort the whole queue.
CLAIM_NEXT = f"""
    select {rows.JOB_COLUMNS} from jobs indexed by jobs_ready
    where state = 'queued' and queue = ?
      and gpus <= ? and share_ppm <= ? and cpus <= ? and memory_mib <= ? and disk_gib <= ?
      and (gpus = 0 or gpu_name in ('', ?))
      and gpu_memory_gib * 9 <= ? and on_demand_only <= ?
      and (not_before is null or not_before <= ?)
    order by priority desc, position, id
    limit 1"""
"""The first waiting job of a queue that fits: `Capacity.fits`, as SQL."""


class Jobs(Table):
    """`ports.JobStore`."""

    @writes
    def job_enqueue(
        self, tx: sqlite3.Connection, job: Job, *, idempotency_key: str = ""
    ) -> tuple[Job, bool]:
        if idempotency_key:
            row = tx.execute(
                f"select {rows.JOB_COLUMNS} from jobs where idempotency_key = ?", (idempotency_key,)
            ).fetchone()
            if row is not None:
                return rows.job(row), False
        _check_queue(tx, job.queue)
        if rows.job_get(tx, job.id) is not None:
            raise Conflict(f"there is a job {job.id} already")
        placed = replace(job, position=fresh_position(tx))
        rows.job_insert(tx, placed, idempotency_key)
        return placed, True

    @reads
    def job_get(self, tx: sqlite3.Connection, job_id: str) -> Job:
        return _job(tx, job_id)

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
        scope = ("jobs", queue, ",".join(sorted(states)), machine_id)
        if queue and states == {JobState.QUEUED} and not machine_id:
            return _ready_page(tx, queue, scope, cursor, limit)
        return _newest_page(tx, queue, states, machine_id, scope, cursor, limit)

    @writes
    def job_claim(
        self,
        tx: sqlite3.Connection,
        machine_id: str,
        queues: Sequence[str],
        free: Capacity,
        *,
        limit: int,
        now: datetime,
    ) -> Sequence[Job]:
        if _machine_state(tx, machine_id) is not MachineState.READY:
            return ()
        claimed: list[Job] = []
        for queue in _open_queues(tx, queues):
            while len(claimed) < limit and (job := _next_fitting(tx, queue, free, now)):
                leased = transitions.leased(job, machine_id, now)
                rows.job_update(tx, job, leased)
                rows.attempt_insert(tx, transitions.attempt_of(leased, now))
                free = free.less(job.spec.need)
                claimed.append(leased)
        if claimed:
            tx.execute("update machines set idle_since = null where id = ?", (machine_id,))
        return tuple(claimed)

    @writes
    def job_start(self, tx: sqlite3.Connection, job_id: str, epoch: int, *, now: datetime) -> Job:
        job = _job(tx, job_id)
        started = transitions.started(job, epoch, now)
        if started is not job:
            rows.job_update(tx, job, started)
            tx.execute(
                "update attempts set started_at = ? where job_id = ? and number = ?",
                (rows.text(now), job_id, job.attempt),
            )
        return started

    @writes
    def job_finish(
        self,
        tx: sqlite3.Connection,
        job_id: str,
        epoch: int,
        ending: Ending,
        *,
        state: JobState,
        now: datetime,
    ) -> Job:
        job = _job(tx, job_id)
        finished = transitions.finished(job, epoch, ending, state, now)
        return _end(tx, job, finished, ending, now)

    @writes
    def job_requeue(
        self,
        tx: sqlite3.Connection,
        job_id: str,
        epoch: int,
        ending: Ending,
        *,
        need: Need,
        now: datetime,
    ) -> Job:
        job = _job(tx, job_id)
        return _end(tx, job, transitions.given_back(job, epoch, ending, need), ending, now)

    @writes
    def job_cancel(
        self, tx: sqlite3.Connection, job_id: str, *, reason: Reason, now: datetime
    ) -> Job:
        job = _job(tx, job_id)
        cancelled = transitions.cancelled(job, reason, now)
        rows.job_update(tx, job, cancelled)
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
        transitions.movable(_job(tx, job_id), expected_version)
        _check_queue(tx, queue)
        priority, position = spot(SqliteLine(tx, queue), _job(tx, job_id), place)
        # Read again: making room may have numbered this very job anew.
        job = _job(tx, job_id)
        moved = replace(
            job, queue=queue, priority=priority, position=position, version=job.version + 1
        )
        rows.job_update(tx, job, moved)
        return moved

    @reads
    def job_leases(self, tx: sqlite3.Connection, *, machine_id: str = "") -> Sequence[Lease]:
        of_machine = "and machine_id = ?" if machine_id else ""
        found = tx.execute(
            f"select {rows.JOB_COLUMNS} from jobs where {rows.HELD} {of_machine} "
            "order by leased_at, id",
            (machine_id,) if machine_id else (),
        )
        return tuple(transitions.lease_of(rows.job(row)) for row in found)

    @reads
    def job_attempts(self, tx: sqlite3.Connection, job_id: str) -> Sequence[Attempt]:
        found = tx.execute(
            f"select {rows.ATTEMPT_COLUMNS} from attempts where job_id = ? order by number",
            (job_id,),
        )
        return tuple(rows.attempt(row) for row in found)

    @reads
    def job_artifacts(self, tx: sqlite3.Connection, job_id: str) -> Sequence[Artifact]:
        row = tx.execute(
            "select artifacts from attempts where job_id = ? and ended_at is not null "
            "order by number desc limit 1",
            (job_id,),
        ).fetchone()
        return rows.loads(tuple[Artifact, ...], row[0]) if row else ()

    @reads
    def attempts_between(
        self, tx: sqlite3.Connection, start: datetime, end: datetime
    ) -> Sequence[Attempt]:
        found = tx.execute(
            f"select {rows.ATTEMPT_COLUMNS} from attempts "
            "where coalesce(ended_at, '9999') > ? and leased_at < ? "
            "order by leased_at, job_id, number",
            (rows.text(start), rows.text(end)),
        )
        return tuple(rows.attempt(row) for row in found)


def _job(tx: sqlite3.Connection, job_id: str) -> Job:
    job = rows.job_get(tx, job_id)
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def _check_queue(tx: sqlite3.Connection, name: str) -> None:
    if tx.execute("select 1 from queues where name = ?", (name,)).fetchone() is None:
        raise NotFound(f"there is no queue {name}")


def _machine_state(tx: sqlite3.Connection, machine_id: str) -> MachineState:
    row = tx.execute("select state from machines where id = ?", (machine_id,)).fetchone()
    if row is None:
        raise NotFound(f"there is no machine {machine_id}")
    return MachineState(row[0])


def _open_queues(tx: sqlite3.Connection, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        row = tx.execute("select paused from queues where name = ?", (name,)).fetchone()
        if row is not None and not row[0]:
            yield name


def _next_fitting(tx: sqlite3.Connection, queue: str, free: Capacity, now: datetime) -> Job | None:
    bounds = (
        *(free.gpus, free.share_ppm, free.cpus, free.memory_mib, free.disk_gib, free.gpu_name),
        free.gpu_memory_gib * 10,
        free.market is not Market.SPOT,
        rows.text(now),
    )
    row = tx.execute(CLAIM_NEXT, (queue, *bounds)).fetchone()
    return None if row is None else rows.job(row)


def _end(tx: sqlite3.Connection, job: Job, ended: Job, ending: Ending, now: datetime) -> Job:
    """Write the end of an attempt, unless it is a repeat."""
    if ended is job:
        return job
    rows.job_update(tx, job, ended)
    tx.execute(
        "update attempts set ended_at = ?, outcome = ?, exit_code = ?, reason = ?, artifacts = ? "
        "where job_id = ? and number = ?",
        (
            *(rows.text(now), ending.outcome, ending.exit_code),
            None if ending.reason is None else rows.dumps(ending.reason),
            *(rows.dumps(ending.artifacts), job.id, job.attempt),
        ),
    )
    tx.execute(
        "update machines set idle_since = ? where id = ? "
        f"and not exists (select 1 from jobs where machine_id = ? and {rows.HELD})",
        (rows.text(now), job.machine_id, job.machine_id),
    )
    return ended


def _ready_page(
    tx: sqlite3.Connection, queue: str, scope: tuple[str, ...], cursor: str, limit: int
) -> Page[Job]:
    """Claim order: priority, position, id."""
    where = ""
    bound: tuple[rows.Value, ...] = ()
    if cursor:
        priority, position, job_id = cursors.read(scope, cursor, (0, 0.0, ""))
        where = "and priority <= ? and (priority < ? or position > ? or (position = ? and id > ?))"
        bound = (priority, priority, position, position, job_id)
    found = tx.execute(
        f"select {rows.JOB_COLUMNS} from jobs where state = 'queued' and queue = ? {where} "
        "order by priority desc, position, id limit ?",
        (queue, *bound, limit + 1),
    )
    jobs = [rows.job(row) for row in found]
    return cursors.page(scope, jobs, limit, lambda job: (job.priority, job.position, job.id))


def _newest_page(
    tx: sqlite3.Connection,
    queue: str,
    states: frozenset[JobState],
    machine_id: str,
    scope: tuple[str, ...],
    cursor: str,
    limit: int,
) -> Page[Job]:
    where: list[str] = []
    bound: list[rows.Value] = []
    if queue:
        where.append("queue = ?")
        bound.append(queue)
    if machine_id:
        where.append("machine_id = ? and machine_id <> ''")
        bound.append(machine_id)
    if states:
        where.append("state in (select value from json_each(?))")
        bound.append(json.dumps(sorted(states)))
    if cursor:
        where.append("(submitted_at, id) < (?, ?)")
        bound.extend(cursors.read(scope, cursor, ("", "")))
    found = tx.execute(
        f"select {rows.JOB_COLUMNS} from jobs {'where' if where else ''} {' and '.join(where)} "
        "order by submitted_at desc, id desc limit ?",
        (*bound, limit + 1),
    )
    jobs = [rows.job(row) for row in found]
    return cursors.page(scope, jobs, limit, lambda job: (rows.text(job.submitted_at), job.id))
