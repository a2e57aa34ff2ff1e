"""Queues in SQLite: their records, their depth, and what is done to a whole queue."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime

from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import QueueRecord, QueueStats, Reason, WaitingGroup
from control_plane.errors import NotFound, Refused
from control_plane.stores import transitions
from control_plane.stores.sqlite import rows
from control_plane.stores.sqlite.database import Table, reads, writes

_ENDED = ", ".join(f"'{state}'" for state in sorted(JOB_ENDED))

_GROUPS = f"""
    select priority, count(*), sum(queued_at <= ?), min(queued_at), {rows.NEED_COLUMNS}
    from jobs indexed by jobs_ready
    where state = 'queued' and queue = ? and (not_before is null or not_before <= ?)
    group by priority, {rows.NEED_COLUMNS}
    order by priority desc, min(position), min(id)"""


class Queues(Table):
    """`ports.QueueStore`."""

    @writes
    def queue_put(
        self, tx: sqlite3.Connection, record: QueueRecord, *, expected_version: int
    ) -> None:
        row = tx.execute("select version from queues where name = ?", (record.name,)).fetchone()
        stored = row[0] if row else 0
        what = f"queue {record.name}"
        transitions.check_version(what, stored, record.version, expected_version)
        tx.execute(
            "insert or replace into queues values (?, ?, ?, ?)",
            (record.name, record.paused, record.version, rows.dumps(record)),
        )

    @reads
    def queue_get(self, tx: sqlite3.Connection, name: str) -> QueueRecord:
        return _record(tx, name)

    @reads
    def queue_list(self, tx: sqlite3.Connection) -> Sequence[QueueRecord]:
        found = tx.execute("select data from queues order by name")
        return tuple(rows.loads(QueueRecord, row[0]) for row in found)

    @writes
    def queue_remove(self, tx: sqlite3.Connection, name: str) -> None:
        row = tx.execute(
            f"select id from jobs where queue = ? and state not in ({_ENDED}) limit 1", (name,)
        ).fetchone()
        if row is not None:
            raise Refused(
                f"queue {name} is not empty: job {row[0]} has not ended",
                fix="Move or cancel its jobs first.",
            )
        tx.execute("delete from queues where name = ?", (name,))

    @reads
    def queue_stats(self, tx: sqlite3.Connection) -> Mapping[str, QueueStats]:
        waiting = {
            name: (count, oldest)
            for name, count, oldest in tx.execute(
                "select queue, count(*), min(queued_at) from jobs indexed by jobs_waiting "
                "where state = 'queued' group by queue"
            )
        }
        running = dict(
            tx.execute(f"select queue, count(*) from jobs where {rows.HELD} group by queue")
        )
        return {
            name: QueueStats(
                name=name,
                waiting=waiting.get(name, (0, None))[0],
                running=running.get(name, 0),
                oldest_at=rows.moment(waiting.get(name, (0, None))[1]),
            )
            for (name,) in tx.execute("select name from queues order by name")
        }

    @writes
    def queue_clear(
        self, tx: sqlite3.Connection, name: str, *, now: datetime, reason: Reason
    ) -> Sequence[str]:
        _record(tx, name)
        waiting = tx.execute(
            "select id from jobs where state = 'queued' and queue = ? "
            "order by priority desc, position, id",
            (name,),
        ).fetchall()
        tx.execute(
            "update jobs set state = 'cancelled', version = version + 1, finished_at = ?, "
            "reason = ? where state = 'queued' and queue = ?",
            (rows.text(now), rows.dumps(reason), name),
        )
        return tuple(job_id for (job_id,) in waiting)

    @writes
    def queue_promote(
        self, tx: sqlite3.Connection, name: str, *, waiting_since: datetime, now: datetime
    ) -> int:
        since = rows.text(waiting_since)
        return tx.execute(
            "update jobs set priority = priority + 1, version = version + 1, promoted_at = ? "
            "where state = 'queued' and queue = ? and queued_at < ? "
            "and coalesce(promoted_at, '') < ?",
            (rows.text(now), name, since, since),
        ).rowcount

    @reads
    def waiting_groups(
        self,
        tx: sqlite3.Connection,
        queues: Sequence[str],
        *,
        ripe_before: Mapping[str, datetime],
        now: datetime,
    ) -> Sequence[WaitingGroup]:
        return tuple(
            WaitingGroup(
                queue=queue,
                priority=priority,
                need=rows.need_of(need),
                count=count,
                ripe=ripe,
                oldest_at=datetime.fromisoformat(oldest),
            )
            for queue in queues
            for priority, count, ripe, oldest, *need in tx.execute(
                _GROUPS, (rows.text(ripe_before.get(queue, now)), queue, rows.text(now))
            )
        )


def _record(tx: sqlite3.Connection, name: str) -> QueueRecord:
    row = tx.execute("select data from queues where name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f"there is no queue {name}")
    return rows.loads(QueueRecord, row[0])
