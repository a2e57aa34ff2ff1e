"""What waits, counted for the planner: by priority and need, as far as it may start now."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import merge

from control_plane.core.model import Need, WaitingGroup
from control_plane.stores.limits import Room
from control_plane.stores.sqlite import claims, line, rows

LIMITS = "select max_running, max_running_per_owner from queues where name = ?"
_IN_LANE = """from jobs indexed by jobs_ready
    where queue = ?1 and lane = ?2 and (not_before is null or not_before <= ?3)"""
_FIGURES = "priority, min(position), count(*), sum(queued_at <= ?4), min(queued_at)"
_AGED = "min(max(queued_at, coalesce(not_before, ''), coalesce(promoted_at, '')))"
MORE = f"select 1 {_IN_LANE} limit 1 offset ?4"
COUNT = f"""
    select {_FIGURES}, min(queued_at), count(not_before) + count(promoted_at) {_IN_LANE}
    group by priority order by priority desc"""
"""All jobs of a lane, in the order of the index; and how many have waited for less long at their
priority than since they were queued. To find since when takes as long again, and mostly there are
none."""
COUNT_AGED = f"select {_FIGURES}, {_AGED}, 0 {_IN_LANE} group by priority order by priority desc"
COUNT_FIRST = f"""
    select {_FIGURES}, {_AGED}
    from (
        select priority, queued_at, not_before, promoted_at, position {_IN_LANE}
        order by priority desc, position, id limit ?5)
    group by priority order by priority desc"""
"""The first jobs of a lane."""

Kind = tuple[int, Need]
"""Priority and need."""


@dataclass(slots=True)
class _Tally:
    """Jobs of one kind, counted so far."""

    first: float
    """The lowest position: that of the first to be claimed."""
    count: int = 0
    ripe: int = 0
    oldest_at: str = line.EVER
    aged_at: str = line.EVER
    exact: bool = True

    def add(self, spot: line.Spot, ripe_before: str) -> None:
        """Count one more."""
        queued_at = spot[5]
        self.count += 1
        self.ripe += queued_at <= ripe_before
        self.oldest_at = min(self.oldest_at, queued_at)
        self.aged_at = min(self.aged_at, line.ages_since(spot))


def groups(
    tx: sqlite3.Connection, queue: str, ripe_before: datetime, now: datetime, limit: int
) -> list[WaitingGroup]:
    """The groups of one queue in the order in which the first job of each would be claimed."""
    limits = tx.execute(LIMITS, (queue,)).fetchone()
    if limits is None:
        return []
    look = _Look(tx, queue, rows.text(ripe_before), rows.text(now), limit)
    room = claims.room(tx, queue, *limits)
    due = line.due(tx, queue, look.now)
    # Job by job only where it matters which of them may start.
    if room is None and not due:
        tallies = look.by_lane()
    else:
        no_limits = Room(max_running=None, max_running_per_owner=None)
        tallies = look.one_by_one(room or no_limits, due)
    in_order = sorted(tallies.items(), key=lambda each: (-each[0][0], each[1].first))
    return [_group(queue, *each) for each in in_order]


@dataclass(slots=True)
class _Look:
    """Counting one queue at one time."""

    tx: sqlite3.Connection
    queue: str
    ripe_before: str
    now: str
    limit: int

    def by_lane(self) -> dict[Kind, _Tally]:
        tallies: dict[Kind, _Tally] = {}
        for lane in line.lanes(self.tx, self.queue):
            need, _ = line.lane_parts(lane)
            tallies |= {(priority, need): tally for priority, tally in self._lane(lane)}
        return tallies

    def _lane(self, lane: str) -> list[tuple[int, _Tally]]:
        """The jobs of a lane by priority."""
        bound = (self.queue, lane, self.now, self.ripe_before)
        if self.tx.execute(MORE, (*bound[:3], self.limit)).fetchone() is not None:
            first = self.tx.execute(COUNT_FIRST, (*bound, self.limit))
            found = [(priority, _Tally(*figures)) for priority, *figures in first]
            found[-1][1].exact = False
            return found
        rows_ = self.tx.execute(COUNT, bound).fetchall()
        if any(others for *_, others in rows_):
            rows_ = self.tx.execute(COUNT_AGED, bound).fetchall()
        return [(priority, _Tally(*figures)) for priority, *figures, _ in rows_]

    def one_by_one(self, room: Room, due: Sequence[line.Spot]) -> dict[Kind, _Tally]:
        tallies: dict[Kind, _Tally] = {}
        counted: Counter[Need] = Counter()
        last: dict[Need, _Tally] = {}
        lanes = (self._admitted(lane, room) for lane in line.lanes(self.tx, self.queue))
        for spot in merge(*lanes, due):
            need, owner = line.lane_parts(spot[4])
            if not room.admits(owner):
                continue
            room.take(owner)
            counted[need] += 1
            if counted[need] > self.limit:
                last[need].exact = False
                continue
            last[need] = tallies.setdefault((-spot[0], need), _Tally(spot[1]))
            last[need].add(spot, self.ripe_before)
        return tallies

    def _admitted(self, lane: str, room: Room) -> Iterator[line.Spot]:
        """The jobs of a lane as long as there is room for one more of them."""
        _, owner = line.lane_parts(lane)
        for spot in line.in_lane(self.tx, self.queue, lane):
            if not room.admits(owner):
                return
            if (spot[6] or "") <= self.now:
                yield spot


def _group(queue: str, kind: Kind, tally: _Tally) -> WaitingGroup:
    priority, need = kind
    return WaitingGroup(
        queue=queue,
        priority=priority,
        need=need,
        count=tally.count,
        ripe=tally.ripe,
        oldest_at=datetime.fromisoformat(tally.oldest_at),
        aged_at=datetime.fromisoformat(tally.aged_at),
        exact=tally.exact,
    )
