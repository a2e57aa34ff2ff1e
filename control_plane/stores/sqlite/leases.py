"""Claims and what follows them, in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime

from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import Capacity, Job, JobState, Lease, MachineState, Need
from control_plane.errors import NotFound
from control_plane.ports import Ending
from control_plane.stores import transitions
from control_plane.stores.limits import Room
from control_plane.stores.sqlite import dependents, line, records, rows
from control_plane.stores.sqlite.database import Table, reads, writes

LOOK_AT = 10_000
"""Blocked jobs that one look goes through, at most."""
DUE_AT_ONCE = 1000
"""Delayed jobs that one claim lets go, at most: many may come due in one instant, and others wait
for this claim."""

OPEN_QUEUE = f"""
    select machines.state, paused, max_running, max_running_per_owner, exists (
        select 1 from jobs indexed by jobs_delayed
        where {rows.DELAYED} and queue = queues.name and not_before <= ?3)
    from machines left join queues on queues.name = ?2 where machines.id = ?1"""

AS_GIVEN = f"select {rows.STEADY_COLUMNS} from jobs where rowid = ?"
LEASE = """
    update jobs set state = 'leased', lane = null, version = ?, epoch = ?, attempt = ?,
        machine_id = ?, leased_at = ?, reason = null
    where rowid = ?"""
_of_lease = rows.pick("version", "epoch", "attempt", "machine_id", "leased_at")

# So many jobs end that SQL does it, in the sense of `transitions.finished`: a job is read as what
# it becomes, and that is written.
_ENDED = {
    "state": "?3",
    "version": "version + 1",
    "failures": "failures + ?4",
    "machine_losses": "machine_losses + ?5",
    "finished_at": "max(?6, leased_at)",
    "exit_code": "?7",
    "reason": "coalesce(?8, iif(?3 = 'cancelled', reason, null))",
}
AS_ENDED = f"""
    select {rows.job_columns(_ENDED)}, rowid,
        exists (select 1 from dependencies where dependency = id)
    from jobs where id = ?1 and epoch = ?2 and {rows.HELD}"""
END = f"update jobs set {rows.assignments(_ENDED)} where rowid = ?"
_of_end = rows.pick(*_ENDED)
_of_attempt = rows.pick(
    *("id", "attempt", "epoch", "queue", "owner", "machine_id", "need", "leased_at", "started_at")
)
_of_wait = rows.pick("queued_at", "not_before")
ADD_ATTEMPT = """
    insert into attempts (
        job_id, number, epoch, queue, owner, machine_id, need, leased_at, started_at, queued_at,
        ended_at, outcome, exit_code, reason, artifacts)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
IDLE = f"""
    update machines set idle_since = ? where id = ? and not exists (
        select 1 from jobs indexed by jobs_held where machine_id = ? and {rows.HELD})"""
LEASES = f"""
    select id, epoch, machine_id, queue, need, leased_at from jobs indexed by jobs_held
    where {rows.HELD}"""
RUNNING = f"""
    select owner, count(*) from jobs indexed by jobs_held where {rows.HELD} and queue = ?
    group by owner"""
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
        claim = _Claim(tx, machine_id, free, limit, rows.text(now))
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
    def job_start(self, tx: sqlite3.Connection, job_id: str, epoch: int, *, now: datetime) -> Job:
        job = records.get(tx, job_id)
        started = transitions.started(job, epoch, now)
        records.save(tx, job, started)
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
        failed, lost = ending.outcome == "failed", ending.outcome in ("interrupted", "lost")
        how = (failed, lost, rows.text(now), ending.exit_code, rows.column(ending.reason))
        found = None
        if state in JOB_ENDED:
            found = tx.execute(AS_ENDED, (job_id, epoch, state.value, *how)).fetchone()
        if found is None:
            # A repeat, or a refusal.
            return transitions.finished(records.get(tx, job_id), epoch, ending, state, now)
        *row, row_id, is_waited_for = found
        job = rows.job(row)
        tx.execute(END, (*_of_end(row), row_id))
        _add_attempt(tx, row, ending, how[2])
        _rest(tx, job.machine_id, how[2])
        if is_waited_for:
            dependents.let_go(tx, (job_id,), now)
        return job

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
        row = records.row(tx, job_id)
        job = rows.job(row)
        back = transitions.given_back(job, epoch, ending, need)
        if back is not job:
            _add_attempt(tx, row, ending, rows.text(now))
            records.save(tx, job, back)
            _rest(tx, job.machine_id, rows.text(now))
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


class _Claim:
    """One claim on its way through the queues."""

    def __init__(
        self,
        tx: sqlite3.Connection,
        machine_id: str,
        free: Capacity,
        limit: int,
        now: str,
    ) -> None:
        self.jobs: list[Job] = []
        self._tx = tx
        self._machine_id = machine_id
        self._free = free
        self._limit = limit
        self._at = now

    def take_from(self, queue: str) -> None:
        """Lease what one queue has for this machine."""
        row = self._tx.execute(OPEN_QUEUE, (self._machine_id, queue, self._at)).fetchone()
        if row is None:
            raise NotFound(f"there is no machine {self._machine_id}")
        state, paused, max_running, max_running_per_owner, due = row
        if state != MachineState.READY or paused is None:
            return
        if due:
            line.let_due_go(self._tx, queue, self._at, limit=DUE_AT_ONCE)
        if not paused and len(self.jobs) < self._limit:
            self._take(queue, room(self._tx, queue, max_running, max_running_per_owner))

    def _take(self, queue: str, room: Room | None) -> None:
        heads = line.heads(self._tx, queue, self._at)
        while head := self._first(heads, room):
            job = self._lease(head)
            if len(self.jobs) == self._limit:
                return
            if room is not None:
                room.take(job.owner)
            self._free = self._free.less(job.spec.need)
            lane = head[4]
            follower = line.next_head(self._tx, queue, lane, self._at)
            heads.pop(lane)
            if follower is not None:
                heads[lane] = follower

    def _first(self, heads: Mapping[str, line.Head], room: Room | None) -> line.Head | None:
        """The first of these in the order of claims that fits and may run."""
        fitting = [head for lane, head in heads.items() if self._takes(lane, room)]
        return min(fitting, default=None)

    def _takes(self, lane: str, room: Room | None) -> bool:
        need, owner = line.lane_parts(lane)
        return self._free.fits(need) and (room is None or room.admits(owner))

    def _lease(self, head: line.Head) -> Job:
        row_id = head[3]
        given = self._tx.execute(AS_GIVEN, (row_id,)).fetchone()
        row = rows.leased(given, self._machine_id, self._at)
        self._tx.execute(LEASE, (*_of_lease(row), row_id))
        job = rows.job(row)
        self.jobs.append(job)
        return job


def leases(tx: sqlite3.Connection, machine_id: str = "") -> Sequence[Lease]:
    """Open leases, of one machine or of all, oldest first: told by an index alone."""
    query, bound = (f"{LEASES} and machine_id = ?", (machine_id,)) if machine_id else (LEASES, ())
    found = sorted(tx.execute(query, bound), key=lambda row: (row[5], row[0]))
    return tuple(
        Lease(
            job_id=job_id,
            epoch=epoch,
            machine_id=holder,
            queue=queue,
            need=rows.need_of(need),
            leased_at=datetime.fromisoformat(leased_at),
        )
        for job_id, epoch, holder, queue, need, leased_at in found
    )


def room(
    tx: sqlite3.Connection, queue: str, max_running: int | None, max_running_per_owner: int | None
) -> Room | None:
    """What the limits of a queue leave; None when it has none: then nothing is counted."""
    if max_running is None and max_running_per_owner is None:
        return None
    found = Room(max_running=max_running, max_running_per_owner=max_running_per_owner)
    for owner, count in tx.execute(RUNNING, (queue,)):
        found.take(owner, count)
    return found


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


def _add_attempt(
    tx: sqlite3.Connection, row: Sequence[rows.Value], ending: Ending, ended_at: str
) -> None:
    """Write the attempt that ends, by the row of its job."""
    *attempt, leased_at, started_at = _of_attempt(row)
    queued_at, not_before = _of_wait(row)
    times = (leased_at, started_at, max(queued_at, not_before or ""), max(ended_at, leased_at))
    artifacts = rows.dumps(ending.artifacts) if ending.artifacts else "[]"
    how = (ending.outcome, ending.exit_code, rows.column(ending.reason), artifacts)
    tx.execute(ADD_ATTEMPT, (*attempt, *times, *how))


def _rest(tx: sqlite3.Connection, machine_id: str, now: str) -> None:
    """The machine is idle from now on, unless it has another job."""
    tx.execute(IDLE, (now, machine_id, machine_id))


_START = ("", "")
