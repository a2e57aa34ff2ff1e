"""What a controller wrote of machines, remembered.

A record is long and seldom another one, while each look of the loop asks for those of all machines,
and each request of an agent for its machine's. Each record that is written gets a stamp, a number
by chance: one of the same stamp need not be read again. A version does not tell that, since it
comes again after a write that was undone.
"""

from __future__ import annotations

import sqlite3

from control_plane.core.model import Machine
from control_plane.stores.sqlite import rows

READ = "select data from machine_records where id = ?"

REMEMBERED = 16_384
"""Machines of which the record is kept in memory, at most."""


class MachineRecords:
    """Any number of threads may ask."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, Machine]] = {}

    def machine(
        self,
        tx: sqlite3.Connection,
        machine_id: str,
        stamp: int,
        last_beat_at: str | None,
        idle_since: str | None,
    ) -> Machine:
        """The machine whose row has these columns now."""
        return rows.between_beats(self._record(tx, machine_id, stamp), last_beat_at, idle_since)

    def _record(self, tx: sqlite3.Connection, machine_id: str, stamp: int) -> Machine:
        known = self._known.get(machine_id)
        if known is not None and known[0] == stamp:
            return known[1]
        (data,) = tx.execute(READ, (machine_id,)).fetchone()
        record = rows.loads(Machine, data)
        if len(self._known) >= REMEMBERED:
            self._known = {}
        self._known[machine_id] = (stamp, record)
        return record
