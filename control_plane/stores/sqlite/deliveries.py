"""What we tell others, in SQLite: the log, and what of it waits to be sent."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from control_plane.core.alerts import Delivery
from control_plane.stores import transitions
from control_plane.stores.sqlite import rows
from control_plane.stores.sqlite.database import Table, reads, writes


class Deliveries(Table):
    """The part of `ports.HookStore` about deliveries."""

    @writes
    def delivery_put(
        self, tx: sqlite3.Connection, record: Delivery, *, expected_version: int
    ) -> None:
        row = tx.execute("select version from deliveries where id = ?", (record.id,)).fetchone()
        stored = row[0] if row else 0
        transitions.check_version(f"delivery {record.id}", stored, record.version, expected_version)
        put_delivery(tx, record)

    @reads
    def delivery_list(self, tx: sqlite3.Connection, *, limit: int = 100) -> Sequence[Delivery]:
        found = tx.execute("select data from deliveries order by id desc limit ?", (limit,))
        return tuple(rows.loads(Delivery, data) for (data,) in found)


def put_delivery(tx: sqlite3.Connection, record: Delivery) -> None:
    """Write a delivery over what is there."""
    tx.execute(
        "insert or replace into deliveries values (?, ?, ?, ?, ?)",
        (
            record.id,
            record.version,
            record.state,
            rows.text(record.created_at),
            rows.dumps(record),
        ),
    )


def waiting_deliveries(tx: sqlite3.Connection) -> Sequence[Delivery]:
    """Those that wait to be sent, by id."""
    found = tx.execute("select data from deliveries where state = 'waiting' order by id")
    return tuple(rows.loads(Delivery, data) for (data,) in found)
