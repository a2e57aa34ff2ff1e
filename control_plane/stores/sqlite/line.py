"""The line of a queue: its lanes, its order, and a place in it for `placing.spot`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from heapq import merge
from typing import Any

from control_plane.core.model import Job, JobState, Need
from control_plane.stores.sqlite import records, rows

Head = tuple[int, float, str, int, str]
"""The first job of a lane: its priority with the sign turned, position and id, which is the order
of claims; its row and its lane."""
Heads = dict[str, Head]
"""By lane."""
Row = tuple[Any, ...]
Spot = tuple[int, float, str, int, str, str, str | None, str | None]
"""A job in the line: the same, and when it was queued, may start, and was promoted."""
Part = tuple[str, tuple[str, ...]]
"""Some of the jobs with a place in a queue: where they are found, and what that is asked with."""

EVER = "9999"
"""Later than every time."""

_HEAD = "-priority, position, id, rowid, lane"
_SPOT = f"{_HEAD}, queued_at, not_before, promoted_at"
_SPOTS = f"select {_SPOT} from jobs indexed by jobs_ready where queue = ?"
_IN_TIME = "(not_before is null or not_before <= ?)"
"""A look by a clock that was ahead may have let a job go too early."""
_MORE = """exists (
        select 1 from jobs as other indexed by jobs_ready
        where other.queue = head.queue and other.lane > head.lane)"""
NEXT_LANE = f"""
    select {_HEAD}, {_MORE} from jobs as head indexed by jobs_ready
    where queue = ? and lane > ? and {_IN_TIME}
    order by lane, priority desc, position, id limit 1"""
"""The head of the next lane, and whether there is another lane."""
LOOK = f"""
    select machines.state, paused, max_running, max_running_per_owner, exists (
            select 1 from jobs indexed by jobs_delayed
            where {rows.DELAYED} and queue = queues.name and not_before <= ?3),
        -head.priority, head.position, head.id, head.rowid, head.lane, {_MORE}
    from machines left join queues on queues.name = ?2
        left join jobs as head on head.rowid = (
            select rowid from jobs indexed by jobs_ready
            where queue = ?2 and lane > '' and {_IN_TIME.replace("?", "?3")}
            order by lane, priority desc, position, id limit 1)
    where machines.id = ?1"""
"""What a claim has to know of its machine and of a queue, with the head of its first lane."""
SAME_LANE = f"""
    select {_HEAD} from jobs indexed by jobs_ready where queue = ? and lane = ? and {_IN_TIME}
    order by priority desc, position, id limit 1"""
LANE = f"{_SPOTS} and lane = ? order by priority desc, position, id"
LANE_BEHIND = f"""{_SPOTS} and lane = ? and priority <= ?
    and (priority < ? or (position, id) > (?, ?)) order by priority desc, position, id"""

_LANE_OF = """need || case when (
    select max_running_per_owner from queues where name = ?1) is null then '' else owner end"""
DUE = f"""select {_SPOT.replace("lane", _LANE_OF)} from jobs indexed by jobs_delayed
    where {rows.DELAYED} and queue = ?1 and not_before <= ?2
    order by priority desc, position, id"""
LET_DUE_GO = f"""
    update jobs set lane = {_LANE_OF}
    where rowid in (
        select rowid from jobs indexed by jobs_delayed
        where {rows.DELAYED} and queue = ?1 and not_before <= ?2
        order by not_before, id limit ?3)"""


@lru_cache(maxsize=4096)
def lane_parts(lane: str) -> tuple[Need, str]:
    """The need of the jobs in a lane, and their owner where the queue limits each owner."""
    _, end = json.JSONDecoder().raw_decode(lane)
    return rows.need_of(lane[:end]), lane[end:]


def heads(tx: sqlite3.Connection, queue: str, now: str, first: Row | None = None) -> Heads:
    """The first job of each lane that may start now: one look per lane, however many wait. `first`
    is what `LOOK` has told of the first lane."""
    found: Heads = {}
    row = first or tx.execute(NEXT_LANE, (queue, "", now)).fetchone()
    while row is not None:
        *_, lane, more = row
        found[lane] = row[:-1]
        row = tx.execute(NEXT_LANE, (queue, lane, now)).fetchone() if more else None
    return found


def next_head(tx: sqlite3.Connection, queue: str, lane: str, now: str) -> Head | None:
    """The first job of one lane that may start now."""
    head: Head | None = tx.execute(SAME_LANE, (queue, lane, now)).fetchone()
    return head


def waited_since(spot: Spot) -> str:
    """Since when a job has waited for a machine."""
    *_, queued_at, not_before, _ = spot
    return max(queued_at, not_before or "")


def ages_since(spot: Spot) -> str:
    """Since when a job has waited at its priority."""
    return max(waited_since(spot), spot[7] or "")


def lanes(tx: sqlite3.Connection, queue: str) -> list[str]:
    """All lanes of a queue that are not empty."""
    return list(heads(tx, queue, EVER))


def in_lane(tx: sqlite3.Connection, queue: str, lane: str) -> Iterator[Spot]:
    """The jobs of one lane in the order of claims. Take what you need: no more is read."""
    return tx.execute(LANE, (queue, lane))


def in_order(
    tx: sqlite3.Connection, queue: str, behind: tuple[int, float, str] | None = None
) -> Iterator[Spot]:
    """The jobs of the line in the order of claims, or those behind a place in it. Take what you
    need: no more is read."""
    if behind is None:
        return merge(*(in_lane(tx, queue, lane) for lane in lanes(tx, queue)))
    turned, position, job_id = behind
    place = (-turned, -turned, position, job_id)
    return merge(*(tx.execute(LANE_BEHIND, (queue, lane, *place)) for lane in lanes(tx, queue)))


def due(tx: sqlite3.Connection, queue: str, now: str) -> list[Spot]:
    """Delayed jobs whose time has come and whom no look has let go yet, as if they stood in the
    line."""
    return tx.execute(DUE, (queue, now)).fetchall()


def let_due_go(tx: sqlite3.Connection, queue: str, now: str, *, limit: int) -> int:
    """Put delayed jobs of a queue whose time has come into the line; returns how many."""
    return tx.execute(LET_DUE_GO, (queue, now, limit)).rowcount


def fresh_position(tx: sqlite3.Connection) -> float:
    """A position behind every other; never the same twice."""
    tx.execute("update counters set value = value + 1 where name = 'position'")
    return float(tx.execute("select value from counters where name = 'position'").fetchone()[0])


class SqliteLine:
    """`placing.Line` inside an open transaction.

    Jobs outside the line (delayed, blocked, held) keep their place in it: they may come back."""

    def __init__(self, tx: sqlite3.Connection, queue: str) -> None:
        self._tx = tx
        self._queue = queue
        self._waiting: Sequence[Part] = (
            *((_OF_LANE, (lane,)) for lane in lanes(tx, queue)),
            (_DELAYED, ()),
        )
        self._placed: Sequence[Part] = (*self._waiting, (_BLOCKED, ()), (_HELD, ()))

    def waiting(self, job_id: str) -> Job | None:
        job = records.find(self._tx, job_id)
        waits = job is not None and job.queue == self._queue and job.state is JobState.QUEUED
        return job if waits else None

    def priorities(self) -> tuple[int, int] | None:
        lowest = self._figures(self._waiting, "min(priority)")
        highest = self._figures(self._waiting, "max(priority)")
        return (int(min(lowest)), int(max(highest))) if lowest else None

    def first(self, priority: int) -> float | None:
        found = self._figures(self._placed, "min(position)", "priority = ?", priority)
        return min(found, default=None)

    def beside(self, job: Job, *, before: bool) -> float | None:
        pick, sign = ("max", "<") if before else ("min", ">")
        found = self._figures(
            self._placed,
            f"{pick}(position)",
            f"priority = ? and (position, id) {sign} (?, ?)",
            *(job.priority, job.position, job.id),
        )
        return (max if before else min)(found, default=None)

    def fresh(self) -> float:
        return fresh_position(self._tx)

    def respace(self, priority: int) -> None:
        placed = sorted(
            spot
            for part in self._placed
            for spot in self._ask(part, "position, id", "priority = ?", priority)
        )
        for _, job_id in placed:
            self._tx.execute(
                "update jobs set position = ?, version = version + 1 where id = ?",
                (self.fresh(), job_id),
            )

    def _figures(
        self, parts: Sequence[Part], what: str, where: str = "true", *bound: rows.Value
    ) -> list[float]:
        """One figure of each part that has it."""
        found = (self._ask(part, what, where, *bound)[0][0] for part in parts)
        return [figure for figure in found if figure is not None]

    def _ask(self, part: Part, what: str, where: str, *bound: rows.Value) -> list[tuple[Any, ...]]:
        clause, named = part
        return self._tx.execute(
            f"select {what} from jobs indexed by {clause} and queue = ? and {where}",
            (*named, self._queue, *bound),
        ).fetchall()


_OF_LANE = "jobs_ready where lane = ?"
_DELAYED = f"jobs_delayed where {rows.DELAYED}"
_BLOCKED = "jobs_blocked where state = 'blocked'"
_HELD = f"jobs_held where {rows.HELD}"
