"""Declared documents and their history in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from control_plane.core.policy import AutoscalerRecord
from control_plane.errors import NotFound
from control_plane.stores import transitions
from control_plane.stores.sqlite import rows
from control_plane.stores.sqlite.database import Table, reads, writes


class Autoscalers(Table):
    """`ports.AutoscalerStore`."""

    @writes
    def autoscaler_put(
        self, tx: sqlite3.Connection, record: AutoscalerRecord, *, expected_version: int
    ) -> None:
        row = tx.execute(
            "select version from autoscalers where name = ?", (record.name,)
        ).fetchone()
        stored = row[0] if row else 0
        what = f"autoscaler {record.name}"
        transitions.check_version(what, stored, record.version, expected_version)
        put_autoscaler(tx, record)
        put_version(tx, record)

    @reads
    def autoscaler_get(self, tx: sqlite3.Connection, name: str) -> AutoscalerRecord:
        row = tx.execute("select data from autoscalers where name = ?", (name,)).fetchone()
        if row is None:
            raise NotFound(f"there is no autoscaler {name}")
        return rows.loads_again(AutoscalerRecord, row[0])

    @reads
    def autoscaler_list(self, tx: sqlite3.Connection) -> Sequence[AutoscalerRecord]:
        return all_autoscalers(tx)

    @reads
    def autoscaler_history(
        self, tx: sqlite3.Connection, name: str, *, limit: int = 50
    ) -> Sequence[AutoscalerRecord]:
        found = tx.execute(
            "select data from autoscaler_versions where name = ? order by seq desc limit ?",
            (name, limit),
        )
        return tuple(rows.loads(AutoscalerRecord, row[0]) for row in found)

    @writes
    def autoscaler_remove(self, tx: sqlite3.Connection, name: str) -> None:
        tx.execute("delete from autoscalers where name = ?", (name,))


def put_autoscaler(tx: sqlite3.Connection, record: AutoscalerRecord) -> None:
    """Write the current version over what is there."""
    tx.execute(
        "insert or replace into autoscalers values (?, ?, ?)",
        (record.name, record.version, rows.dumps(record)),
    )


def put_version(tx: sqlite3.Connection, record: AutoscalerRecord) -> None:
    """Add a version to the history."""
    tx.execute(
        "insert into autoscaler_versions values (null, ?, ?)", (record.name, rows.dumps(record))
    )


def all_autoscalers(tx: sqlite3.Connection) -> Sequence[AutoscalerRecord]:
    """Current versions by name."""
    found = tx.execute("select data from autoscalers order by name")
    return tuple(rows.loads_again(AutoscalerRecord, row[0]) for row in found)
