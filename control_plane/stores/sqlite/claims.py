"""One claim on its way through the queues: a look at each lane, not at each job."""

from __future__ import annotations

import sqlite3

from control_plane.core.model import Capacity, Job, MachineState
from control_plane.errors import NotFound
from control_plane.stores.limits import Room
from control_plane.stores.sqlite import line, rows

DUE_AT_ONCE = 1000
"""Delayed jobs that one claim lets go, at most: many may come due in one instant, and others wait
for this claim."""

LEASE = """
    update jobs set state = 'leased', lane = null, version = version + 1, epoch = epoch + 1,
        attempt = attempt + 1, machine_id = ?, leased_at = ?, reason = null
    where rowid = ?"""
LEASED = f"select {rows.JOB_COLUMNS} from jobs where rowid = ?"
RUNNING = f"""
    select owner, count(*) from jobs indexed by jobs_held where {rows.HELD} and queue = ?
    group by owner"""


class Claim:
    """What a machine gets, `jobs`; `free` is what it has left for more."""

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
        self._now = now

    def take_from(self, queue: str) -> None:
        """Lease what one queue has for this machine. Raises `NotFound` for an unknown machine."""
        row = self._look(queue)
        state, paused, max_running, max_running_per_owner, due = row[:5]
        if state != MachineState.READY or paused is None:
            return
        if due:
            line.let_due_go(self._tx, queue, self._now, limit=DUE_AT_ONCE)
            row = self._look(queue)
        first = row[5:]
        if paused or first[0] is None or len(self.jobs) >= self._limit:
            return
        self._take(
            queue,
            line.heads(self._tx, queue, self._now, first),
            room(self._tx, queue, max_running, max_running_per_owner),
        )

    def _look(self, queue: str) -> line.Row:
        row: line.Row | None = self._tx.execute(
            line.LOOK, (self._machine_id, queue, self._now)
        ).fetchone()
        if row is None:
            raise NotFound(f"there is no machine {self._machine_id}")
        return row

    def _take(self, queue: str, heads: line.Heads, room: Room | None) -> None:
        while head := self._first(heads, room):
            job = self._lease(head[3])
            self.jobs.append(job)
            if len(self.jobs) == self._limit:
                return
            if room is not None:
                room.take(job.owner)
            self._free = self._free.less(job.spec.need)
            lane = head[4]
            del heads[lane]
            if follower := line.next_head(self._tx, queue, lane, self._now):
                heads[lane] = follower

    def _first(self, heads: line.Heads, room: Room | None) -> line.Head | None:
        """The first of these in the order of claims that fits and may run."""
        fitting = [head for lane, head in heads.items() if self._takes(lane, room)]
        return min(fitting, default=None)

    def _takes(self, lane: str, room: Room | None) -> bool:
        need, owner = line.lane_parts(lane)
        return self._free.fits(need) and (room is None or room.admits(owner))

    def _lease(self, row: int) -> Job:
        self._tx.execute(LEASE, (self._machine_id, self._now, row))
        return rows.job(self._tx.execute(LEASED, (row,)).fetchone())


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
