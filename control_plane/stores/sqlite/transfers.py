"""Moving everything to another store and back, and forgetting, in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import ceil
from typing import Any

from control_plane.core.access import ApiToken, Federation
from control_plane.core.alerts import Delivery
from control_plane.core.hooks import Hook
from control_plane.core.model import (
    Artifact,
    Attempt,
    Cooldown,
    Event,
    Job,
    Machine,
    PriceInterval,
    QueueRecord,
)
from control_plane.core.policy import AutoscalerRecord
from control_plane.ports import Fence, HeldFence, Page, PlanRecord, Row, TransferKind
from control_plane.stores import cursors, transfer
from control_plane.stores.sqlite import (
    access,
    attempts,
    autoscalers,
    control,
    deliveries,
    ledger,
    machines,
    queues,
    records,
    rows,
)
from control_plane.stores.sqlite.database import Table, reads, writes
from control_plane.stores.transfer import AttemptRow, JobRow

EVENTS_AT_ONCE = 10_000
"""Events that one call looks at, from the oldest on."""

ENDED_BEFORE = """
    select id from jobs indexed by jobs_ended where finished_at is not null and finished_at < ?
    order by finished_at, id limit ?"""
FORGET = "delete from jobs where id = ? and finished_at is not null and finished_at < ?"
FORGET_ARTIFACTS = "update attempts set artifacts = '[]' where job_id = ? and artifacts <> '[]'"
OLD_EVENTS = f"""
    delete from events where seq in (
        select seq from (select seq, at from events order by seq limit {EVENTS_AT_ONCE})
        where at < ?)"""


class Transfers(Table):
    """`ports.TransferStore`."""

    @reads
    def transfer_read(
        self, tx: sqlite3.Connection, kind: TransferKind, *, cursor: str = "", limit: int = 500
    ) -> Page[Row]:
        of_kind, scope = _KINDS[kind], ("transfer", kind)
        behind = cursors.read(scope, cursor, of_kind.first) if cursor else of_kind.first
        width = len(behind)
        found = tx.execute(of_kind.query, (*behind, limit + 1)).fetchall()
        page = cursors.page(scope, found, limit, lambda row: row[:width])
        items = tuple(transfer.row(of_kind.record(row[width:])) for row in page.items)
        return Page(items=items, cursor=page.cursor)

    @writes
    def transfer_write(
        self, tx: sqlite3.Connection, kind: TransferKind, rows: Sequence[Row]
    ) -> None:
        for record in [transfer.record(kind, row, transfer.SHAPES[kind]) for row in rows]:
            _KINDS[kind].put(tx, record)

    @reads
    def history_old(
        self, tx: sqlite3.Connection, *, before: datetime, limit: int = 1000
    ) -> Sequence[str]:
        found = tx.execute(ENDED_BEFORE, (rows.text(before), limit))
        return tuple(job_id for (job_id,) in found)

    @writes
    def history_prune(
        self, tx: sqlite3.Connection, job_ids: Sequence[str], *, before: datetime
    ) -> None:
        for job_id in job_ids:
            if tx.execute(FORGET, (job_id, rows.text(before))).rowcount:
                tx.execute(FORGET_ARTIFACTS, (job_id,))
        tx.execute("delete from plans where at < ?", (rows.text(before),))
        tx.execute(OLD_EVENTS, (rows.text(before),))
        tx.execute("delete from deliveries where created_at < ?", (rows.text(before),))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """How the records of one kind are read and written."""

    first: tuple[Any, ...]
    """A key before all others."""
    query: str
    """Records behind a key: their keys and columns."""
    record: Callable[[tuple[Any, ...]], object]
    """The record of those columns."""
    put: Callable[[sqlite3.Connection, Any], None]
    """Writes one over what is there."""


def _of_data(kind: type[object]) -> Callable[[tuple[Any, ...]], object]:
    return lambda columns: rows.loads(kind, columns[0])


def _lease(columns: tuple[Any, ...]) -> HeldFence:
    name, owner, generation, expires_at = columns
    return HeldFence(
        fence=Fence(name=name, owner=owner, generation=generation),
        until=datetime.fromisoformat(expires_at),
    )


def _machine(columns: tuple[Any, ...]) -> Machine:
    data, last_beat_at, idle_since = columns
    return rows.between_beats(rows.loads(Machine, data), last_beat_at, idle_since)


def _plan(columns: tuple[Any, ...]) -> PlanRecord:
    plan_id, autoscaler, at, plan, snapshot = columns
    return PlanRecord(
        id=plan_id,
        autoscaler=autoscaler,
        at=datetime.fromisoformat(at),
        plan=plan,
        snapshot=snapshot,
    )


def _event(columns: tuple[Any, ...]) -> Event:
    seq, data = columns
    return replace(rows.loads(Event, data), seq=seq)


def _job(columns: tuple[Any, ...]) -> JobRow:
    key, promoted_at, *job = columns
    return JobRow(
        job=rows.job(job), idempotency_key=key or "", promoted_at=rows.moment(promoted_at)
    )


def _put_job(tx: sqlite3.Connection, row: JobRow) -> None:
    job: Job = row.job
    tx.execute("delete from jobs where id = ?", (job.id,))
    tx.execute("delete from dependencies where dependent = ?", (job.id,))
    # A key belongs to the job that came with it last.
    tx.execute(
        "update jobs set idempotency_key = null where idempotency_key = ?", (row.idempotency_key,)
    )
    records.insert(
        tx,
        job,
        idempotency_key=row.idempotency_key,
        promoted_at=rows.text_or_none(row.promoted_at),
    )
    tx.execute(
        "update counters set value = max(value, ?) where name = 'position'", (ceil(job.position),)
    )


def _attempt(columns: tuple[Any, ...]) -> AttemptRow:
    artifacts, *attempt = columns
    return AttemptRow(
        attempt=rows.attempt(attempt), artifacts=rows.loads(tuple[Artifact, ...], artifacts)
    )


def _put_attempt(tx: sqlite3.Connection, row: AttemptRow) -> None:
    attempt: Attempt = row.attempt
    tx.execute(
        "delete from attempts where job_id = ? and number = ?", (attempt.job_id, attempt.number)
    )
    # One that goes on is told by its job.
    if attempt.ended_at is not None:
        marks = ", ".join("?" * len(rows.attempt_values(attempt)))
        tx.execute(
            f"insert into attempts ({rows.ATTEMPT_COLUMNS}, artifacts) values ({marks}, ?)",
            (*rows.attempt_values(attempt), rows.dumps(row.artifacts)),
        )


def _put_version(tx: sqlite3.Connection, record: AutoscalerRecord) -> None:
    known = tx.execute(
        "select 1 from autoscaler_versions where name = ? and data = ?",
        (record.name, rows.dumps(record)),
    ).fetchone()
    # A document that was removed and declared again has the same version twice.
    if known is None:
        autoscalers.put_version(tx, record)


_OF_ACCESS = "select name, data from access where kind = '{}' and name > ? order by name limit ?"
_KINDS: Mapping[TransferKind, _Kind] = {
    TransferKind.AUTOSCALER_VERSION: _Kind(
        first=(0,),
        query="select seq, data from autoscaler_versions where seq > ? order by seq limit ?",
        record=_of_data(AutoscalerRecord),
        put=_put_version,
    ),
    TransferKind.AUTOSCALER: _Kind(
        first=("",),
        query="select name, data from autoscalers where name > ? order by name limit ?",
        record=_of_data(AutoscalerRecord),
        put=autoscalers.put_autoscaler,
    ),
    TransferKind.QUEUE: _Kind(
        first=("",),
        query="select name, data from queues where name > ? order by name limit ?",
        record=_of_data(QueueRecord),
        put=queues.put_queue,
    ),
    TransferKind.LEASE: _Kind(
        first=("",),
        query="select name, name, owner, generation, expires_at from leases "
        "where name > ? order by name limit ?",
        record=_lease,
        put=control.put_lease,
    ),
    TransferKind.COOLDOWN: _Kind(
        first=("",),
        query="select key, data from cooldowns where key > ? order by key limit ?",
        record=_of_data(Cooldown),
        put=control.put_cooldown,
    ),
    TransferKind.MACHINE: _Kind(
        first=("",),
        query=f"select id, data, {machines.BETWEEN_BEATS} "
        "from machines join machine_records using (id) where id > ? order by id limit ?",
        record=_machine,
        put=machines.put_machine,
    ),
    TransferKind.JOB: _Kind(
        first=("",),
        query=f"select id, idempotency_key, promoted_at, {rows.JOB_COLUMNS} from jobs "
        "where id > ? order by id limit ?",
        record=_job,
        put=_put_job,
    ),
    TransferKind.ATTEMPT: _Kind(
        first=("", 0),
        query=f"""select job_id, number, artifacts, {rows.ATTEMPT_COLUMNS} from (
            select artifacts, {rows.ATTEMPT_COLUMNS} from attempts
            union all {attempts.OPEN.replace("select", "select '[]',", 1)})
            where (job_id, number) > (?, ?) order by job_id, number limit ?""",
        record=_attempt,
        put=_put_attempt,
    ),
    TransferKind.PRICE: _Kind(
        first=("", ""),
        query="select machine_id, started_at, data from prices "
        "where (machine_id, started_at) > (?, ?) order by machine_id, started_at limit ?",
        record=_of_data(PriceInterval),
        put=ledger.put_interval,
    ),
    TransferKind.PLAN: _Kind(
        first=("",),
        query="select id, id, autoscaler, at, plan, snapshot from plans "
        "where id > ? order by id limit ?",
        record=_plan,
        put=control.put_plan,
    ),
    TransferKind.EVENT: _Kind(
        first=(0,),
        query="select seq, seq, data from events where seq > ? order by seq limit ?",
        record=_event,
        put=control.put_event,
    ),
    TransferKind.TOKEN: _Kind(
        first=("",),
        query=_OF_ACCESS.format(access.TOKEN),
        record=_of_data(ApiToken),
        put=access.put_token,
    ),
    TransferKind.FEDERATION: _Kind(
        first=("",),
        query=_OF_ACCESS.format(access.FEDERATION),
        record=_of_data(Federation),
        put=access.put_federation,
    ),
    TransferKind.HOOK: _Kind(
        first=("",),
        query=_OF_ACCESS.format(access.HOOK),
        record=_of_data(Hook),
        put=access.put_hook,
    ),
    TransferKind.DELIVERY: _Kind(
        first=("",),
        query="select id, data from deliveries where id > ? order by id limit ?",
        record=_of_data(Delivery),
        put=deliveries.put_delivery,
    ),
}
