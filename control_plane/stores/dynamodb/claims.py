"""Claiming: rows of the index are candidates, a condition on each job decides.

The order of the steps is what makes it safe. The machine's run lists the candidates, on condition
that it is open; then the jobs are leased; then the run is read again. So a lease is listed before
it exists, and whoever closes a machine and then reads its list either sees the lease or has the
claim see that it is closed, and give it back. A crash anywhere leaves a list that says too much.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice

from control_plane.core.model import Capacity, Job, JobState, Lease, Need
from control_plane.errors import NotFound, StaleEpoch
from control_plane.ports import CLAIM_WINDOW, Ending
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb.calls import ConditionFailed
from control_plane.stores.dynamodb.endings import Endings
from control_plane.stores.dynamodb.expressions import expr
from control_plane.stores.dynamodb.limits import REQUEST_S, limits_value
from control_plane.stores.dynamodb.line import Row, in_order
from control_plane.stores.dynamodb.parts import Entry
from control_plane.stores.dynamodb.records import Stored
from control_plane.stores.dynamodb.runs import Runs, leases
from control_plane.stores.limits import Room

ROUNDS = 8
"""How often a claim that lost all its races looks at the line again."""
SPARES = 1
"""Candidates beyond those wanted: a lost race then costs no second listing."""
READ_AHEAD = 24
"""Rows read beyond those wanted, to draw the spares from; with these a page is still the smallest
read."""
_WIDER = 4.0
_WIDE = CLAIM_WINDOW / 2
_NARROWER = 0.9
"""A single claimer never loses a race, so one lost race means company and makes the choice wide at
once; clean claims narrow it until the order is exact again. Fifty that begin at the same instant
waste some 1.6 writes each in their first claim and 0.2 in all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picks:
    """Candidates of one queue."""

    queue: Entry
    wanted: Sequence[Row]
    spares: Sequence[Row]


@dataclass(slots=True)
class Left:
    """What a claim may still take."""

    free: Capacity
    count: int
    had: frozenset[tuple[str, int]] = frozenset()
    """Leases the machine has or had: the index may still show their jobs as waiting."""

    def take(self, need: Need) -> None:
        self.free = self.free.less(need)
        self.count -= 1


class Claims(Endings, Runs):
    """The part of `ports.JobStore` that gives jobs to machines."""

    _chance: random.Random = random.SystemRandom()

    def job_claim(
        self,
        machine_id: str,
        queues: Sequence[str],
        free: Capacity,
        *,
        limit: int,
        now: datetime,
    ) -> Sequence[Job]:
        self._let_delayed_go(now, queues)
        for _ in range(ROUNDS):
            run = self._run(machine_id)
            if run is None:
                self._check_machine(machine_id)
                return ()
            if run.closed or limit <= 0:
                return ()
            books = self._books([run])[machine_id]
            picks = self._pick(queues, Left(free, limit, books.leases), now)
            if not picks:
                return ()
            second = int(self._clock.now().timestamp())
            tokens = [_token(row, second) for row in _all(picks)]
            if self._list(run, books, tokens, now) is None:
                continue  # another call for this machine came in between
            claimed = self._take(machine_id, picks, Left(free, limit), second, now)
            if claimed:
                return self._sure(machine_id, claimed, now)
        return ()

    def _check_machine(self, machine_id: str) -> None:
        """Raise `NotFound` for a machine that never was."""
        if self._table.get(*at.ended_machine_key(machine_id)) is None:
            raise NotFound(f"there is no machine {machine_id}")

    # --------------------------------------------------------------------------- choosing

    def _pick(self, queues: Sequence[str], left: Left, now: datetime) -> list[Picks]:
        entries = self._entries(dict.fromkeys(queues))
        picked: list[Picks] = []
        for name in dict.fromkeys(queues):
            queue = entries.get(name)
            if left.count <= 0:
                break
            if queue is not None and not queue.record.paused:
                picks = self._pick_from(queue, left, now)
                if picks.wanted:
                    picked.append(picks)
        return picked

    def _pick_from(self, queue: Entry, left: Left, now: datetime) -> Picks:
        """Candidates in claim order, drawn from the first `width` places where several claimers
        have met lately."""
        width = round(self._memory.widths.get(queue.record.name, 1.0))
        room = self._room(queue.record)
        ahead = max(width, left.count) + READ_AHEAD
        streams = self._streams(queue, wanted=left.free.fits, page=ahead)
        rows = (
            row
            for row in in_order(streams, lambda need: left.free.fits(need))
            if row.may_start(now)
            and room.admits(row.owner)
            and (row.job_id, row.epoch + 1) not in left.had
        )
        head = list(islice(rows, ahead))  # while all of the machine's room is still there
        drawn = self._shuffled(head[:width]) + head[width:]
        wanted = _fitting(chain(drawn, rows), left, room)
        others = [row for row in head if row not in wanted and row.priority == head[0].priority]
        spares = self._chance.sample(others, min(SPARES, len(others)))
        return Picks(queue=queue, wanted=wanted, spares=spares)

    def _shuffled(self, rows: list[Row]) -> list[Row]:
        """The rows of the first priority in any order, the others behind them as they are."""
        first = [row for row in rows if row.priority == rows[0].priority]
        rest = rows[len(first) :]
        self._chance.shuffle(first)
        return first + rest

    # ----------------------------------------------------------------------------- taking

    def _take(
        self, machine_id: str, picks: Sequence[Picks], left: Left, second: int, now: datetime
    ) -> list[Stored]:
        """Lease the candidates that still wait. A spare is tried only in place of a lost one."""
        claimed: list[Stored] = []
        # What was announced longer ago than a request lives may be off the machine's list.
        latest = second + REQUEST_S / 2
        for each in picks:
            lost = 0
            for row in chain(each.wanted, each.spares):
                tried = row in each.wanted or lost > 0
                if not tried or left.count <= 0 or not left.free.fits(row.need):
                    continue
                if self._clock.now().timestamp() > latest:
                    return claimed
                mark = at.entry_mark(second, self._chance.getrandbits(20))
                entry = at.entry(row.job_id, row.epoch + 1, mark)
                flags = self._enter(each.queue.record, row.owner, entry)
                if flags is None:
                    continue
                job = self._lease(row, machine_id, limits_value(mark, flags), now)
                if job is None:
                    lost += 1
                    self._strike(row.queue, row.owner, flags, entry)
                else:
                    left.take(row.need)
                    claimed.append(job)
            self._learn(each.queue.record.name, lost)
        return claimed

    def _lease(self, row: Row, machine_id: str, limits: int | None, now: datetime) -> Stored | None:
        """Take one job; None when it no longer waits in the line where its row was."""
        waits = expr(
            f"{at.STATE} = :queued AND {at.EPOCH} = :epoch AND {at.INDEX_PARTITION} = :line",
            queued=JobState.QUEUED.value,
            epoch=row.epoch,
            line=row.partition,
        )
        with suppress(ConditionFailed):
            item = self._table.update(
                *row.key,
                assign={
                    at.STATE: JobState.LEASED.value,
                    at.EPOCH: row.epoch + 1,
                    at.MACHINE: machine_id,
                    at.LEASED_AT: at.stamp(now),
                    at.LIMITS: limits,
                },
                add={at.VERSION: 1, at.ATTEMPT: 1},
                remove=[at.INDEX_PARTITION, at.INDEX_SORT, at.ROW_NEED, at.REASON],
                condition=waits,
            )
            return self._stored(item)
        return None

    def _learn(self, queue: str, lost: int) -> None:
        """Choose among more places after a lost race, among fewer after none."""
        width = self._memory.widths.get(queue, 1.0)
        if lost:
            self._memory.widths[queue] = min(CLAIM_WINDOW, max(_WIDE, width * _WIDER))
        else:
            self._memory.widths[queue] = max(1.0, width * _NARROWER)

    def _sure(self, machine_id: str, claimed: Sequence[Stored], now: datetime) -> Sequence[Job]:
        """The claimed jobs, unless the machine was closed meanwhile or the list has lost them: then
        they are given back to their places."""
        run = self._run(machine_id)
        listed = {at.token_parts(token)[:2] for token in run.held} if run else set()
        mine = {(each.job.id, each.job.epoch) for each in claimed}
        if run is not None and not run.closed and mine <= listed:
            return tuple(each.job for each in claimed)
        for each in claimed:
            job = each.job
            returned = Ending(outcome="returned")
            with suppress(StaleEpoch):  # whoever closed the machine has done it already
                self.job_requeue(job.id, job.epoch, returned, need=job.spec.need, now=now)
        return ()

    # ---------------------------------------------------------------------------- leases

    def job_leases(self, *, machine_id: str = "") -> Sequence[Lease]:
        if machine_id:
            run = self._run(machine_id)
            return leases(self._books([run]).values()) if run else ()
        _, runs = self._all_runs()
        return leases(self._books(runs).values())


def _token(row: Row, second: int) -> str:
    return at.token(row.job_id, row.epoch + 1, second)


def _all(picks: Sequence[Picks]) -> Iterator[Row]:
    return (row for each in picks for row in (*each.wanted, *each.spares))


def _fitting(rows: Iterator[Row], left: Left, room: Room) -> list[Row]:
    """As many as fit side by side, first come first served."""
    chosen: list[Row] = []
    if left.count <= 0:
        return chosen
    for row in rows:
        if left.free.fits(row.need) and room.admits(row.owner):
            left.take(row.need)
            room.take(row.owner)
            chosen.append(row)
            if left.count <= 0:
                break
    return chosen
