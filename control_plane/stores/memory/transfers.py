"""Moving everything to another store and back, and forgetting, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import ceil
from operator import attrgetter
from typing import Any

from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import Event, Job, PriceInterval
from control_plane.core.policy import AutoscalerRecord
from control_plane.ports import Page, Row, TransferKind
from control_plane.stores import cursors, transfer
from control_plane.stores.memory.tables import Tables, atomic
from control_plane.stores.transfer import AttemptRow, JobRow

Keyed = tuple[cursors.Key, object]
"""A record behind what it is sorted by."""


class Transfers(Tables):
    """`ports.TransferStore`."""

    @atomic
    def transfer_read(self, kind: TransferKind, *, cursor: str = "", limit: int = 500) -> Page[Row]:
        scope = ("transfer", kind)
        records = sorted(self._records(kind), key=_key)
        if cursor:
            behind = cursors.read(scope, cursor, _key(records[0]) if records else ())
            records = [each for each in records if _key(each) > behind]
        page = cursors.page(scope, records, limit, _key)
        rows = tuple(transfer.row(record) for _, record in page.items)
        return Page(items=rows, cursor=page.cursor)

    @atomic
    def transfer_write(self, kind: TransferKind, rows: Sequence[Row]) -> None:
        records = [transfer.record(kind, row, transfer.SHAPES[kind]) for row in rows]
        put = self._put(kind)
        for record in records:
            put(record)

    @atomic
    def history_old(self, *, before: datetime, limit: int = 1000) -> Sequence[str]:
        old = [job for job in self._jobs.values() if _ended_at(job) < before]
        old.sort(key=lambda job: (_ended_at(job), job.id))
        return tuple(job.id for job in old[:limit])

    @atomic
    def history_prune(self, job_ids: Sequence[str], *, before: datetime) -> None:
        for job_id in job_ids:
            if job_id in self._jobs and _ended_at(self._jobs[job_id]) < before:
                self._forget(job_id)
        self._plans = {key: plan for key, plan in self._plans.items() if plan.at >= before}
        self._events = {seq: event for seq, event in self._events.items() if event.at >= before}
        self._deliveries = {
            key: each for key, each in self._deliveries.items() if each.created_at >= before
        }

    def _forget(self, job_id: str) -> None:
        del self._jobs[job_id]
        self._ids.remove(job_id)
        self._jobs_by_key.pop(self._keys.pop(job_id, ""), None)
        self._promoted_at.pop(job_id, None)
        self._let_go.discard(job_id)
        for attempt in self._attempts.get(job_id, ()):
            self._artifacts.pop((job_id, attempt.number), None)

    def _by_name(self) -> Mapping[TransferKind, tuple[dict[str, Any], Callable[[Any], str]]]:
        """The kinds that are one dict, each with what it is kept by."""
        return {
            TransferKind.AUTOSCALER: (self._autoscalers, attrgetter("name")),
            TransferKind.QUEUE: (self._queues, attrgetter("name")),
            TransferKind.LEASE: (self._leases, attrgetter("fence.name")),
            TransferKind.COOLDOWN: (self._cooldowns, attrgetter("key")),
            TransferKind.MACHINE: (self._machines, attrgetter("id")),
            TransferKind.PLAN: (self._plans, attrgetter("id")),
            TransferKind.TOKEN: (self._tokens, attrgetter("id")),
            TransferKind.FEDERATION: (self._federations, attrgetter("name")),
            TransferKind.HOOK: (self._hooks, attrgetter("name")),
            TransferKind.DELIVERY: (self._deliveries, attrgetter("id")),
        }

    def _records(self, kind: TransferKind) -> Iterable[Keyed]:
        readers = {
            TransferKind.AUTOSCALER_VERSION: self._versions,
            TransferKind.JOB: self._job_rows,
            TransferKind.ATTEMPT: self._attempt_rows,
            TransferKind.PRICE: self._intervals,
            TransferKind.EVENT: self._numbered_events,
        }
        if kind in readers:
            return readers[kind]()
        records, _ = self._by_name()[kind]
        return (((name,), record) for name, record in records.items())

    def _put(self, kind: TransferKind) -> Callable[[Any], None]:
        writers: Mapping[TransferKind, Callable[[Any], None]] = {
            TransferKind.AUTOSCALER_VERSION: self._put_version,
            TransferKind.JOB: self._put_job,
            TransferKind.ATTEMPT: self._put_attempt,
            TransferKind.PRICE: self._put_interval,
            TransferKind.EVENT: self._put_event,
        }
        if kind in writers:
            return writers[kind]
        records, name_of = self._by_name()[kind]
        return lambda record: records.update({name_of(record): record})

    def _versions(self) -> Iterable[Keyed]:
        for name, versions in self._autoscaler_versions.items():
            for number, record in enumerate(versions):
                yield (name, number), record

    def _put_version(self, record: AutoscalerRecord) -> None:
        versions = self._autoscaler_versions.setdefault(record.name, [])
        # A document that was removed and declared again has the same version twice.
        if record not in versions:
            versions.append(record)

    def _job_rows(self) -> Iterable[Keyed]:
        for job in self._jobs.values():
            yield (
                (job.id,),
                JobRow(
                    job=job,
                    idempotency_key=self._keys.get(job.id, ""),
                    promoted_at=self._promoted_at.get(job.id),
                ),
            )

    def _put_job(self, row: JobRow) -> None:
        job = row.job
        self._save(job)
        self._position = max(self._position, ceil(job.position))
        self._jobs_by_key.pop(self._keys.pop(job.id, ""), None)
        self._promoted_at.pop(job.id, None)
        if row.idempotency_key:
            self._jobs_by_key[row.idempotency_key] = job.id
            self._keys[job.id] = row.idempotency_key
        if row.promoted_at is not None:
            self._promoted_at[job.id] = row.promoted_at

    def _attempt_rows(self) -> Iterable[Keyed]:
        for job_id, attempts in self._attempts.items():
            for attempt in attempts:
                artifacts = self._artifacts.get((job_id, attempt.number), ())
                yield (
                    (job_id, attempt.number),
                    AttemptRow(attempt=attempt, artifacts=artifacts),
                )

    def _put_attempt(self, row: AttemptRow) -> None:
        job_id, number = row.attempt.job_id, row.attempt.number
        others = [each for each in self._attempts.get(job_id, ()) if each.number != number]
        self._attempts[job_id] = sorted((*others, row.attempt), key=lambda each: each.number)
        self._artifacts[job_id, number] = row.artifacts

    def _intervals(self) -> Iterable[Keyed]:
        for machine_id, intervals in self._prices.items():
            for started_at, interval in intervals.items():
                yield (machine_id, started_at.astimezone(UTC).isoformat()), interval

    def _put_interval(self, interval: PriceInterval) -> None:
        self._prices.setdefault(interval.machine_id, {})[interval.started_at] = interval

    def _numbered_events(self) -> Iterable[Keyed]:
        return (((seq,), event) for seq, event in self._events.items())

    def _put_event(self, event: Event) -> None:
        late = event.seq < self._last_event and event.seq not in self._events
        self._events[event.seq] = event
        self._last_event = max(self._last_event, event.seq)
        if late:
            self._events = dict(sorted(self._events.items()))


def _key(keyed: Keyed) -> cursors.Key:
    return keyed[0]


def _ended_at(job: Job) -> datetime:
    """When it ended; later than every time while it has not."""
    return job.finished_at if job.state in JOB_ENDED and job.finished_at else _NEVER


_NEVER = datetime.max.replace(tzinfo=UTC)
