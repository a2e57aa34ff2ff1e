"""Machine records in SQLite.

Beats and idle times have columns of their own: `transitions.merged` says why they are not part of
what a controller writes. Whether a machine is idle at all is told by its leases, so that a claim
need not write its row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from secrets import randbits

from control_plane.core.model import Lease, Machine
from control_plane.errors import NotFound
from control_plane.ports import Fence
from control_plane.stores import transitions
from control_plane.stores.sqlite import rows
from control_plane.stores.sqlite.control import check_fence
from control_plane.stores.sqlite.database import Database, Table, marks, reads, writes
from control_plane.stores.sqlite.fleet import Fleet
from control_plane.stores.sqlite.machine_records import MachineRecords

BETWEEN_BEATS = f"""last_beat_at, case when exists (
    select 1 from jobs indexed by jobs_held where {rows.HELD} and machine_id = machines.id
    ) then null else idle_since end"""
COLUMNS = f"id, stamp, {BETWEEN_BEATS}"
GET = f"select {COLUMNS} from machines where id = ?"
LIST = f"""select {COLUMNS} from machines indexed by machines_by_time
    where ? = '' or autoscaler = ? order by planned_at, id limit ?"""
LIST_OPEN = f"""select {COLUMNS} from machines indexed by machines_open
    where state not in ('terminated', 'launch_failed') and (? = '' or autoscaler = ?)
    order by planned_at, id limit ?"""
BEAT = "update machines set last_beat_at = max(coalesce(last_beat_at, ''), ?) where id = ?"


class Machines(Table):
    """`ports.MachineStore`."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._records = MachineRecords()
        self._fleet = Fleet(self._records)

    @writes
    def machine_put(
        self,
        tx: sqlite3.Connection,
        machine: Machine,
        *,
        expected_version: int,
        fence: Fence | None,
    ) -> Machine:
        if fence is not None:
            check_fence(tx, fence)
        merged = transitions.merged(self._find(tx, machine.id), machine, expected_version)
        put_machine(tx, merged)
        return merged

    @reads
    def machine_get(self, tx: sqlite3.Connection, machine_id: str) -> Machine:
        found = self._find(tx, machine_id)
        if found is None:
            raise NotFound(f"there is no machine {machine_id}")
        return found

    @reads
    def machine_list(
        self,
        tx: sqlite3.Connection,
        *,
        autoscaler: str = "",
        open_only: bool = True,
        limit: int = 10_000,
    ) -> Sequence[Machine]:
        """Oldest first."""
        query = LIST_OPEN if open_only else LIST
        found = tx.execute(query, (autoscaler, autoscaler, limit)).fetchall()
        return tuple([self._records.machine(tx, *row) for row in found])

    def fleet_read(
        self,
        *,
        sure: bool = True,  # noqa: ARG002 - part of the port: here every read is
    ) -> tuple[Sequence[Machine], Sequence[Lease]]:
        return self._database.look(self._fleet.read)

    # A beat that a power cut takes is followed by another one.
    @marks
    def machine_beat(self, tx: sqlite3.Connection, machine_id: str, *, now: datetime) -> None:
        if not tx.execute(BEAT, (rows.text(now), machine_id)).rowcount:
            raise NotFound(f"there is no machine {machine_id}")

    def _find(self, tx: sqlite3.Connection, machine_id: str) -> Machine | None:
        row = tx.execute(GET, (machine_id,)).fetchone()
        return None if row is None else self._records.machine(tx, *row)


def put_machine(tx: sqlite3.Connection, machine: Machine) -> None:
    """Write a record over what is there."""
    record = (machine.id, rows.dumps(machine))
    tx.execute("insert or replace into machine_records values (?, ?)", record)
    tx.execute(
        "insert or replace into machines values (?, ?, ?, ?, ?, ?, ?)",
        (
            machine.id,
            machine.autoscaler,
            machine.state.value,
            randbits(63),
            rows.text(machine.planned_at),
            rows.text_or_none(machine.last_beat_at),
            rows.text_or_none(machine.idle_since),
        ),
    )
