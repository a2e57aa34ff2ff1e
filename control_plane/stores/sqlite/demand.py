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
COUNT = """
    select priority, min(position), count(*), sum(queued_at <= ?), min(queued_at),
        min(max(queued_at, coalesce(not_before, ''), coalesce(promoted_at, '')))
    from (
        select priority, queued_at, not_before, promoted_at, position
        from jobs indexed by jobs_ready
        where queue = ? and lane = ? and (not_before is null or not_before <= ?)
        order by priority desc, position, id limit ?)
    group by priority order by priority desc"""
MORE = """
    select 1 from jobs indexed by jobs_ready
    where queue = ? and lane = ? and (not_before is null or not_before <= ?)
    limit 1 offset ?"""

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
            found = self.tx.execute(
                COUNT, (self.ripe_before, self.queue, lane, self.now, self.limit)
            )
            of_lane = {(priority, need): _Tally(*figures) for priority, *figures in found}
            if sum(tally.count for tally in of_lane.values()) == self.limit and self._more(lane):
                list(of_lane.values())[-1].exact = False
            tallies |= of_lane
        return tallies

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

    def _more(self, lane: str) -> bool:
        bound = (self.queue, lane, self.now, self.limit)
        return self.tx.execute(MORE, bound).fetchone() is not None


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
