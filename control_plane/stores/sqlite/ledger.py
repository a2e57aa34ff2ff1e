"""What was paid for, and when, in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from control_plane.core.model import PriceInterval
from control_plane.ports import PriceKey
from control_plane.stores import transitions
from control_plane.stores.sqlite import rows
from control_plane.stores.sqlite.database import Table, reads, writes


class Ledger(Table):
    """`ports.LedgerStore`."""

    @writes
    def price_open(self, tx: sqlite3.Connection, interval: PriceInterval) -> None:
        stored = _find(tx, interval.machine_id, interval.started_at)
        if stored is not None and transitions.same_interval(stored, interval):
            return
        _close(tx, interval.machine_id, interval.started_at)
        put_interval(tx, interval)

    @writes
    def price_close(self, tx: sqlite3.Connection, machine_id: str, *, at: datetime) -> None:
        _close(tx, machine_id, at)

    @reads
    def prices_between(
        self, tx: sqlite3.Connection, start: datetime, end: datetime
    ) -> Sequence[PriceInterval]:
        found = tx.execute(
            "select data from prices where coalesce(ended_at, '9999') > ? and started_at < ? "
            "order by started_at, machine_id",
            (rows.text(start), rows.text(end)),
        )
        return tuple(rows.loads(PriceInterval, row[0]) for row in found)

    @reads
    def prices_begun(self, tx: sqlite3.Connection, since: datetime) -> Sequence[PriceInterval]:
        # What began later has ended later.
        found = tx.execute(
            "select data from prices where coalesce(ended_at, '9999') >= ?1 "
            "and (ended_at is null or started_at >= ?1)",
            (rows.text(since),),
        )
        return tuple(rows.loads(PriceInterval, row[0]) for row in found)

    @reads
    def prices_get(
        self, tx: sqlite3.Connection, keys: Sequence[PriceKey]
    ) -> Sequence[PriceInterval]:
        found = (_find(tx, *key) for key in keys)
        return tuple(interval for interval in found if interval is not None)


def _find(tx: sqlite3.Connection, machine_id: str, began: datetime) -> PriceInterval | None:
    row = tx.execute(
        "select data from prices where machine_id = ? and started_at = ?",
        (machine_id, rows.text(began)),
    ).fetchone()
    return None if row is None else rows.loads(PriceInterval, row[0])


def _close(tx: sqlite3.Connection, machine_id: str, at: datetime) -> None:
    for (data,) in tx.execute(
        "select data from prices where machine_id = ? and ended_at is null", (machine_id,)
    ).fetchall():
        interval = rows.loads(PriceInterval, data)
        put_interval(tx, replace(interval, ended_at=max(at, interval.started_at)))


def put_interval(tx: sqlite3.Connection, interval: PriceInterval) -> None:
    """Write an interval over what is there under its start."""
    tx.execute(
        "insert or replace into prices values (?, ?, ?, ?)",
        (
            interval.machine_id,
            rows.text(interval.started_at),
            rows.text_or_none(interval.ended_at),
            rows.dumps(interval),
        ),
    )
