"""Machine records in SQLite. Beats and idle times have columns of their own: `transitions.merged`
says why they are not part of what a controller writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from control_plane.core.model import Machine
from control_plane.errors import NotFound
from control_plane.ports import Fence
from control_plane.stores import transitions
from control_plane.stores.sqlite import rows
from control_plane.stores.sqlite.control import check_fence
from control_plane.stores.sqlite.database import Table, reads, writes

_COLUMNS = "data, last_beat_at, idle_since"
_OPEN = "state not in ('terminated', 'launch_failed')"


class Machines(Table):
    """`ports.MachineStore`."""

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
        merged = transitions.merged(_find(tx, machine.id), machine, expected_version)
        tx.execute(
            "insert or replace into machines values (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                merged.id,
                merged.autoscaler,
                merged.state.value,
                merged.version,
                rows.text(merged.planned_at),
                rows.text_or_none(merged.last_beat_at),
                rows.text_or_none(merged.idle_since),
                rows.dumps(merged),
            ),
        )
        return merged

    @reads
    def machine_get(self, tx: sqlite3.Connection, machine_id: str) -> Machine:
        return _get(tx, machine_id)

    @reads
    def machine_list(
        self,
        tx: sqlite3.Connection,
        *,
        autoscaler: str = "",
        open_only: bool = True,
        limit: int = 10_000,
    ) -> Sequence[Machine]:
        found = tx.execute(
            f"select {_COLUMNS} from machines "
            f"where (? = '' or autoscaler = ?) {f'and {_OPEN}' if open_only else ''} "
            "order by planned_at, id limit ?",
            (autoscaler, autoscaler, limit),
        )
        return tuple(_machine(row) for row in found)

    @writes
    def machine_beat(self, tx: sqlite3.Connection, machine_id: str, *, now: datetime) -> Machine:
        tx.execute(
            "update machines set last_beat_at = max(coalesce(last_beat_at, ''), ?) where id = ?",
            (rows.text(now), machine_id),
        )
        return _get(tx, machine_id)


def _find(tx: sqlite3.Connection, machine_id: str) -> Machine | None:
    row = tx.execute(f"select {_COLUMNS} from machines where id = ?", (machine_id,)).fetchone()
    return None if row is None else _machine(row)


def _get(tx: sqlite3.Connection, machine_id: str) -> Machine:
    machine = _find(tx, machine_id)
    if machine is None:
        raise NotFound(f"there is no machine {machine_id}")
    return machine


def _machine(row: tuple[str, str | None, str | None]) -> Machine:
    data, last_beat_at, idle_since = row
    return replace(
        rows.loads(Machine, data),
        last_beat_at=rows.moment(last_beat_at),
        idle_since=rows.moment(idle_since),
    )
