"""Claims and what follows them, in SQLite."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence
from datetime import datetime

from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import Capacity, Job, JobState, Lease, Need
from control_plane.ports import Ending
from control_plane.stores import transitions
from control_plane.stores.sqlite import dependents, line, records, rows
from control_plane.stores.sqlite.claims import Claim
from control_plane.stores.sqlite.database import Table, reads, writes

LOOK_AT = 10_000
"""Blocked jobs that one look goes through, at most."""

START = """
    update jobs set state = 'running', version = version + 1, started_at = max(?4, leased_at)
    where id = ?1 and epoch = ?2 and state = 'leased' and ?3 in ('', machine_id)"""
"""`transitions.started`, in SQL because so many jobs start."""
END = f"""
    update jobs set state = ?3, version = version + 1, failures = failures + ?4,
        machine_losses = machine_losses + ?5, finished_at = max(?6, leased_at), exit_code = ?7,
        reason = coalesce(?8, iif(?3 = 'cancelled', reason, null))
    where id = ?1 and epoch = ?2 and {rows.HELD} and ?9 in ('', machine_id)"""
"""`transitions.finished`, in SQL because so many jobs end."""
ADD_ATTEMPT = """
    insert into attempts (
        machine_id, job_id, number, epoch, queue, owner, need, leased_at, started_at, queued_at,
        ended_at, outcome, exit_code, reason, artifacts)
    select machine_id, id, attempt, epoch, queue, owner, need, leased_at, started_at,
        max(queued_at, coalesce(not_before, '')), max(?2, leased_at), ?3, ?4, ?5, ?6
    from jobs where id = ?1"""
IDLE = f"""
    update machines set idle_since = ? where id = ? and not exists (
        select 1 from jobs indexed by jobs_held where machine_id = ? and {rows.HELD})"""
WHOSE = """
    select machine_id, exists (select 1 from dependencies where dependency = jobs.id)
    from jobs where id = ?"""
"""The machine of a job, and whether other jobs wait for it. Asked apart from what writes: for a
`returning` SQLite makes a table each time, which takes several times as long."""
LEASES = f"""
    select id, epoch, machine_id, queue, need, leased_at, cancel_requested
    from jobs indexed by jobs_held
    where {rows.HELD}"""
DUE_QUEUES = f"""
    select name from queues where exists (
        select 1 from jobs indexed by jobs_delayed
        where {rows.DELAYED} and queue = queues.name and not_before <= ?)
    order by name"""
_DEPENDENCY = (
    "select 1 from json_each(jobs.depends_on) cross join jobs as other on other.id = value"
)
BLOCKED = f"""
    select queue, id,
        exists ({_DEPENDENCY} where other.state in ('failed', 'cancelled', 'exhausted'))
        or not exists ({_DEPENDENCY} where other.state <> 'succeeded')
    from jobs indexed by jobs_blocked
    where state = 'blocked' and (queue, id) > (?, ?) order by queue, id limit ?"""


class Leases(Table):
    """The part of `ports.JobStore` that is about leases."""

    _blocked_behind = ("", "")
    """Queue and id of the blocked job that `job_release` looked at last."""

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
        claim = Claim(tx, machine_id, free, limit, rows.text(now))
        # Without a queue the machine is looked at all the same.
        for queue in queues or ("",):
            claim.take_from(queue)
        return tuple(claim.jobs)

    def job_release(self, *, now: datetime, limit: int = 1000) -> int:
        # Mostly there is nothing to do, and looking holds up no writer.
        queues, blocked = self._database.read(lambda tx: self._held_back(tx, now))
        if not queues and not blocked:
            return 0
        return self._database.write(lambda tx: _release(tx, queues, blocked, now, limit))

    @writes
    def job_start(
        self,
        tx: sqlite3.Connection,
        job_id: str,
        epoch: int,
        *,
        now: datetime,
        machine_id: str = "",
    ) -> None:
        if not tx.execute(START, (job_id, epoch, machine_id, rows.text(now))).rowcount:
            # A repeat, or a refusal.
            transitions.started(records.get(tx, job_id), epoch, now, machine_id)

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
        machine_id: str = "",
    ) -> None:
        at, reason = rows.text(now), rows.column(ending.reason)
        if not _end(tx, job_id, epoch, ending, reason, state, at, machine_id):
            # A repeat, or a refusal.
            job = records.get(tx, job_id)
            transitions.finished(job, epoch, ending, state, now, machine_id)
            return
        _add_attempt(tx, job_id, ending, reason, at)
        held_by, is_waited_for = tx.execute(WHOSE, (job_id,)).fetchone()
        tx.execute(IDLE, (at, held_by, held_by))
        if is_waited_for:
            dependents.let_go(tx, (job_id,), now)

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
        job, at = records.get(tx, job_id), rows.text(now)
        back = transitions.given_back(job, epoch, ending, need)
        if back is not job:
            _add_attempt(tx, job_id, ending, rows.column(ending.reason), at)
            records.save(tx, job, back)
            tx.execute(IDLE, (at, job.machine_id, job.machine_id))
        return back

    @reads
    def job_leases(self, tx: sqlite3.Connection, *, machine_id: str = "") -> Sequence[Lease]:
        return leases(tx, machine_id)

    def _held_back(
        self, tx: sqlite3.Connection, now: datetime
    ) -> tuple[Sequence[str], Sequence[str]]:
        """Queues with delayed jobs whose time has come, and blocked jobs that nothing blocks. Of
        very many blocked ones each call looks at some."""
        queues = tx.execute(DUE_QUEUES, (rows.text(now),)).fetchall()
        looked_at = tx.execute(BLOCKED, (*self._blocked_behind, LOOK_AT)).fetchall()
        more = len(looked_at) == LOOK_AT
        self._blocked_behind = looked_at[-1][:2] if more else _START
        return [name for (name,) in queues], [job_id for _, job_id, free in looked_at if free]


def leases(tx: sqlite3.Connection, machine_id: str = "") -> Sequence[Lease]:
    """Open leases, of one machine or of all, oldest first: told by an index alone."""
    query, bound = (f"{LEASES} and machine_id = ?", (machine_id,)) if machine_id else (LEASES, ())
    found = sorted(tx.execute(query, bound), key=lambda row: (row[5], row[0]))
    return tuple(itertools.starmap(rows.lease, found))


def _release(
    tx: sqlite3.Connection,
    queues: Sequence[str],
    blocked: Sequence[str],
    now: datetime,
    limit: int,
) -> int:
    moved = 0
    for queue in queues:
        moved += line.let_due_go(tx, queue, rows.text(now), limit=limit - moved)
    return moved + dependents.look_again(tx, blocked, now, limit=limit - moved)


def _end(
    tx: sqlite3.Connection,
    job_id: str,
    epoch: int,
    ending: Ending,
    reason: rows.Value,
    state: JobState,
    at: str,
    machine_id: str,
) -> bool:
    """End a held job, if it can end so."""
    if state not in JOB_ENDED:
        return False
    failed, lost = ending.outcome == "failed", ending.outcome in ("interrupted", "lost")
    how = (state.value, int(failed), int(lost), at, ending.exit_code, reason)
    return tx.execute(END, (job_id, epoch, *how, machine_id)).rowcount == 1


def _add_attempt(
    tx: sqlite3.Connection, job_id: str, ending: Ending, reason: rows.Value, at: str
) -> None:
    """Write the attempt that a job had until now; its row still tells of it."""
    artifacts = rows.dumps(ending.artifacts) if ending.artifacts else "[]"
    how = (ending.outcome, ending.exit_code, reason, artifacts)
    tx.execute(ADD_ATTEMPT, (job_id, at, *how))


_START = ("", "")
