"""Pages of jobs: newest first, or the waiting ones of a queue in the order of claims.

What is asked for often has an index. For anything else a page looks at so many jobs at most, and
may then hold fewer than were asked for, with more to come.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

from control_plane.core.lifecycle import DEAD_LETTERS
from control_plane.core.model import Job, JobState
from control_plane.ports import Page
from control_plane.stores import cursors, transitions
from control_plane.stores.sqlite import line, rows

LOOK_AT = 10_000
"""Jobs that one page looks at, at most."""

_WHAT = "select id, rowid, queue, state, machine_id from jobs"
NEWEST = f"{_WHAT} where id < ? order by id desc"
OF_QUEUE = f"{_WHAT} indexed by jobs_by_queue where queue = ? and id < ? order by id desc"
DEAD = f"""{_WHAT} indexed by jobs_dead
    where state in ('failed', 'exhausted') and queue = ? and id < ? order by id desc"""
BLOCKED = f"""{_WHAT} indexed by jobs_blocked
    where state = 'blocked' and queue = ? and id < ? order by id desc"""
HELD = f"{_WHAT} indexed by jobs_held where {rows.HELD} and machine_id = ?"
ALL_HELD = f"{_WHAT} indexed by jobs_held where {rows.HELD}"
ENDED_ON = f"""{_WHAT} where id in (
    select job_id from attempts indexed by attempts_by_end where machine_id = ?1 and ended_at >=
    coalesce((select planned_at from machines where id = ?1), ''))"""
"""Jobs that had an attempt on a machine: the index on the ends of attempts tells them by itself."""
DELAYED = f"""select not_before, id, rowid from jobs indexed by jobs_delayed
    where {rows.DELAYED} and queue = ? and (not_before, id) > (?, ?) order by not_before, id"""
BY_ROW = f"select {rows.JOB_COLUMNS} from jobs where rowid = ?"

Turn = tuple[int, int, float, str, str]
"""A place in the order of claims: 0 for the line, with priority (sign turned), position and id; 1
for those that wait for their time, with it and the id."""
_FIRST: Turn = (0, 0, 0.0, "", "")
_LAST = "\U0010ffff"
"""Behind every id."""


class Wanted(NamedTuple):
    """What a listing is asked for; empty = any."""

    queue: str
    states: frozenset[JobState]
    machine_id: str

    @property
    def scope(self) -> cursors.Scope:
        return ("jobs", self.queue, ",".join(sorted(self.states)), self.machine_id)

    def only(self, states: Iterable[JobState]) -> bool:
        """Whether it names states, and none but these."""
        return bool(self.states) and self.states <= set(states)

    def takes(self, queue: str, state: str, machine_id: str) -> bool:
        """Whether a job is one of these."""
        return (
            self.queue in ("", queue)
            and self.machine_id in ("", machine_id)
            and (not self.states or state in self.states)
        )


class _Seen(NamedTuple):
    """A job as an index shows it."""

    id: str
    row: int
    queue: str
    state: str
    machine_id: str


def page(tx: sqlite3.Connection, wanted: Wanted, cursor: str, limit: int) -> Page[Job]:
    """One page. Raises `InvalidInput` for a cursor of another query."""
    if wanted.queue and wanted.only({JobState.QUEUED}) and not wanted.machine_id:
        return _line_page(tx, wanted.queue, wanted.scope, cursor, limit)
    behind = cursors.read(wanted.scope, cursor, ("",))[0] if cursor else _LAST
    found: list[_Seen] = []
    last = ""
    for number, seen in enumerate(map(_Seen._make, _newest(tx, wanted, behind)), 1):
        if wanted.takes(seen.queue, seen.state, seen.machine_id):
            found.append(seen)
        if len(found) > limit:
            last = found[limit - 1].id
            break
        if number >= max(LOOK_AT, limit + 1):
            last = seen.id
            break
    items = tuple(_of_row(tx, seen.row) for seen in found[:limit])
    return Page(items=items, cursor=cursors.write(wanted.scope, (last,)) if last else "")


def _newest(tx: sqlite3.Connection, wanted: Wanted, behind: str) -> Iterator[tuple[object, ...]]:
    """Jobs before an id, newest first: all that are wanted, and as few others as there is an index
    for."""
    if wanted.machine_id:
        on_it = [
            *tx.execute(HELD, (wanted.machine_id,)),
            *tx.execute(ENDED_ON, (wanted.machine_id,)),
        ]
        return iter(sorted({each for each in on_it if each[0] < behind}, reverse=True))
    if wanted.only(transitions.HELD):
        held = tx.execute(ALL_HELD)
        return iter(sorted((each for each in held if each[0] < behind), reverse=True))
    if wanted.queue and wanted.only(DEAD_LETTERS):
        return tx.execute(DEAD, (wanted.queue, behind))
    if wanted.queue and wanted.only({JobState.BLOCKED}):
        return tx.execute(BLOCKED, (wanted.queue, behind))
    if wanted.queue:
        return tx.execute(OF_QUEUE, (wanted.queue, behind))
    return tx.execute(NEWEST, (behind,))


def _line_page(
    tx: sqlite3.Connection, queue: str, scope: cursors.Scope, cursor: str, limit: int
) -> Page[Job]:
    """In the order of claims; those that wait for their time come last, by it."""
    behind: Turn | None = cursors.read(scope, cursor, _FIRST) if cursor else None
    turns = list(islice(chain(_in_line(tx, queue, behind), _apart(tx, queue, behind)), limit + 1))
    page = cursors.page(scope, turns, limit, lambda turn: turn[0])
    return Page(items=tuple(_of_row(tx, row) for _, row in page.items), cursor=page.cursor)


def _in_line(tx: sqlite3.Connection, queue: str, behind: Turn | None) -> Iterator[tuple[Turn, int]]:
    """Places in the line behind one, each with the row of its job."""
    if behind is None or behind[0] == 0:
        place = behind and (behind[1], behind[2], behind[4])
        for turned, position, job_id, row, *_ in line.in_order(tx, queue, place):
            yield (0, turned, position, "", job_id), row


def _apart(tx: sqlite3.Connection, queue: str, behind: Turn | None) -> Iterator[tuple[Turn, int]]:
    """The same of those that wait for their time."""
    place = behind[3:] if behind and behind[0] == 1 else ("", "")
    for not_before, job_id, row in tx.execute(DELAYED, (queue, *place)):
        yield (1, 0, 0.0, not_before, job_id), row


def _of_row(tx: sqlite3.Connection, row: int) -> Job:
    return rows.job(tx.execute(BY_ROW, (row,)).fetchone())
