"""What controllers share, in SQLite: the lease, cool-downs, plans, events, answers given."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from control_plane.core.model import Cooldown, Event
from control_plane.core.pacing import Bucket
from control_plane.errors import Conflict, FencedOut
from control_plane.ports import Fence, HeldFence, Page, PlanRecord, Shared, StoredAnswer
from control_plane.stores import cursors, transitions
from control_plane.stores.sqlite import rows
from control_plane.stores.sqlite.autoscalers import all_autoscalers
from control_plane.stores.sqlite.database import Table, reads, writes
from control_plane.stores.sqlite.deliveries import waiting_deliveries
from control_plane.stores.sqlite.queues import all_queues


class Control(Table):
    """`ports.ControlStore`."""

    @reads
    def shared_read(self, tx: sqlite3.Connection) -> Shared:
        return Shared(
            autoscalers=all_autoscalers(tx),
            queues=all_queues(tx),
            leases={held.fence.name: held for held in all_leases(tx)},
            cooldowns=_cooldowns(tx),
            deliveries=waiting_deliveries(tx),
        )

    @writes
    def lease_take(
        self,
        tx: sqlite3.Connection,
        name: str,
        owner: str,
        *,
        ttl_s: float,
        now: datetime,
        expected_generation: int | None = None,
    ) -> Fence | None:
        row = tx.execute(
            "select owner, generation, expires_at from leases where name = ?", (name,)
        ).fetchone()
        holder, generation, expires_at = row or ("", 0, "")
        if holder not in ("", owner) and expires_at > rows.text(now):
            return None
        if expected_generation not in (None, generation):
            return None
        if holder != owner:
            generation += 1
        fence = Fence(name=name, owner=owner, generation=generation)
        put_lease(tx, HeldFence(fence=fence, until=now + timedelta(seconds=ttl_s)))
        return fence

    @writes
    def lease_release(self, tx: sqlite3.Connection, fence: Fence) -> None:
        # The generation stays: whoever comes next counts on from it.
        tx.execute(
            "update leases set owner = '' where name = ? and owner = ? and generation = ?",
            (fence.name, fence.owner, fence.generation),
        )

    @writes
    def cooldown_put(self, tx: sqlite3.Connection, cooldown: Cooldown) -> None:
        put_cooldown(tx, cooldown)

    @reads
    def cooldown_list(self, tx: sqlite3.Connection) -> Sequence[Cooldown]:
        return _cooldowns(tx)

    @reads
    def bucket_get(self, tx: sqlite3.Connection, key: str) -> Bucket | None:
        row = tx.execute("select data from buckets where key = ?", (key,)).fetchone()
        return rows.loads(Bucket, row[0]) if row else None

    @writes
    def bucket_put(self, tx: sqlite3.Connection, bucket: Bucket) -> None:
        # Version 1 is the only one that may be new; any other replaces the one before it.
        put = tx.execute(
            "insert into buckets select :key, :version, :data where :version = 1 or exists "
            "(select 1 from buckets where key = :key) on conflict (key) do update "
            "set version = :version, data = :data where version = :version - 1",
            {"key": bucket.key, "version": bucket.version, "data": rows.dumps(bucket)},
        )
        if put.rowcount != 1:
            raise Conflict(f"bucket {bucket.key} was changed by somebody else")

    @writes
    def plan_put(self, tx: sqlite3.Connection, record: PlanRecord, *, keep: int = 200) -> None:
        put_plan(tx, record)
        tx.execute(
            "delete from plans where id in (select id from plans where autoscaler = ? "
            "order by at desc, id desc limit -1 offset ?)",
            (record.autoscaler, keep),
        )

    @reads
    def plan_list(
        self, tx: sqlite3.Connection, autoscaler: str, *, limit: int = 20
    ) -> Sequence[PlanRecord]:
        found = tx.execute(
            "select id, at, plan, snapshot from plans where autoscaler = ? "
            "order by at desc, id desc limit ?",
            (autoscaler, limit),
        )
        return tuple(
            PlanRecord(
                id=plan_id,
                autoscaler=autoscaler,
                at=datetime.fromisoformat(at),
                plan=plan,
                snapshot=snapshot,
            )
            for plan_id, at, plan, snapshot in found
        )

    @writes
    def event_append(self, tx: sqlite3.Connection, event: Event) -> None:
        put_event(tx, event)

    @reads
    def event_list(
        self,
        tx: sqlite3.Connection,
        *,
        kind: str = "",
        subject: str = "",
        cursor: str = "",
        limit: int = 100,
    ) -> Page[Event]:
        scope = ("events", kind, subject)
        wanted: dict[str, rows.Value] = {}
        if kind:
            wanted["kind = ?"] = kind
        if subject:
            wanted["subject = ?"] = subject
        if cursor:
            (wanted["seq < ?"],) = cursors.read(scope, cursor, (0,))
        found = tx.execute(
            f"select seq, data from events where {' and '.join(wanted) or 'true'} "
            "order by seq desc limit ?",
            (*wanted.values(), limit + 1),
        )
        events = [replace(rows.loads(Event, data), seq=seq) for seq, data in found]
        return cursors.page(scope, events, limit, lambda event: (event.seq,))

    @writes
    def answer_begin(
        self,
        tx: sqlite3.Connection,
        key: str,
        fingerprint: str,
        *,
        now: datetime,
        keep_s: float,
    ) -> StoredAnswer | None:
        tx.execute(
            "delete from answers where begun_at < ? or (key = ? and status = 0 and begun_at < ?)",
            (
                rows.text(now - timedelta(seconds=keep_s)),
                key,
                rows.text(now - timedelta(seconds=transitions.ANSWER_IN_FLIGHT_S)),
            ),
        )
        row = tx.execute("select data from answers where key = ?", (key,)).fetchone()
        if row is not None:
            return rows.loads(StoredAnswer, row[0])
        begun = rows.dumps(StoredAnswer(fingerprint=fingerprint))
        tx.execute("insert into answers values (?, ?, 0, ?)", (key, rows.text(now), begun))
        return None

    @writes
    def answer_finish(self, tx: sqlite3.Connection, key: str, answer: StoredAnswer) -> None:
        tx.execute(
            "update answers set status = ?, data = ? where key = ?",
            (answer.status, rows.dumps(answer), key),
        )

    @writes
    def answer_abandon(self, tx: sqlite3.Connection, key: str) -> None:
        tx.execute("delete from answers where key = ? and status = 0", (key,))

    @writes
    def answer_abandon_all(self, tx: sqlite3.Connection) -> None:
        tx.execute("delete from answers where status = 0")


def check_fence(tx: sqlite3.Connection, fence: Fence) -> None:
    """Raise `FencedOut` unless this fence is the current one."""
    row = tx.execute(
        "select owner, generation from leases where name = ?", (fence.name,)
    ).fetchone()
    if row != (fence.owner, fence.generation):
        raise FencedOut(
            f"{fence.owner} no longer controls {fence.name}: generation {fence.generation} is over"
        )


def put_lease(tx: sqlite3.Connection, held: HeldFence) -> None:
    """Write a controller lease over what is there."""
    fence = held.fence
    tx.execute(
        "insert or replace into leases values (?, ?, ?, ?)",
        (fence.name, fence.owner, fence.generation, rows.text(held.until)),
    )


def all_leases(tx: sqlite3.Connection) -> Sequence[HeldFence]:
    """Controller leases by name."""
    found = tx.execute("select name, owner, generation, expires_at from leases order by name")
    return tuple(
        HeldFence(
            fence=Fence(name=name, owner=owner, generation=generation),
            until=datetime.fromisoformat(expires_at),
        )
        for name, owner, generation, expires_at in found
    )


def put_cooldown(tx: sqlite3.Connection, cooldown: Cooldown) -> None:
    """Write a cool-down over what is there."""
    tx.execute(
        "insert or replace into cooldowns values (?, ?)", (cooldown.key, rows.dumps(cooldown))
    )


def put_plan(tx: sqlite3.Connection, record: PlanRecord) -> None:
    """Write a plan over what is there."""
    tx.execute(
        "insert or replace into plans values (?, ?, ?, ?, ?)",
        (record.id, record.autoscaler, rows.text(record.at), record.plan, record.snapshot),
    )


def put_event(tx: sqlite3.Connection, event: Event) -> None:
    """Write an event under its number, or under the next one when it has none."""
    tx.execute(
        "insert or replace into events (seq, kind, subject, data, at) values (?, ?, ?, ?, ?)",
        (event.seq or None, event.kind, event.subject, rows.dumps(event), rows.text(event.at)),
    )


def _cooldowns(tx: sqlite3.Connection) -> Sequence[Cooldown]:
    found = tx.execute("select data from cooldowns order by key")
    return tuple(rows.loads_again(Cooldown, row[0]) for row in found)
