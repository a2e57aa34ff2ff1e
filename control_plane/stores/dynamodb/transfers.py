"""Moving everything to another store and back.

Records are read partition after partition, by key: a cursor is the key of the last record. Which
partitions there are stands in the item of days.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, TypeAlias

from control_plane.core.access import ApiToken, Federation
from control_plane.core.alerts import Delivery
from control_plane.core.hooks import Hook
from control_plane.core.model import Artifact, Attempt, Cooldown, Event, PriceInterval, QueueRecord
from control_plane.core.policy import AutoscalerRecord
from control_plane.ports import HeldFence, Page, PlanRecord, Row, TransferKind
from control_plane.stores import cursors, transfer
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb import ledger, machines, records
from control_plane.stores.dynamodb.access import (
    federation,
    federation_item,
    hook,
    hook_item,
    token,
    token_item,
)
from control_plane.stores.dynamodb.arrivals import Arrivals, last_ended
from control_plane.stores.dynamodb.autoscalers import Autoscalers, document_item, version_item
from control_plane.stores.dynamodb.control import (
    Control,
    cooldown,
    document,
    held_fence,
    lease_item,
)
from control_plane.stores.dynamodb.deliveries import Deliveries, delivery
from control_plane.stores.dynamodb.history import PLANS_KEPT, History, event
from control_plane.stores.dynamodb.items import Item
from control_plane.stores.dynamodb.ledger import Ledger
from control_plane.stores.dynamodb.queues import Queues
from control_plane.stores.dynamodb.records import Stored
from control_plane.stores.dynamodb.shapes import entry
from control_plane.stores.transfer import AttemptRow, JobRow

Place: TypeAlias = tuple[str, str, int]
"""Partition, sort key, and which of the records of that item."""
Found: TypeAlias = Iterator[tuple[Place, object]]

START: Place = ("", "", 0)
ITEMS_READ = 500


class Transfers(Arrivals, Queues, Autoscalers, Ledger, Control, Deliveries, History):
    """`ports.TransferStore`."""

    _forgotten: tuple[str, Mapping[tuple[str, int], Attempt]] | None = None
    """The attempts of one day whose jobs have expired: a page of them needs the whole day."""

    def transfer_read(self, kind: TransferKind, *, cursor: str = "", limit: int = 500) -> Page[Row]:
        if not cursor:
            self._forgotten = None
        scope = ("transfer", kind)
        behind: Any = cursors.read(scope, cursor, START) if cursor else START
        found = (each for each in self._records(kind, behind) if each[0] > behind)
        page = cursors.page(scope, list(islice(found, limit + 1)), limit, lambda each: each[0])
        return Page(items=tuple(transfer.row(each) for _, each in page.items), cursor=page.cursor)

    def transfer_write(self, kind: TransferKind, rows: Sequence[Row]) -> None:
        arriving = [transfer.record(kind, row, transfer.SHAPES[kind]) for row in rows]
        writers: Mapping[TransferKind, Callable[[Any], None]] = {
            TransferKind.AUTOSCALER_VERSION: self._versions_arrive,
            TransferKind.AUTOSCALER: self._documents_arrive,
            TransferKind.QUEUE: self._queues_arrive,
            TransferKind.LEASE: self._leases_arrive,
            TransferKind.COOLDOWN: self._cooldowns_arrive,
            TransferKind.MACHINE: self._machines_arrive,
            TransferKind.JOB: self._jobs_arrive,
            TransferKind.ATTEMPT: self._attempts_arrive,
            TransferKind.PRICE: self._prices_arrive,
            TransferKind.PLAN: self._plans_arrive,
            TransferKind.EVENT: self._events_arrive,
            TransferKind.TOKEN: self._tokens_arrive,
            TransferKind.FEDERATION: self._federations_arrive,
            TransferKind.HOOK: self._hooks_arrive,
            TransferKind.DELIVERY: self._deliveries_arrive,
        }
        writers[kind](arriving)
        self._memory.registry = None
        self._forgotten = None

    def history_old(
        self,
        *,
        before: datetime,  # noqa: ARG002 - a table keeps what its settings say
        limit: int = 1000,  # noqa: ARG002
    ) -> Sequence[str]:
        """Nothing: what ends is written with the time at which DynamoDB forgets it."""
        return ()

    def history_prune(self, job_ids: Sequence[str], *, before: datetime) -> None:
        """Nothing to do."""

    # ---------------------------------------------------------------------------- reading

    def _records(self, kind: TransferKind, behind: Place) -> Found:
        """The records of a kind from a place on, by place."""
        if kind is TransferKind.ATTEMPT:
            yield from self._attempt_rows(behind)
        elif kind is TransferKind.PLAN:
            yield from self._plans(behind)
        else:
            prefix, read = self._readers()[kind]
            for item in self._items(self._partitions(kind), behind, prefix):
                record = None if self._expired(item) else read(item)
                if record is not None:
                    yield (item["pk"], item["sk"], 1), record

    def _readers(self) -> Mapping[TransferKind, tuple[str, Callable[[Item], object]]]:
        """What the sort keys of a kind begin with, and the record of an item if it is one."""
        return {
            TransferKind.AUTOSCALER_VERSION: ("", document),
            TransferKind.AUTOSCALER: (at.AUTOSCALER_PREFIX, document),
            TransferKind.QUEUE: (at.QUEUE_PREFIX, lambda item: entry(item).record),
            TransferKind.LEASE: (at.LEASE_PREFIX, held_fence),
            TransferKind.COOLDOWN: (at.COOLDOWN_PREFIX, cooldown),
            TransferKind.MACHINE: ("", self._machine_of),
            TransferKind.JOB: ("", self._job_row),
            TransferKind.PRICE: ("", ledger.price),
            TransferKind.EVENT: ("", event),
            TransferKind.TOKEN: ("", token),
            TransferKind.FEDERATION: ("", federation),
            TransferKind.HOOK: ("", hook),
            TransferKind.DELIVERY: ("", delivery),
        }

    def _partitions(self, kind: TransferKind) -> list[str]:
        """In order."""
        if kind is TransferKind.AUTOSCALER_VERSION:
            return sorted(map(at.versions_of, self._days(at.DECLARED)))
        if kind is TransferKind.MACHINE:
            return [at.MACHINES, at.ENDED_MACHINES]
        if kind is TransferKind.JOB:
            days = sorted(self._days(at.PACKED))
            return [at.jobs_of(day, shard) for day in days for shard in range(at.SHARDS)]
        if kind is TransferKind.PRICE:
            closed = map(at.closed_prices_of, self._days(at.PAID_MONTHS))
            return sorted([*closed, at.OPEN_PRICES])
        if kind is TransferKind.EVENT:
            return sorted(map(at.events_of, self._days(at.EVENT_DAYS)))
        return [_ONE_PARTITION.get(kind, at.CONTROL)]

    def _items(self, partitions: Iterable[str], behind: Place, prefix: str = "") -> Iterator[Item]:
        """The items of partitions, in order, from a place on."""
        for pk in partitions:
            if pk >= behind[0]:
                after = behind[1] if pk == behind[0] else prefix or at.FIRST
                between = (after, prefix + at.LAST)
                yield from self._table.query(
                    pk, sk_between=between, consistent=True, page_size=ITEMS_READ
                )

    def _machine_of(self, item: Item) -> object | None:
        if item["pk"] == at.ENDED_MACHINES:
            return machines.record(item)
        return None if item["sk"].endswith("!") else self.machine_get(item["sk"])

    def _job_row(self, item: Item) -> JobRow | None:
        found = self._stored(item)
        if found is None:
            return None
        return JobRow(job=found.job, idempotency_key=found.key, promoted_at=found.promoted_at)

    def _plans(self, behind: Place) -> Found:
        for name in sorted(self._days(at.PLANNED)):
            pk = at.plans_of(name)
            if pk >= behind[0]:
                for plan in reversed(self.plan_list(name, limit=PLANS_KEPT)):
                    yield (pk, at.plan_sort(plan.at, plan.id), 1), plan

    # --------------------------------------------------------------------------- attempts

    def _attempt_rows(self, behind: Place) -> Found:
        """Those of the jobs that are there, then those that are in the ledger only."""
        for item in self._items(self._partitions(TransferKind.JOB), behind):
            job = self._stored(item)
            if job is not None:
                for row in self._rows_of(job):
                    yield (item["pk"], item["sk"], row.attempt.epoch), row
        before: list[str] = []
        for day in sorted(self._days(at.BOOKED_DAYS)):
            if at.bookings_of(day) >= behind[0]:
                yield from self._forgotten_of(day, before)
            before = [day]

    def _rows_of(self, job: Stored) -> Iterator[AttemptRow]:
        beside = self._beside(job) if job.job.epoch > 1 or job.artifacts_at else {}
        kept = [records.unpack(Attempt, data) for sk, data in beside.items() if sk[0] == "A"]
        found = {each.epoch: each for each in (*kept, job.previous, job.attempt) if each}
        for epoch in sorted(found):
            _, name = at.artifacts_key(job.job.id, epoch)
            artifacts: tuple[Artifact, ...] = ()
            if epoch == last_ended(job) and job.artifacts_at is None:
                artifacts = tuple(job.artifacts)
            elif name in beside:
                artifacts = records.unpack(tuple[Artifact, ...], beside[name])
            yield AttemptRow(attempt=found[epoch], artifacts=artifacts)

    def _beside(self, job: Stored) -> Mapping[str, bytes]:
        """What is kept beside a job's item, by its name."""
        items = self._table.query(at.beside_job(job.job.id), consistent=True)
        return {item["sk"]: item[at.PACKED] for item in items if at.PACKED in item}

    def _forgotten_of(self, day: str, before: Sequence[str]) -> Found:
        """The attempts booked under a day whose jobs have expired, each once: after a crash an
        attempt may be booked twice, the second time maybe under the next day."""
        if self._forgotten is None or self._forgotten[0] != day:
            earlier = {(each.job_id, each.epoch) for each in self._booked(before)}
            booked = {(each.job_id, each.epoch): each for each in self._booked([day])}
            there = self._read_many({job_id for job_id, _ in booked})
            gone = {key: each for key, each in booked.items() if key[0] not in there}
            self._forgotten = day, {key: gone[key] for key in sorted(gone.keys() - earlier)}
        for (job_id, epoch), attempt in self._forgotten[1].items():
            yield (at.bookings_of(day), job_id, epoch), AttemptRow(attempt=attempt)

    # ---------------------------------------------------------------------------- writing

    def _versions_arrive(self, arriving: Sequence[AutoscalerRecord]) -> None:
        for record in arriving:
            self._note_day(at.DECLARED, record.name)
            items = list(self._table.query(at.versions_of(record.name), consistent=True))
            # A document that was removed and declared again has the same version twice.
            if record not in map(document, items):
                last = at.number_of_text(items[-1]["sk"]) if items else 0
                number = max(last + 1, at.stamp(record.applied_at))
                self._table.put(version_item(record, number))
                self._numbers.after(number)

    def _documents_arrive(self, arriving: Sequence[AutoscalerRecord]) -> None:
        self._put_all(map(document_item, arriving))

    def _queues_arrive(self, arriving: Sequence[QueueRecord]) -> None:
        for record in arriving:
            item = self._table.get(*at.queue_key(record.name))
            self._put_queue(record, entry(item).record if item else None)

    def _leases_arrive(self, arriving: Sequence[HeldFence]) -> None:
        self._memory.leases.clear()
        self._put_all(map(lease_item, arriving))

    def _cooldowns_arrive(self, arriving: Sequence[Cooldown]) -> None:
        self._put_all(map(self._cooldown_item, arriving))

    def _prices_arrive(self, arriving: Sequence[PriceInterval]) -> None:
        there = self._table.batch_get(map(at.price_key, arriving))
        for item in there.values():
            self._table.delete(*ledger.found_under(ledger.price(item)))
        for month in {at.month(each.ended_at) for each in arriving if each.ended_at}:
            self._note_day(at.PAID_MONTHS, month)
        self._put_all(
            ledger.price_item(key, paid)
            for paid in arriving
            for key in (at.price_key(paid), ledger.found_under(paid))
        )

    def _plans_arrive(self, arriving: Sequence[PlanRecord]) -> None:
        for plan in arriving:
            self.plan_put(plan)

    def _tokens_arrive(self, arriving: Sequence[ApiToken]) -> None:
        self._put_all(map(token_item, arriving))

    def _federations_arrive(self, arriving: Sequence[Federation]) -> None:
        self._put_all(map(federation_item, arriving))

    def _hooks_arrive(self, arriving: Sequence[Hook]) -> None:
        self._put_all(map(hook_item, arriving))

    def _deliveries_arrive(self, arriving: Sequence[Delivery]) -> None:
        for each in arriving:
            self._table.delete(*at.due_key(each.id))
        self._put_all(item for each in arriving for item in self._delivery_items(each))

    def _events_arrive(self, arriving: Sequence[Event]) -> None:
        for day in {at.day_of_number(each.seq) for each in arriving}:
            self._note_day(at.EVENT_DAYS, day)
        self._numbers.after(max((each.seq for each in arriving), default=0))
        self._put_all(item for each in arriving for item in self._event_items(each))


_ONE_PARTITION = {
    TransferKind.TOKEN: at.TOKENS,
    TransferKind.FEDERATION: at.FEDERATIONS,
    TransferKind.HOOK: at.HOOKS,
    TransferKind.DELIVERY: at.DELIVERIES,
}
