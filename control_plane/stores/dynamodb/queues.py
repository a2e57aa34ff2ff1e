"""Queues: their records, their depth, and what is done to a whole queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import chain, islice, takewhile

from control_plane.core.model import (
    Job,
    JobState,
    Need,
    QueueRecord,
    QueueStats,
    Reason,
    WaitingGroup,
)
from control_plane.errors import Conflict, Refused
from control_plane.stores import transitions
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb import records
from control_plane.stores.dynamodb.calls import ConditionFailed, TransactionRefused
from control_plane.stores.dynamodb.client import Delete, Put
from control_plane.stores.dynamodb.expressions import ABSENT, expr
from control_plane.stores.dynamodb.items import Item, Value
from control_plane.stores.dynamodb.jobs import Jobs
from control_plane.stores.dynamodb.line import ParkedRow, Row, everything, in_order
from control_plane.stores.dynamodb.parts import TRIES, Entry, too_busy
from control_plane.stores.dynamodb.records import Stored
from control_plane.stores.dynamodb.shapes import entry

COUNTED_MAX = 10_000
"""Rows that counting a queue reads at most: a quarter of a thousandth of a cent."""
WAITS_READ = 5_000
"""Booked attempts that are looked through for the last waits."""


class Queues(Jobs):
    """`ports.QueueStore`."""

    # ---------------------------------------------------------------------------- records

    def queue_put(self, record: QueueRecord, *, expected_version: int) -> None:
        stored = self._table.get(*at.queue_key(record.name))
        before = entry(stored).record if stored else None
        what = f"queue {record.name}"
        version = before.version if before else 0
        transitions.check_version(what, version, record.version, expected_version)
        try:
            self._put_queue(record, before)
        except ConditionFailed as failure:
            now = entry(failure.old).record.version if failure.old else 0
            transitions.check_version(what, now, record.version, expected_version)
            raise Conflict(f"{what} was written by another") from None
        self._memory.registry = None
        if before and _newly_limited(before, record):
            self._enter_all(record)

    def _put_queue(self, record: QueueRecord, before: QueueRecord | None) -> None:
        """Write the record, not the registry of its line. Raises `ConditionFailed`."""
        written = {at.PACKED: records.text(record), at.VERSION: record.version}
        key = at.queue_key(record.name)
        if before is not None:
            seen = expr(f"{at.VERSION} = :seen", seen=before.version)
            self._table.update(*key, assign=written, condition=seen)
            return
        # Jobs that came while it was being removed, years ago maybe, are in lines known there.
        kept = self._table.get(*at.removed_queue_key(record.name)) or {}
        registry = {n: value for n, value in kept.items() if n.startswith(at.SHAPE_PREFIX)}
        self._table.put({**registry, **written, "pk": key[0], "sk": key[1]}, condition=ABSENT)

    def _enter_all(self, record: QueueRecord) -> None:
        """Count what runs against limits that are new. A claim that read the record just before
        may still escape them."""
        mark = at.entry_mark(int(self._clock.now().timestamp()), 0)
        running = [each.job for each in self._all_held() if each.job.queue == record.name]
        tokens = {(job.owner, at.entry(job.id, job.epoch, mark)) for job in running}
        groups: dict[str | None, set[str]] = {}
        for owner, token in tokens:
            if record.max_running is not None:
                groups.setdefault(None, set()).add(token)
            if record.max_running_per_owner is not None:
                groups.setdefault(owner, set()).add(token)
        for whose, members in groups.items():
            key = at.limit_key(record.name, whose)
            # What the set says of earlier times is over; those who came just now stay.
            have = (self._table.get(*key) or {}).get(at.MEMBERS, frozenset())
            known = {at.token_parts(token)[:2] for token in have}
            more = frozenset(t for t in members if at.token_parts(t)[:2] not in known)
            if more:
                self._table.update(*key, add={at.MEMBERS: more})

    def queue_get(self, name: str) -> QueueRecord:
        return self._queue(name).record

    def queue_list(self) -> Sequence[QueueRecord]:
        return tuple(each.record for each in self._all_queues())

    def _all_queues(self) -> list[Entry]:
        items = self._table.query(at.CONTROL, sk_prefix=at.QUEUE_PREFIX, consistent=True)
        return [entry(item) for item in items]

    def queue_remove(self, name: str) -> None:
        """The registry of its line is kept: a job that is being put there at this moment is found
        again when somebody makes the queue anew."""
        for _ in range(TRIES):
            item = self._table.get(*at.queue_key(name))
            if item is None:
                return
            self._refuse_with_jobs(entry(item))
            if self._removed(name, item):
                return
        raise too_busy(f"queue {name}")

    def _removed(self, name: str, item: Item) -> bool:
        registry = {n: value for n, value in item.items() if n.startswith(at.SHAPE_PREFIX)}
        pk, sk = at.removed_queue_key(name)
        changes = at.RUN_VERSION
        unchanged = (
            expr(f"{changes} = :seen", seen=item[changes])
            if changes in item
            else expr(f"attribute_exists(pk) AND attribute_not_exists({changes})")
        )
        with suppress(TransactionRefused):
            self._table.transact(
                Delete(key=at.queue_key(name), condition=unchanged),
                Put(item={**registry, "pk": pk, "sk": sk}),
            )
            self._memory.registry = None
            return True
        return False

    def _refuse_with_jobs(self, queue: Entry) -> None:
        name = queue.record.name
        waiting = (row.job_id for row in in_order(self._streams(queue, page=1), everything))
        parked = (row.job_id for row in self._parked_rows() if row.queue == name)
        held = (each.job.id for each in self._all_held() if each.job.queue == name)
        job_id = next(chain(waiting, parked, held), None)
        if job_id is not None:
            raise Refused(
                f"queue {name} is not empty: job {job_id} has not ended",
                fix="Move or cancel its jobs first.",
            )

    # --------------------------------------------------------------------------- counting

    def queue_stats(self) -> Mapping[str, QueueStats]:
        parked = list(islice(self._parked_rows(), COUNTED_MAX + 1))
        running = Counter(each.job.queue for each in self._all_held())
        return {
            queue.record.name: self._stats(queue, parked, running[queue.record.name])
            for queue in self._all_queues()
        }

    def _stats(self, queue: Entry, parked: Sequence[ParkedRow], running: int) -> QueueStats:
        name = queue.record.name
        rows = [
            row for stream in self._streams(queue) for row in islice(stream.rows, COUNTED_MAX + 1)
        ]
        delayed = [row for row in parked if row.queue == name and row.kind == at.DELAYED_ROW]
        blocked = [row for row in parked if row.queue == name and row.kind == at.BLOCKED_ROW]
        waits = [row.queued_at for row in rows] + [row.queued_at for row in delayed]
        return QueueStats(
            name=name,
            waiting=len(waits),
            running=running,
            oldest_at=min(waits, default=None),
            delayed=len(delayed),
            blocked=len(blocked),
            exact=len(rows) <= COUNTED_MAX and len(parked) <= COUNTED_MAX,
        )

    def queue_heads(self, names: Sequence[str]) -> Mapping[str, datetime]:
        heads: dict[str, datetime] = {}
        for name, queue in self._entries(names).items():
            firsts = [
                row.waited_since
                for stream in self._streams(queue, page=1)
                if (row := next(stream.rows, None))
            ]
            if firsts:
                heads[name] = min(firsts)
        return heads

    def queue_line(self, name: str, *, before: Job, limit: int = 1000) -> Sequence[str]:
        queue = self._entry(name)
        if queue is None:
            return ()
        place = at.line_sort(before.priority, before.position, before.id)
        rows = in_order(self._streams(queue, before=place, page=limit), everything)
        return tuple(row.job_id for row in islice(rows, limit))

    def queue_waits(self, name: str, *, limit: int = 1000) -> Sequence[float]:
        unbooked = self._unbooked(self._all_runs(consistent=False)[1], consistent=False)
        booked = islice(self._booked(self._days(at.BOOKED_DAYS)), WAITS_READ)
        waits = {
            (each.leased_at, each.job_id): waited
            for each in chain(unbooked, booked)
            if each.queue == name and (waited := transitions.wait_s(each)) is not None
        }
        return tuple(waits[claim] for claim in sorted(waits, reverse=True)[:limit])

    # --------------------------------------------------------------------- waiting groups

    def waiting_groups(
        self,
        queues: Sequence[str],
        *,
        ripe_before: Mapping[str, datetime],
        now: datetime,
        limit: int = 100_000,
    ) -> Sequence[WaitingGroup]:
        if not self._looked(now):
            due = self._due(now, COUNTED_MAX)
            self._let_rows_go([row for row in due if row.kind == at.DELAYED_ROW])
        known = self._remembered(queues)
        return tuple(
            group
            for name in queues
            if name in known
            for group in self._groups(known[name], ripe_before.get(name, now), now, limit)
        )

    def _groups(
        self, queue: Entry, ripe_before: datetime, now: datetime, limit: int
    ) -> list[WaitingGroup]:
        """Groups of one queue in the order in which the first job of each would be claimed."""
        room = self._room(queue.record)
        counted: Counter[Need] = Counter()
        kinds: dict[tuple[int, Need], list[Row]] = {}
        # One row beyond the limit says that there are more.
        rows = in_order(self._streams(queue, page=limit + 1), lambda need: counted[need] <= limit)
        for row in rows:
            if queue.record.max_running is not None and room.running >= queue.record.max_running:
                break
            if not row.may_start(now) or not room.admits(row.owner):
                continue
            room.take(row.owner)
            counted[row.need] += 1
            if counted[row.need] <= limit:
                kinds.setdefault((row.priority, row.need), []).append(row)
        # Only the last group of a need is cut short.
        last = {need: priority for priority, need in kinds}
        return [
            _group(counted_, ripe_before, exact=counted[need] <= limit or priority != last[need])
            for (priority, need), counted_ in kinds.items()
        ]

    # ------------------------------------------------------------------- to a whole queue

    def queue_clear(self, name: str, *, now: datetime, reason: Reason) -> Sequence[str]:
        queue = self._queue(name)
        ready = [row.job_id for row in in_order(self._streams(queue), everything)]
        parked = [row for row in self._parked_rows() if row.queue == name]
        delayed = [row.job_id for row in parked if row.kind == at.DELAYED_ROW]
        blocked = [row.job_id for row in parked if row.kind == at.BLOCKED_ROW]
        rows = (*ready, *delayed, *blocked)
        cleared = [gone for job_id in rows if (gone := self._cleared(name, job_id, reason, now))]
        for gone in cleared:
            self._tell_dependents(gone, now)
        return tuple(gone.job.id for gone in cleared)

    def _cleared(self, queue: str, job_id: str, reason: Reason, now: datetime) -> Stored | None:
        """Cancel a job that waits, not one claimed or moved meanwhile."""

        def transition(old: Stored) -> tuple[Stored, Mapping[str, Value]]:
            waits = old.job.state in (JobState.QUEUED, JobState.BLOCKED)
            if not waits or old.job.queue != queue:
                return old, {}
            job = transitions.cancelled(old.job, reason, now)
            return replace(old, job=job, expires=self._expiry()), self._place(job)

        gone = self._change(job_id, transition)
        cancelled = gone.job.state is JobState.CANCELLED and gone.job.queue == queue
        return gone if cancelled else None

    def queue_promote(self, name: str, *, waiting_since: datetime, now: datetime) -> int:
        queue = self._entry(name)
        if queue is None:
            return 0
        rows = [
            row
            for row in in_order(self._streams(queue), everything)
            if row.ages_since < waiting_since
        ]
        delayed = [
            row.job_id
            for row in takewhile(lambda row: row.until < waiting_since, self._parked_rows())
            if row.queue == name and row.kind == at.DELAYED_ROW
        ]
        aged = (*(row.job_id for row in rows), *delayed)
        return sum(self._promoted(job_id, name, waiting_since, now) for job_id in aged)

    def _promoted(self, job_id: str, queue: str, since: datetime, now: datetime) -> bool:
        raised = False

        def transition(old: Stored) -> tuple[Stored, Mapping[str, Value]]:
            nonlocal raised
            job = old.job
            raised = (
                job.state is JobState.QUEUED
                and job.queue == queue
                and transitions.ages_since(job, old.promoted_at) < since
            )
            if not raised:
                return old, {}
            job = replace(job, priority=job.priority + 1, version=job.version + 1)
            new = replace(old, job=job, promoted_at=now)
            return new, self._replaced(new)

        self._change(job_id, transition)
        return raised


def _newly_limited(before: QueueRecord, record: QueueRecord) -> bool:
    return (before.max_running is None and record.max_running is not None) or (
        before.max_running_per_owner is None and record.max_running_per_owner is not None
    )


def _group(rows: Sequence[Row], ripe_before: datetime, *, exact: bool) -> WaitingGroup:
    return WaitingGroup(
        queue=rows[0].queue,
        priority=rows[0].priority,
        need=rows[0].need,
        count=len(rows),
        ripe=sum(row.queued_at <= ripe_before for row in rows),
        oldest_at=min(row.queued_at for row in rows),
        aged_at=min(row.ages_since for row in rows),
        exact=exact,
    )
