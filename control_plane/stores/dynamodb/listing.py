"""Listing jobs: newest first by walking back over the days, and three shorter ways.

What waits in one queue is listed from its line, what machines have from their lists, dead letters
of a queue from the index. A page costs no more than it shows plus a bounded look for what it may
show; where that ends too early the page is short and has a cursor.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from control_plane.core.lifecycle import DEAD_LETTERS
from control_plane.core.model import Job, JobState
from control_plane.ports import Page
from control_plane.stores import cursors, transitions
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb.items import Item
from control_plane.stores.dynamodb.line import Lines, everything, in_order
from control_plane.stores.dynamodb.parts import Entry
from control_plane.stores.dynamodb.runs import Runs

LOOK_MAX = 1000
"""Jobs that one page looks at, at most."""
DAYS_MAX = 14
"""Days that one page looks at, at most: each costs a read per shard, also when it is empty."""
_READ = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a listing shows."""

    queue: str
    states: frozenset[JobState]
    machine_id: str

    @property
    def scope(self) -> cursors.Scope:
        return ("jobs", self.queue, ",".join(sorted(self.states)), self.machine_id)

    def shows(self, job: Job) -> bool:
        return (
            self.queue in ("", job.queue)
            and self.machine_id in ("", job.machine_id)
            and (not self.states or job.state in self.states)
        )


Found = tuple[str, Job | None]
"""Where a listing stands (its cursor's key), and what it has found there, if anything."""


class Listing(Lines, Runs):
    """The part of `ports.JobStore` that lists."""

    def job_list(
        self,
        *,
        queue: str = "",
        states: frozenset[JobState] = frozenset(),
        machine_id: str = "",
        cursor: str = "",
        limit: int = 100,
    ) -> Page[Job]:
        wanted = Wanted(queue=queue, states=states, machine_id=machine_id)
        behind: str = cursors.read(wanted.scope, cursor, ("",))[0] if cursor else ""
        if states and states <= transitions.HELD:
            return _page(wanted, self._held_jobs(behind), limit)
        if queue and states == {JobState.QUEUED} and not machine_id:
            return _page(wanted, self._waiting_jobs(queue, behind, limit), limit)
        if queue and states and states <= DEAD_LETTERS:
            return _page(wanted, self._letters(queue, behind, limit), limit)
        return _page(wanted, self._newest(behind, limit), limit)

    def _held_jobs(self, behind: str) -> Iterator[Found]:
        jobs = sorted((each.job for each in self._all_held()), key=lambda job: job.id, reverse=True)
        return ((job.id, job) for job in jobs if not behind or job.id < behind)

    def _letters(self, queue: str, behind: str, limit: int) -> Iterator[Found]:
        rows = self._table.query(
            at.letters_partition(queue),
            sk_between=(at.FIRST, behind or at.LAST),
            index=at.READY,
            forward=False,
            page_size=limit + 2,
        )
        ids = (row["sk"] for row in rows if row["sk"] != behind)
        return self._jobs_of((job_id, job_id) for job_id in ids)

    def _waiting_jobs(self, queue: str, behind: str, limit: int) -> Iterator[Found]:
        """The line in claim order, then the delayed jobs by their time."""
        entry = self._entry(queue)
        if entry is None:
            return iter(())
        return self._jobs_of(self._waiting_places(entry, behind, limit))

    def _waiting_places(self, queue: Entry, behind: str, limit: int) -> Iterator[tuple[str, str]]:
        if not behind.startswith(_DELAYED):
            after = behind.removeprefix(_IN_LINE)
            streams = self._streams(queue, after=after, page=limit + 1)
            for row in in_order(streams, everything):
                yield _IN_LINE + row.sort, row.job_id
        after = behind.removeprefix(_DELAYED) if behind.startswith(_DELAYED) else ""
        for parked in self._parked_rows():
            delayed = parked.queue == queue.record.name and parked.kind == at.DELAYED_ROW
            if delayed and parked.sort > after:
                yield _DELAYED + parked.sort, parked.job_id

    def _jobs_of(self, places: Iterable[tuple[str, str]]) -> Iterator[Found]:
        """The jobs of index rows, read some at a time; the index may lag behind them."""
        places = iter(places)
        while some := list(islice(places, _READ)):
            jobs = self._read_many((job_id for _, job_id in some), consistent=False)
            for place, job_id in some:
                found = jobs.get(job_id)
                yield place, found.job if found else None

    # --------------------------------------------------------------------- newest by id

    def _newest(self, behind: str, limit: int) -> Iterator[Found]:
        """Day after day backwards; the end of each stands for itself, so a page can end there."""
        last_day, _, last_id = behind.partition("/")
        for day in self._days(at.PACKED):
            if behind and day > last_day:
                continue
            before = last_id if day == last_day else ""
            if before == _DONE:
                continue
            for item in self._day(day, before, limit):
                job = self._stored(item)
                yield f"{day}/{item['sk']}", job.job if job else None
            yield f"{day}/{_DONE}", None

    def _day(self, day: str, before: str, limit: int) -> Iterator[Item]:
        shards = [
            self._table.query(
                at.jobs_of(day, shard),
                sk_between=(at.FIRST, before or at.LAST),
                forward=False,
                page_size=limit + 2,
            )
            for shard in range(at.SHARDS)
        ]
        merged = heapq.merge(*shards, key=lambda item: item["sk"], reverse=True)
        return (item for item in merged if item["sk"] != before)


_IN_LINE = "l"
_DELAYED = "t"
_DONE = "!"
"""Sorts before every id: all of the day has been seen."""


def _page(wanted: Wanted, found: Iterator[Found], limit: int) -> Page[Job]:
    """The next jobs that a listing shows, and a cursor unless it is known that there are no more.
    Raises `InvalidInput` for a cursor of another listing."""
    jobs: list[Job] = []
    place = ""
    days = 0
    for looked_at, (here, job) in enumerate(found, start=1):
        if job is not None and wanted.shows(job):
            if len(jobs) == limit:
                return Page(items=tuple(jobs), cursor=cursors.write(wanted.scope, (place,)))
            jobs.append(job)
        place = here
        days += here.endswith("/" + _DONE)
        if looked_at >= max(LOOK_MAX, limit) or days >= DAYS_MAX:
            return Page(items=tuple(jobs), cursor=cursors.write(wanted.scope, (place,)))
    return Page(items=tuple(jobs))
