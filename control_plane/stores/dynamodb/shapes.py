"""Queues' records, and the registry of the shapes of needs in each queue's line.

A line is one index partition per shape, so that a claim reads only jobs that fit. Which shapes
there are stands in the queue's item, which is read on the way in and out anyway. A shape whose line
is empty is marked, and forgotten when it still is ten minutes later; whoever puts a job there
meanwhile takes the mark away first. No request lives that long, so no job is ever in a line that
the registry does not know.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime

from control_plane.core.model import Job, JobState, Need, QueueRecord
from control_plane.errors import NotFound
from control_plane.stores import transitions
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb import records
from control_plane.stores.dynamodb.calls import ConditionFailed
from control_plane.stores.dynamodb.expressions import PRESENT, expr
from control_plane.stores.dynamodb.items import Item, Value
from control_plane.stores.dynamodb.parts import NOWHERE, Entry, Parts

SHAPES_MAX = 100
"""Beyond it shapes share one line, whose rows carry their needs."""
RETIRED_AFTER_S = 600
REMEMBERED_S = 5.0
"""How long a registry is good enough to count with."""
_HASH_DIGITS = 8


def entry(item: Item) -> Entry:
    """The queue of an item."""
    shapes: dict[str, Need | None] = {}
    for name, value in _parts(item, at.SHAPE_PREFIX).items():
        shapes[name] = records.from_text(Need, value) if name != at.ANY_SHAPE else None
    return Entry(
        record=records.from_text(QueueRecord, item[at.PACKED]),
        shapes=shapes,
        retired=_parts(item, at.RETIRED_PREFIX),
        changes=item.get(at.RUN_VERSION, 0),
    )


def _parts(item: Item, prefix: str) -> Mapping[str, Value]:
    found = sorted(name for name in item if name.startswith(prefix))
    return {name.removeprefix(prefix): item[name] for name in found}


def _has_room(queue: Entry, shape: str, need: Need) -> bool:
    """Whether this need may have a line of its own."""
    if shape in queue.shapes:
        return queue.shapes[shape] == need
    return len(queue.shapes) < SHAPES_MAX


def delayed(job: Job) -> Mapping[str, Value]:
    """The place of a job that waits for a time of day."""
    place = at.line_sort(job.priority, job.position, job.id)
    return _parked(job.not_before or job.queued_at, at.DELAYED_ROW, job.queue, place)


def blocked_until(look: datetime, queue: str, place: str) -> Mapping[str, Value]:
    """The place of a job that waits for others, to be looked at no later than then."""
    return _parked(look, at.BLOCKED_ROW, queue, place)


def _parked(until: datetime, kind: str, queue: str, place: str) -> Mapping[str, Value]:
    sort = at.parked_sort(until, kind, queue, place)
    return {**NOWHERE, at.INDEX_PARTITION: at.PARKED, at.INDEX_SORT: sort}


def shape_of(need: Need) -> str:
    """The name of a need's line."""
    return at.short_hash(records.text(need), _HASH_DIGITS)


class Shapes(Parts):
    """Reading queues, and finding a job's place in the index."""

    def _entry(self, name: str) -> Entry | None:
        """A queue, not necessarily as of this moment, unless it seems not to be there."""
        item = self._table.get(*at.queue_key(name), consistent=False)
        item = item or self._table.get(*at.queue_key(name))
        return entry(item) if item else None

    def _entries(self, names: Iterable[str]) -> dict[str, Entry]:
        keys = [at.queue_key(name) for name in names]
        found = self._table.batch_get(keys, consistent=False)
        return {each.record.name: each for each in map(entry, found.values())}

    def _queue(self, name: str) -> Entry:
        """A queue. Raises `NotFound`."""
        found = self._entry(name)
        if found is None:
            raise NotFound(f"there is no queue {name}")
        return found

    def _remember(self, entries: Iterable[Entry]) -> None:
        """Keep what `shared_read` has just read, for the counting that follows it."""
        self._memory.registry = (
            time.monotonic(),
            {each.record.name: each for each in entries},
        )

    def _remembered(self, names: Iterable[str]) -> dict[str, Entry]:
        """The queues of these names, as they were a few seconds ago at worst."""
        known = self._memory.registry
        if known is None or time.monotonic() - known[0] > REMEMBERED_S:
            return self._entries(names)
        return {name: known[1][name] for name in names if name in known[1]}

    def _place(self, job: Job, queue: Entry | None = None) -> Mapping[str, Value]:
        """The index attributes of a job that comes to stand where its state says."""
        if job.state is JobState.BLOCKED:
            place = at.line_sort(job.priority, job.position, job.id)
            return blocked_until(job.queued_at, job.queue, place)
        if job.state is JobState.QUEUED and transitions.held_back(job):
            self._memory.looked = None
            return delayed(job)
        if job.state is JobState.QUEUED:
            return self._in_line(job, queue)
        if records.is_letter(job):
            partition = at.letters_partition(job.queue)
            return {**NOWHERE, at.INDEX_PARTITION: partition, at.INDEX_SORT: job.id}
        return NOWHERE

    def _in_line(self, job: Job, queue: Entry | None = None) -> Mapping[str, Value]:
        """A place in the waiting line."""
        need = job.spec.need
        shape = self._registered(job.queue, need, queue or self._entry(job.queue))
        shard = at.shard_of(job.id, self._settings.ready_shards)
        return {
            at.INDEX_PARTITION: at.line_partition(job.queue, shape, shard),
            at.INDEX_SORT: at.line_sort(job.priority, job.position, job.id),
            at.ROW_NEED: records.text(need) if shape == at.ANY_SHAPE else None,
        }

    def _registered(self, queue: str, need: Need, known: Entry | None) -> str:
        """The shape under which a need stands in a queue's line, known to the registry."""
        shape = shape_of(need)
        if known is not None and not _has_room(known, shape, need):
            shape = at.ANY_SHAPE
        if known is not None and shape in known.shapes and shape not in known.retired:
            return shape
        text = records.text(need) if shape != at.ANY_SHAPE else ""
        self._register(queue, shape, text)
        return shape

    def _register(self, queue: str, shape: str, text: str) -> None:
        name, mark = at.SHAPE_PREFIX + shape, at.RETIRED_PREFIX + shape
        self._memory.registry = None
        try:
            self._table.update(
                *at.queue_key(queue),
                assign={name: text},
                add={at.RUN_VERSION: 1},
                remove=[mark],
                condition=PRESENT,
            )
        except ConditionFailed:
            # The queue was removed a moment ago. A job that is put there all the same is found
            # again when the queue is made again: its registry is waiting for it here.
            self._table.update(*at.removed_queue_key(queue), assign={name: text})

    def _retire_shapes(self, now: datetime) -> None:
        """Mark the shapes whose line was seen empty, and forget those marked long ago."""
        second = int(now.timestamp())
        for name, shape in sorted(self._memory.empty):
            self._memory.empty.discard((name, shape))
            queue = self._remembered([name]).get(name)
            if queue is None or shape not in queue.shapes:
                continue
            due = second - queue.retired.get(shape, 0) > RETIRED_AFTER_S
            if due and self._is_empty(name, shape):
                self._retire(queue, shape, second)

    def _retire(self, queue: Entry, shape: str, second: int) -> None:
        name, mark = queue.record.name, at.RETIRED_PREFIX + shape
        since = queue.retired.get(shape)
        key = at.queue_key(name)
        try:
            if since is None:
                unmarked = expr(f"attribute_exists({at.SHAPE_PREFIX}{shape})")
                self._table.update(*key, assign={mark: second}, condition=unmarked)
            else:
                self._table.update(
                    *key,
                    remove=[mark, at.SHAPE_PREFIX + shape],
                    condition=expr(f"{mark} = :since", since=since),
                )
        except ConditionFailed:
            pass  # a job has come, or another process was faster
        self._memory.registry = None

    def _is_empty(self, queue: str, shape: str) -> bool:
        return not any(
            self._table.query_page(
                at.line_partition(queue, shape, shard), index=at.READY, limit=1
            ).items
            for shard in range(self._settings.ready_shards)
        )
