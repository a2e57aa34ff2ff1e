"""The open machines and their leases, for a look of the loop.

There are many looks, and from one to the next little changes. A machine's record is another one
when its stamp is, and a lease never changes but by a wish to cancel: so of what an earlier look
has read, only that much is read again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from control_plane.core.model import Lease, Machine
from control_plane.stores.sqlite import rows
from control_plane.stores.sqlite.machine_records import MachineRecords

MACHINES = """select id, stamp, last_beat_at, idle_since from machines indexed by machines_open
    where state not in ('terminated', 'launch_failed') order by planned_at, id"""
LEASES = f"""select id, epoch, cancel_requested from jobs indexed by jobs_held
    where {rows.HELD} order by leased_at, id"""
LEASE = "select machine_id, queue, need, leased_at from jobs where id = ?"

_Row = tuple[str, int, str | None, str | None]
"""A machine's id, its record's stamp, last beat, and since when it has run nothing."""
_Held = tuple[str, int, int]
"""A job's id, its epoch, and whether it is to be cancelled."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look has read."""

    rows: frozenset[_Row] = frozenset()
    machines: Mapping[str, Machine] = field(default_factory=dict)
    leases: Mapping[_Held, Lease] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    """Machines with leases."""


class Fleet:
    """Remembers the last look. Any number of threads may look."""

    def __init__(self, records: MachineRecords) -> None:
        self._records = records
        self._last = _Look()

    def read(self, tx: sqlite3.Connection) -> tuple[Sequence[Machine], Sequence[Lease]]:
        """All as of a transaction in which nothing was written, oldest first."""
        last = self._last
        held: list[_Held] = tx.execute(LEASES).fetchall()
        in_order: list[_Row] = tx.execute(MACHINES).fetchall()
        there = frozenset(in_order)
        leases = _leases(tx, last, held)
        busy = frozenset([lease.machine_id for lease in leases.values()])
        machines = self._machines(tx, last, there, busy)
        self._last = _Look(rows=there, machines=machines, leases=leases, busy=busy)
        oldest_first = [machines[machine_id] for machine_id, _, _, _ in in_order]
        return tuple(oldest_first), tuple([leases[each] for each in held])

    def _machines(
        self, tx: sqlite3.Connection, last: _Look, there: frozenset[_Row], busy: frozenset[str]
    ) -> Mapping[str, Machine]:
        turned = busy ^ last.busy
        changed = there - last.rows
        if turned:
            changed |= {row for row in there if row[0] in turned}
        new = {row[0]: self._machine(tx, row, row[0] in busy) for row in changed}
        found = {**last.machines, **new} if new else last.machines
        return found if len(found) == len(there) else {row[0]: found[row[0]] for row in there}

    def _machine(self, tx: sqlite3.Connection, row: _Row, busy: bool) -> Machine:
        machine_id, stamp, last_beat_at, idle_since = row
        # Its leases tell whether it is idle at all, as in `machines`.
        idle_since = None if busy else idle_since
        return self._records.machine(tx, machine_id, stamp, last_beat_at, idle_since)


def _leases(tx: sqlite3.Connection, last: _Look, held: Sequence[_Held]) -> Mapping[_Held, Lease]:
    new = {each: _lease(tx, each) for each in frozenset(held) - last.leases.keys()}
    found = {**last.leases, **new} if new else last.leases
    return found if len(found) == len(held) else {each: found[each] for each in held}


def _lease(tx: sqlite3.Connection, held: _Held) -> Lease:
    job_id, epoch, cancel_requested = held
    machine_id, queue, need, leased_at = tx.execute(LEASE, (job_id,)).fetchone()
    return rows.lease(job_id, epoch, machine_id, queue, need, leased_at, cancel_requested)
