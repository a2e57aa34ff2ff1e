"""The waiting line of a queue, read from the index: every shape its own ordered stream."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from control_plane.core.model import Job, JobState, Need
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb import records
from control_plane.stores.dynamodb.calls import ConditionFailed
from control_plane.stores.dynamodb.client import Key
from control_plane.stores.dynamodb.expressions import Expression, expr
from control_plane.stores.dynamodb.items import Item
from control_plane.stores.dynamodb.parts import Entry
from control_plane.stores.dynamodb.shapes import REMEMBERED_S, Shapes

ROWS_PER_READ = 20
"""Rows that fit into the smallest read."""
_ALWAYS = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One waiting job as the index shows it, maybe a moment ago."""

    job_id: str
    queue: str
    need: Need
    priority: int
    position: float
    epoch: int
    owner: str
    queued_at: datetime
    not_before: datetime | None
    promoted_at: datetime | None
    partition: str
    sort: str
    key: Key

    def may_start(self, now: datetime) -> bool:
        """Whether its time has come. A look by a clock that was ahead may have let it go early."""
        return self.not_before is None or self.not_before <= now

    @property
    def waited_since(self) -> datetime:
        """`transitions.waited_since`"""
        return max(self.queued_at, self.not_before or self.queued_at)

    @property
    def ages_since(self) -> datetime:
        """`transitions.ages_since`"""
        return max(self.waited_since, self.promoted_at or self.queued_at)

    @property
    def still_there(self) -> Expression:
        """The condition that the job waits in this very place."""
        return expr(
            f"{at.INDEX_PARTITION} = :partition AND {at.INDEX_SORT} = :sort",
            partition=self.partition,
            sort=self.sort,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedRow:
    """One job that is held back."""

    job_id: str
    queue: str
    kind: str
    until: datetime
    queued_at: datetime
    place: str
    """Its `line_sort`, for when it is let go."""
    sort: str
    key: Key


@dataclass(frozen=True, slots=True)
class Stream:
    """The rows of one shape, in order."""

    rows: Iterator[Row]
    mixed: bool
    """They have different needs."""


def in_order(streams: Iterable[Stream], wanted: Callable[[Need], bool]) -> Iterator[Row]:
    """The rows of all streams in claim order, without those that are not wanted. What is not wanted
    once never will be: the rest of its stream is not read."""
    heap: list[tuple[str, int, Row, Stream]] = []

    def advance(number: int, stream: Stream) -> None:
        row = next(stream.rows, None)
        if row is not None:
            heapq.heappush(heap, (row.sort, number, row, stream))

    for number, stream in enumerate(streams):
        advance(number, stream)
    while heap:
        _, number, row, stream = heapq.heappop(heap)
        if wanted(row.need):
            yield row
        elif not stream.mixed:
            continue
        advance(number, stream)


def everything(_: Need) -> bool:
    """Want every row."""
    return True


class Lines(Shapes):
    """Reading lines, and letting go what was held back."""

    def _streams(
        self,
        queue: Entry,
        *,
        wanted: Callable[[Need], bool] = everything,
        page: int | None = None,
        after: str = "",
        before: str = "",
        forward: bool = True,
    ) -> list[Stream]:
        """The shapes of a queue whose need is wanted, each from behind the place `after`, or up to
        the place `before`, `page` rows at a time."""
        between = (after or at.FIRST, before or at.LAST)
        return [
            Stream(self._rows(queue, shape, between, page, forward), mixed=need is None)
            for shape, need in queue.shapes.items()
            if need is None or wanted(need)
        ]

    def _rows(
        self, queue: Entry, shape: str, between: tuple[str, str], page: int | None, forward: bool
    ) -> Iterator[Row]:
        shards = [
            self._table.query(
                at.line_partition(queue.record.name, shape, shard),
                sk_between=between,
                index=at.READY,
                forward=forward,
                page_size=page,
            )
            for shard in range(self._settings.ready_shards)
        ]
        merged = heapq.merge(*shards, key=lambda item: item[at.INDEX_SORT], reverse=not forward)
        seen = False
        for item in merged:
            seen = True
            if item[at.INDEX_SORT] not in between:  # a place itself is neither before nor after it
                yield _row(item, queue.record.name, queue.shapes[shape])
        if not seen and between == (at.FIRST, at.LAST):
            self._memory.empty.add((queue.record.name, shape))

    def _parked_rows(self, *, page: int | None = None) -> Iterator[ParkedRow]:
        """What is held back, by time; of delayed and blocked jobs of all queues."""
        return map(_parked_row, self._table.query(at.PARKED, index=at.READY, page_size=page))

    def _let_delayed_go(self, now: datetime, queues: Collection[str]) -> None:
        """Put the delayed jobs of these queues whose time has come into their lines, as far as that
        is cheap: what one smallest read does not show is left to the next look."""
        page = self._table.query_page(
            at.PARKED,
            sk_between=(at.FIRST, at.time_text(now) + at.LAST),
            index=at.READY,
            limit=ROWS_PER_READ,
        )
        rows = map(_parked_row, page.items)
        self._let_rows_go(
            [row for row in rows if row.kind == at.DELAYED_ROW and row.queue in queues]
        )

    def _let_rows_go(self, rows: Sequence[ParkedRow]) -> int:
        """Put delayed jobs into their lines; returns how many."""
        jobs = self._read_many([row.job_id for row in rows]) if rows else {}
        return sum(self._let_go(row, jobs[row.job_id].job) for row in rows if row.job_id in jobs)

    def _due(self, now: datetime, limit: int) -> list[ParkedRow]:
        """What is held back no longer than `now`, `limit` rows at most. What is left is noted, so
        that this process need not look again before the next is due."""
        due: list[ParkedRow] = []
        began, until = time.monotonic(), _ALWAYS
        for row in self._parked_rows(page=ROWS_PER_READ):
            if row.until > now or len(due) == limit:
                until = row.until
                break
            due.append(row)
        self._memory.looked = (began, until)
        return due

    def _looked(self, now: datetime) -> bool:
        """Whether this process has seen a moment ago that nothing held back is due by then."""
        looked = self._memory.looked
        return bool(looked and now < looked[1] and time.monotonic() - looked[0] < REMEMBERED_S)

    def _let_go(self, row: ParkedRow, job: Job) -> bool:
        """The version stays: nothing of the job changes but where it stands."""
        if job.state is not JobState.QUEUED:
            return False
        still = expr(
            f"{at.INDEX_SORT} = :sort AND {at.VERSION} = :seen", sort=row.sort, seen=job.version
        )
        with suppress(ConditionFailed):
            self._table.update(*row.key, assign=self._in_line(job), condition=still)
            return True
        return False


def _parked_row(item: Item) -> ParkedRow:
    until, kind, queue, place = at.parked_place(item[at.INDEX_SORT])
    return ParkedRow(
        until=until,
        job_id=item["sk"],
        queue=queue,
        kind=kind,
        place=place,
        queued_at=at.moment(item[at.QUEUED_AT]),
        sort=item[at.INDEX_SORT],
        key=(item["pk"], item["sk"]),
    )


def _row(item: Item, queue: str, need: Need | None) -> Row:
    priority, position, job_id = at.line_place(item[at.INDEX_SORT])
    return Row(
        job_id=job_id,
        queue=queue,
        need=records.from_text(Need, item[at.ROW_NEED]) if need is None else need,
        priority=priority,
        position=position,
        epoch=item[at.EPOCH],
        owner=item.get(at.OWNER, ""),
        queued_at=at.moment(item[at.QUEUED_AT]),
        not_before=at.moment_or_none(item.get(at.NOT_BEFORE)),
        promoted_at=at.moment_or_none(item.get(at.PROMOTED_AT)),
        partition=item[at.INDEX_PARTITION],
        sort=item[at.INDEX_SORT],
        key=(item["pk"], item["sk"]),
    )
