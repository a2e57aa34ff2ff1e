"""What the parts of the store share: the table, the clock, and what a process remembers.

Nothing remembered is ever decided by. It saves reads; conditions decide.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from control_plane.core.model import Need, QueueRecord
from control_plane.errors import Conflict, NotFound
from control_plane.ports import Clock, HeldFence
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb import records
from control_plane.stores.dynamodb.calls import ConditionFailed
from control_plane.stores.dynamodb.client import TableClient
from control_plane.stores.dynamodb.expressions import expr
from control_plane.stores.dynamodb.items import Item, Value
from control_plane.stores.dynamodb.records import Stored

TRIES = 20
"""How often a change is worked out anew because somebody else was faster."""
BESIDE = timedelta(days=365)
"""What is kept beside a job, and cannot know when that will end, lives this much longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one installation keeps its table."""

    ready_shards: int = 1
    """Partitions of each line. One carries some 500 jobs a second; with more, the order is exact
    within each only. It may grow and never shrink: readers look at this many."""
    retention: timedelta = timedelta(days=90)
    """How long a job is kept after its end."""


class Positions:
    """Places at the bottom of the line: milliseconds since 2025 in steps of 1/1024, never the same
    twice nor backwards in one process. Two processes agree as well as their clocks do. A float of
    this size can be halved some seven times more between two steps, and seventeen times between
    two milliseconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._latest = 0

    def fresh(self) -> float:
        """The next place."""
        microseconds = at.stamp(self._clock.now()) - at.stamp(_FIRST_DAY)
        with self._lock:
            self._latest = max(self._latest + 1, microseconds * 1024 // 1000)
            return self._latest / 1024


_FIRST_DAY = datetime(2025, 1, 1, tzinfo=UTC)


class Numbers:
    """Numbers of events and versions: microseconds since 1970, never the same twice nor backwards
    in one process. Two processes agree as well as their clocks do; a condition keeps them apart."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._latest = 0

    def fresh(self) -> int:
        """The next number."""
        with self._lock:
            self._latest = max(self._latest + 1, at.stamp(self._clock.now()))
            return self._latest

    def after(self, number: int) -> None:
        """Let what comes be larger than this."""
        with self._lock:
            self._latest = max(self._latest, number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One queue with the registry of the shapes in its line."""

    record: QueueRecord
    shapes: Mapping[str, Need | None] = field(default_factory=dict)
    """None for the line that several needs share."""
    retired: Mapping[str, int] = field(default_factory=dict)
    """Since when (second) a shape has had no row."""
    changes: int = 0
    """Counts registrations."""


@dataclass(slots=True)
class Memory:
    """What one process remembers between calls."""

    widths: dict[str, float] = field(default_factory=dict)
    """By queue: among how many places of the head a claim chooses."""
    empty: set[tuple[str, str]] = field(default_factory=set)
    """Queue and shape of lines that were seen without a row."""
    registry: tuple[float, Mapping[str, Entry]] | None = None
    """All queues, and when they were read (monotonic seconds)."""
    looked: tuple[float, datetime] | None = None
    """Up to when what is held back was let go, and when that was (monotonic seconds)."""
    noted: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By attribute of the item of days: what is known to be in it."""
    leases: dict[str, HeldFence] = field(default_factory=dict)
    """Controller leases as they were seen last, by name."""


class Parts:
    """The base of every part of the store."""

    def __init__(self, table: TableClient, clock: Clock, settings: Settings) -> None:
        self._table = table
        self._clock = clock
        self._settings = settings
        self._positions = Positions(clock)
        self._numbers = Numbers(clock)
        self._memory = Memory()
        self._figures = table.figures

    def _note_day(self, name: str, day: str) -> None:
        """See to it that the item of days has this one, before anything is kept under it."""
        known = self._memory.noted[name]
        if day in known:
            return
        item = self._table.get(*at.DAYS, consistent=False) or {}
        if day not in item.get(name, ()):
            self._table.update(*at.DAYS, add={name: frozenset({day})})
        known.add(day)

    def _days(self, name: str) -> list[str]:
        """The days under which something is kept, newest first."""
        item = self._table.get(*at.DAYS) or {}
        return sorted(item.get(name, ()), reverse=True)

    # ------------------------------------------------------------------------------- jobs

    def _read(self, job_id: str) -> Stored:
        """A job as it is. Raises `NotFound`."""
        item = self._table.get(*at.job_key(job_id))
        found = item and self._stored(item)
        if not found:
            raise NotFound(f"there is no job {job_id}")
        return found

    def _read_many(self, job_ids: Iterable[str], *, consistent: bool = True) -> dict[str, Stored]:
        """Those of the jobs that there are."""
        keys = [at.job_key(job_id) for job_id in job_ids]
        items = list(self._table.batch_get(keys, consistent=consistent).values())
        return {record.job.id: record for record in self._stored_all(items)}

    def _stored(self, item: Item) -> Stored | None:
        """The job of an item; None when it has expired."""
        return next(iter(self._stored_all([item])), None)

    def _stored_all(self, items: Iterable[Item]) -> list[Stored]:
        # Expired items are deleted within days, not at once.
        alive = [item for item in items if not self._expired(item)]
        keys = {item["sk"]: key for item in alive if (key := records.spec_key(item))}
        beside = self._table.batch_get(keys.values()) if keys else {}
        found = []
        for item in alive:
            key = keys.get(item["sk"])
            if key is None:
                found.append(records.stored(item))
            elif key in beside:  # without its spec the job itself is just being forgotten
                found.append(records.stored(item, beside[key][at.PACKED]))
        return found

    def _expired(self, item: Item) -> bool:
        return at.TTL in item and item[at.TTL] < self._clock.now().timestamp()

    def _change(
        self, job_id: str, transition: Callable[[Stored], tuple[Stored, Mapping[str, Value]]]
    ) -> Stored:
        """Carry out a transition on a job: it is given the job as it is, and returns what becomes
        of it and which index attributes that takes. One that returns the very record it was given
        changes nothing. Raises `NotFound`, `Conflict`."""
        old = self._read(job_id)
        for _ in range(TRIES):
            new, place = transition(old)
            if new is old:
                return old
            try:
                return self._write(old, new, place)
            except ConditionFailed as failure:
                again = failure.old and self._stored(failure.old)
                if not again:
                    raise NotFound(f"there is no job {job_id}") from None
                old = again
        raise too_busy(f"job {job_id}")

    def _write(self, old: Stored, new: Stored, place: Mapping[str, Value]) -> Stored:
        """Write what has changed, if the job is still at the version of `old`. What another writer
        added meanwhile without counting the version stays. Raises `ConditionFailed`."""
        before = records.attributes(old)
        after = records.attributes(new)
        changed = {name: value for name, value in after.items() if value != before[name]}
        item = self._table.update(
            *at.job_key(old.job.id),
            assign={**changed, **place},
            condition=expr(f"{at.VERSION} = :seen", seen=old.job.version),
        )
        if new.spec_at and new.expires != old.expires:
            # After the end and not before: a job without its spec would be worse than a leftover.
            spec = at.spec_key(new.job.id, new.spec_at)
            self._table.update(*spec, assign={at.TTL: new.expires})
        return replace(new, dependents=item.get(at.DEPENDENTS, frozenset()))

    def _expiry(self) -> int:
        """The second at which a job that ends now is to be forgotten."""
        return int((self._clock.now() + self._settings.retention).timestamp())

    def _expiry_beside(self) -> int:
        return int((self._clock.now() + self._settings.retention + BESIDE).timestamp())


NOWHERE: Mapping[str, Value] = {
    at.INDEX_PARTITION: None,
    at.INDEX_SORT: None,
    at.ROW_NEED: None,
}
"""Not in the index."""


def too_busy(what: str) -> Conflict:
    """After so many tries somebody must be going round in circles."""
    return Conflict(f"{what} is being changed by too many at once", fix="Try again.")
