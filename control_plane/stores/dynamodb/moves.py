"""Moving a waiting job elsewhere: the line as `placing.spot` sees it.

Nothing locks the line. Two moves to one place at the same time may get one position, and then stand
in order of their ids; each job is where its own move put it, in any case.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from control_plane.core.model import Job, JobState
from control_plane.ports import Place
from control_plane.stores import transitions
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb import shapes
from control_plane.stores.dynamodb.calls import ConditionFailed
from control_plane.stores.dynamodb.items import Value
from control_plane.stores.dynamodb.line import ROWS_PER_READ, Lines
from control_plane.stores.dynamodb.parts import TRIES, Entry, too_busy
from control_plane.stores.dynamodb.records import Stored
from control_plane.stores.dynamodb.runs import Runs
from control_plane.stores.placing import spot

NEIGHBOURHOOD = 64
"""How many jobs are numbered anew where no number is left between two of them."""
_STEP = 2.0**-6
"""Room enough for ten more moves into one gap, at a place of eleven digits."""

_PLACED = frozenset({JobState.QUEUED, JobState.BLOCKED})


class Moves(Lines, Runs):
    """The part of `ports.JobStore` that changes the order."""

    def job_move(
        self,
        job_id: str,
        *,
        queue: str,
        place: Place,
        expected_version: int | None,
        now: datetime,  # noqa: ARG002 - part of the port: a store may stamp its rows
    ) -> Job:
        for _ in range(TRIES):
            old = self._read(job_id)
            transitions.movable(old.job, expected_version)
            line = Line(self, self._queue(queue))
            priority, position = spot(line, old.job, place)
            if job_id in line.renumbered:
                old = line.renumbered[job_id]
            moved = replace(
                old.job,
                queue=queue,
                priority=priority,
                position=position,
                version=old.job.version + 1,
            )
            with suppress(ConditionFailed):
                new = replace(old, job=moved)
                return self._write(old, new, self._replaced(new, line.queue)).job
        raise too_busy(f"job {job_id}")

    def _replaced(self, waiting: Stored, queue: Entry | None = None) -> Mapping[str, Value]:
        """The index attributes of a waiting or held job whose place has changed: what is held back
        stays so."""
        job = waiting.job
        if waiting.held:
            return {}
        if job.state is JobState.BLOCKED:
            return self._place(job)
        return shapes.delayed(job) if waiting.parked else self._in_line(job, queue)


@dataclass(frozen=True, slots=True, order=True)
class Spot:
    """A job with a place in the line."""

    position: float
    job_id: str


class Line:
    """`placing.Line` over the index. Held, delayed and blocked jobs have their places too."""

    def __init__(self, store: Moves, queue: Entry) -> None:
        self.queue = queue
        self.renumbered: dict[str, Stored] = {}
        self._store = store
        self._neighbour: Spot | None = None
        self._others: list[tuple[int, Spot]] | None = None

    def waiting(self, job_id: str) -> Job | None:
        found = self._store._read_many([job_id]).get(job_id)
        if found is None or found.job.queue != self.queue.record.name:
            return None
        return found.job if found.job.state is JobState.QUEUED else None

    def priorities(self) -> tuple[int, int] | None:
        ends = [
            row.priority
            for forward in (True, False)
            for stream in self._store._streams(self.queue, page=1, forward=forward)
            if (row := next(stream.rows, None))
        ]
        ends += [
            at.line_place(row.place)[0]
            for row in self._store._parked_rows()
            if row.queue == self.queue.record.name and row.kind == at.DELAYED_ROW
        ]
        return (min(ends), max(ends)) if ends else None

    def first(self, priority: int) -> float | None:
        found = next(self._behind(priority, None), None)
        return None if found is None else found.position

    def beside(self, job: Job, *, before: bool) -> float | None:
        self._neighbour = Spot(job.position, job.id)
        side = self._ahead if before else self._behind
        found = next(side(job.priority, self._neighbour), None)
        return None if found is None else found.position

    def fresh(self) -> float:
        return self._store._positions.fresh()

    def respace(self, priority: int) -> None:
        """Only around the neighbour: the line may be long."""
        assert self._neighbour is not None, "only a place beside a job can be too narrow"
        reach = NEIGHBOURHOOD // 2
        while True:
            low, spots, high = self._around(priority, self._neighbour, reach)
            step = (high - low) / (len(spots) + 1)
            if step >= _STEP or len(spots) < reach:
                break
            reach *= 4
        for number, spot_ in enumerate(spots, start=1):
            self._renumber(spot_.job_id, low + step * number)
        self._others = None

    def _around(self, priority: int, middle: Spot, reach: int) -> tuple[float, list[Spot], float]:
        """Those within reach on both sides, and the positions between which they may be spread."""
        ahead, behind = self._ahead(priority, middle), self._behind(priority, middle)
        before = [found for _, found in zip(range(reach), ahead, strict=False)]
        after = [found for _, found in zip(range(reach), behind, strict=False)]
        spots = [*reversed(before), middle, *after]
        last, first = next(behind, None), next(ahead, None)
        low = first.position if first else spots[0].position - len(spots)
        return low, spots, last.position if last else self.fresh()

    def _renumber(self, job_id: str, position: float) -> None:
        store = self._store
        for _ in range(TRIES):
            old = store._read_many([job_id]).get(job_id)
            if old is None or not (old.held or old.job.state in _PLACED):
                return
            job = replace(old.job, position=position, version=old.job.version + 1)
            new = replace(old, job=job)
            with suppress(ConditionFailed):
                self.renumbered[job_id] = store._write(old, new, store._replaced(new, self.queue))
                return
        raise too_busy(f"job {job_id}")

    def _behind(self, priority: int, spot_: Spot | None) -> Iterator[Spot]:
        """Spots behind this one, or all, in order."""
        prefix = at.priority_prefix(priority)
        after = at.line_sort(priority, spot_.position, spot_.job_id) if spot_ else prefix
        rows = self._rows(after=after, before=prefix + at.LAST)
        others = [each for each in self._elsewhere(priority) if spot_ is None or each > spot_]
        return heapq.merge(rows, sorted(others))

    def _ahead(self, priority: int, spot_: Spot) -> Iterator[Spot]:
        """Spots before this one, nearest first."""
        prefix = at.priority_prefix(priority)
        before = at.line_sort(priority, spot_.position, spot_.job_id)
        rows = self._rows(after=prefix, before=before, forward=False)
        others = [each for each in self._elsewhere(priority) if each < spot_]
        return heapq.merge(rows, sorted(others, reverse=True), reverse=True)

    def _rows(self, *, after: str, before: str, forward: bool = True) -> Iterator[Spot]:
        streams = self._store._streams(
            self.queue, page=ROWS_PER_READ, after=after, before=before, forward=forward
        )
        merged = heapq.merge(
            *(stream.rows for stream in streams), key=lambda row: row.sort, reverse=not forward
        )
        return (Spot(row.position, row.job_id) for row in merged)

    def _elsewhere(self, priority: int) -> list[Spot]:
        """Held, delayed and blocked jobs of this queue and priority."""
        if self._others is None:
            name = self.queue.record.name
            held = [each.job for each in self._store._all_held() if each.job.queue == name]
            self._others = [(job.priority, Spot(job.position, job.id)) for job in held]
            self._others += [
                (place[0], Spot(*place[1:]))
                for row in self._store._parked_rows()
                if row.queue == name
                for place in (at.line_place(row.place),)
            ]
        return [found for each, found in self._others if each == priority]
