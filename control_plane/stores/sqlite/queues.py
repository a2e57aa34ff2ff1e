"""Queues in SQLite: their records, their depth, and what is done to a whole queue."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import chain, islice, takewhile

from control_plane.core.model import Job, QueueRecord, QueueStats, Reason, WaitingGroup
from control_plane.errors import NotFound, Refused
from control_plane.stores import transitions
from control_plane.stores.sqlite import demand, dependents, line, records, rows
from control_plane.stores.sqlite.database import Table, reads, writes

CLEAR_AT_ONCE = 2000
"""Jobs cancelled in one transaction: a long queue is cleared step by step, so that nobody waits
long for it."""
WAITS_AMONG = 20_000
"""Wait times are looked for among so many attempts that ended last, of all queues together."""

_AGED = "max(queued_at, coalesce(not_before, ''), coalesce(promoted_at, '')) < ?"
_PROMOTE = "update jobs set priority = priority + 1, version = version + 1, promoted_at = ?"
PROMOTE_LINE = f"""{_PROMOTE} where rowid in (
    select rowid from jobs indexed by jobs_ready
    where queue = ? and lane is not null and {_AGED})"""
PROMOTE_DELAYED = f"""{_PROMOTE} where rowid in (
    select rowid from jobs indexed by jobs_delayed
    where queue = ? and {rows.DELAYED} and {_AGED})"""
IN_LINE = """
    select queue, count(*), min(queued_at) from jobs indexed by jobs_ready
    where lane is not null group by queue"""
DELAYED = f"""
    select queue, count(*), min(queued_at) from jobs indexed by jobs_delayed
    where {rows.DELAYED} group by queue"""
BLOCKED = """
    select queue, count(*) from jobs indexed by jobs_blocked where state = 'blocked'
    group by queue"""
RUNNING = f"select queue from jobs indexed by jobs_held where {rows.HELD}"
NOT_EMPTY = f"""
    select id from jobs indexed by jobs_ready where queue = ?1 and lane is not null
    union all select id from jobs indexed by jobs_delayed where queue = ?1 and {rows.DELAYED}
    union all select id from jobs indexed by jobs_blocked where queue = ?1 and state = 'blocked'
    union all select id from jobs indexed by jobs_held where queue = ?1 and {rows.HELD}
    limit 1"""
FIRST_ENDED = f"""
    select leased_at, job_id, queued_at from (
        select leased_at, job_id, queued_at, queue, number
        from attempts indexed by attempts_by_end order by ended_at desc limit {WAITS_AMONG})
    where queue = ?1 and number = 1 and queued_at is not null"""
FIRST_OPEN = f"""
    select leased_at, id, max(queued_at, coalesce(not_before, queued_at))
    from jobs indexed by jobs_held where {rows.HELD} and queue = ?1 and attempt = 1"""
RELANE = """
    update jobs set lane = need || case when ?2 then owner else '' end
    where rowid in (
        select rowid from jobs indexed by jobs_ready where queue = ?1 and lane is not null)"""


DELAYED_IDS = f"""select id from jobs indexed by jobs_delayed
    where {rows.DELAYED} and queue = ? order by not_before, id"""
BLOCKED_IDS = """select id from jobs indexed by jobs_blocked
    where state = 'blocked' and queue = ? order by id"""
CANCEL = """update jobs set state = 'cancelled', lane = null, version = version + 1,
        finished_at = ?, reason = ?
    where id = ? and queue = ? and state in ('queued', 'blocked')"""


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
        put_queue(tx, record)

    @reads
    def queue_get(self, tx: sqlite3.Connection, name: str) -> QueueRecord:
        return _record(tx, name)

    @reads
    def queue_list(self, tx: sqlite3.Connection) -> Sequence[QueueRecord]:
        return all_queues(tx)

    @writes
    def queue_remove(self, tx: sqlite3.Connection, name: str) -> None:
        row = tx.execute(NOT_EMPTY, (name,)).fetchone()
        if row is not None:
            raise Refused(
                f"queue {name} is not empty: job {row[0]} has not ended",
                fix="Move or cancel its jobs first.",
            )
        tx.execute("delete from queues where name = ?", (name,))

    @reads
    def queue_stats(self, tx: sqlite3.Connection) -> Mapping[str, QueueStats]:
        in_line = {name: (count, oldest) for name, count, oldest in tx.execute(IN_LINE)}
        delayed = {name: (count, oldest) for name, count, oldest in tx.execute(DELAYED)}
        blocked = dict(tx.execute(BLOCKED))
        running = Counter(name for (name,) in tx.execute(RUNNING))
        found: dict[str, QueueStats] = {}
        for (name,) in tx.execute("select name from queues order by name"):
            ready, oldest_ready = in_line.get(name, (0, None))
            apart, oldest_apart = delayed.get(name, (0, None))
            oldest = min((at for at in (oldest_ready, oldest_apart) if at), default=None)
            found[name] = QueueStats(
                name=name,
                waiting=ready + apart,
                running=running[name],
                oldest_at=rows.moment(oldest),
                delayed=apart,
                blocked=blocked.get(name, 0),
            )
        return found

    @reads
    def queue_heads(self, tx: sqlite3.Connection, names: Sequence[str]) -> Mapping[str, datetime]:
        heads = {name: _heads(tx, name) for name in names}
        return {
            name: datetime.fromisoformat(min(map(line.waited_since, of_lanes)))
            for name, of_lanes in heads.items()
            if of_lanes
        }

    @reads
    def queue_line(
        self, tx: sqlite3.Connection, name: str, *, before: Job, limit: int = 1000
    ) -> Sequence[str]:
        place = (-before.priority, before.position, before.id)
        ahead = takewhile(lambda spot: spot[:3] < place, line.in_order(tx, name))
        return tuple(job_id for _, _, job_id, *_ in islice(ahead, limit))

    @reads
    def queue_waits(
        self, tx: sqlite3.Connection, name: str, *, limit: int = 1000
    ) -> Sequence[float]:
        claims = [*tx.execute(FIRST_ENDED, (name,)), *tx.execute(FIRST_OPEN, (name,))]
        return tuple(
            _seconds(queued_at, leased_at)
            for leased_at, _, queued_at in sorted(claims, reverse=True)[:limit]
        )

    def queue_clear(self, name: str, *, now: datetime, reason: Reason) -> Sequence[str]:
        found = self._database.read(lambda tx: _to_clear(tx, name))
        cleared: list[str] = []
        for start in range(0, len(found), CLEAR_AT_ONCE):
            some = found[start : start + CLEAR_AT_ONCE]
            cleared += self._database.write(partial(_cancel, name, some, reason, now))
        self._database.write(lambda tx: dependents.let_go_of_many(tx, cleared, now))
        return tuple(cleared)

    @writes
    def queue_promote(
        self, tx: sqlite3.Connection, name: str, *, waiting_since: datetime, now: datetime
    ) -> int:
        bound = (rows.text(now), name, rows.text(waiting_since))
        return sum(tx.execute(each, bound).rowcount for each in (PROMOTE_LINE, PROMOTE_DELAYED))

    @reads
    def waiting_groups(
        self,
        tx: sqlite3.Connection,
        queues: Sequence[str],
        *,
        ripe_before: Mapping[str, datetime],
        now: datetime,
        limit: int = 100_000,
    ) -> Sequence[WaitingGroup]:
        return tuple(
            chain.from_iterable(
                demand.groups(tx, queue, ripe_before.get(queue, now), now, limit)
                for queue in queues
            )
        )


def put_queue(tx: sqlite3.Connection, record: QueueRecord) -> None:
    """Write a record over what is there."""
    by_owner = record.max_running_per_owner is not None
    changed = records.limits_owners(tx, record.name) != by_owner
    tx.execute(
        "insert or replace into queues "
        "(name, paused, max_running, max_running_per_owner, version, data) "
        "values (?, ?, ?, ?, ?, ?)",
        (
            record.name,
            record.paused,
            record.max_running,
            record.max_running_per_owner,
            record.version,
            rows.dumps(record),
        ),
    )
    if changed:
        tx.execute(RELANE, (record.name, by_owner))


def all_queues(tx: sqlite3.Connection) -> Sequence[QueueRecord]:
    """By name."""
    found = tx.execute("select data from queues order by name")
    return tuple(rows.loads_again(QueueRecord, row[0]) for row in found)


def _record(tx: sqlite3.Connection, name: str) -> QueueRecord:
    row = tx.execute("select data from queues where name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f"there is no queue {name}")
    return rows.loads_again(QueueRecord, row[0])


def _heads(tx: sqlite3.Connection, name: str) -> list[line.Spot]:
    """The first job of each lane."""
    return [next(line.in_lane(tx, name, lane)) for lane in line.lanes(tx, name)]


def _to_clear(tx: sqlite3.Connection, name: str) -> list[str]:
    """What waits in a queue: the line in the order of claims, the delayed and the blocked jobs."""
    _record(tx, name)
    apart = [*tx.execute(DELAYED_IDS, (name,)), *tx.execute(BLOCKED_IDS, (name,))]
    return [spot[2] for spot in line.in_order(tx, name)] + [job_id for (job_id,) in apart]


def _cancel(
    queue: str, job_ids: Sequence[str], reason: Reason, now: datetime, tx: sqlite3.Connection
) -> list[str]:
    """Cancel those of these jobs that wait in the queue still; returns which."""
    bound = (rows.text(now), rows.dumps(reason))
    cancelled = [
        job_id for job_id in job_ids if tx.execute(CANCEL, (*bound, job_id, queue)).rowcount
    ]
    tx.executemany("delete from dependencies where dependent = ?", [(each,) for each in cancelled])
    return cancelled


def _seconds(queued_at: str, leased_at: str) -> float:
    """A clock that went back between them makes it 0, not less."""
    waited = datetime.fromisoformat(leased_at) - datetime.fromisoformat(queued_at)
    return max(0.0, waited.total_seconds())
