"""What machines hold: the run item of each, which lists every lease before it exists.

A listed lease need not be one: its job says. So a machine's leases are read as its list checked
against the jobs, with strong reads where an end is decided by them, and ending a lease writes the
job alone. What the list need not say any more is sorted out whenever it is written anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain

from control_plane.core.model import Attempt, Lease
from control_plane.stores import transitions
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb import records
from control_plane.stores.dynamodb.calls import ConditionFailed
from control_plane.stores.dynamodb.expressions import expr
from control_plane.stores.dynamodb.items import Item, Value
from control_plane.stores.dynamodb.limits import REQUEST_S
from control_plane.stores.dynamodb.parts import Parts
from control_plane.stores.dynamodb.records import Stored

BOOKED_TOGETHER = 20
"""Ended attempts that are written to the ledger in one item: a tenth of a write unit each, and a
run item that stays below 1 KB."""
BOOKED_AFTER_S = 86_400
"""They do not wait longer for company: the jobs they are read from expire."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The run item of one machine."""

    machine_id: str
    closed: bool = False
    beat: datetime | None = None
    idle_since: datetime | None = None
    served: bool = False
    held: frozenset[str] = frozenset()
    """Tokens of the leases it may have."""
    done: frozenset[str] = frozenset()
    """Tokens of leases that ended and are not booked."""
    version: int = 0
    bookings: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What became of the leases that one run item lists."""

    held: Mapping[str, Stored] = field(default_factory=dict)
    ended: Mapping[str, Attempt] = field(default_factory=dict)
    announced: frozenset[str] = frozenset()
    """Not taken yet, but a request that is under way may."""

    @property
    def leases(self) -> frozenset[tuple[str, int]]:
        """Job and epoch of what is or was held."""
        return frozenset(at.token_parts(token)[:2] for token in (*self.held, *self.ended))


def run(item: Item) -> Run:
    """The run of an item."""
    get = item.get
    return Run(
        machine_id=item["sk"].removesuffix("!"),
        closed=get(at.CLOSED, False),
        beat=at.moment_or_none(get(at.BEAT)),
        idle_since=at.moment_or_none(get(at.IDLE_SINCE)),
        served=get(at.SERVED, False),
        held=get(at.HELD, frozenset()),
        done=get(at.PACKED, frozenset()),
        version=get(at.RUN_VERSION, 0),
        bookings=get(at.BOOKINGS, 0),
    )


def idle_since(run_: Run, books: Books) -> datetime | None:
    """Since when the machine has run nothing; None while it holds a lease."""
    if books.held:
        return None
    ends = [attempt.ended_at for attempt in books.ended.values()]
    return max((each for each in (run_.idle_since, *ends) if each is not None), default=None)


class Runs(Parts):
    """Reading, sorting out and booking what machines hold."""

    def _run(self, machine_id: str) -> Run | None:
        item = self._table.get(*at.run_key(machine_id))
        return run(item) if item else None

    def _books(self, runs: Sequence[Run], *, consistent: bool = True) -> dict[str, Books]:
        """What became of the leases that these runs list, by machine."""
        tokens = {token for each in runs for token in each.held}
        jobs = self._read_many({at.token_parts(t)[0] for t in tokens}, consistent=consistent)
        aside = self._set_aside(tokens, jobs)
        return {each.machine_id: self._book_of(each, jobs, aside) for each in runs}

    def _book_of(
        self, run_: Run, jobs: Mapping[str, Stored], aside: Mapping[str, Attempt]
    ) -> Books:
        held: dict[str, Stored] = {}
        ended: dict[str, Attempt] = {}
        announced: set[str] = set()
        latest = self._clock.now().timestamp() - REQUEST_S
        for token in run_.held:
            job_id, epoch, second = at.token_parts(token)
            job = jobs.get(job_id)
            if job is None:
                continue
            attempt = job.attempt_of(epoch) or aside.get(token)
            if job.job.epoch < epoch:
                if second > latest:
                    announced.add(token)
            elif attempt is not None and attempt.machine_id == run_.machine_id:
                if attempt.ended_at is None:
                    held[token] = job
                else:
                    ended[token] = attempt
        return Books(held=held, ended=ended, announced=frozenset(announced))

    def _set_aside(self, tokens: Iterable[str], jobs: Mapping[str, Stored]) -> dict[str, Attempt]:
        """The attempts that are no longer in their jobs' items, by token."""
        keys = {}
        for token in tokens:
            job_id, epoch, _ = at.token_parts(token)
            job = jobs.get(job_id)
            if job is not None and job.job.epoch > epoch and job.attempt_of(epoch) is None:
                keys[token] = at.attempt_key(job_id, epoch)
        found = self._table.batch_get(keys.values()) if keys else {}
        return {
            token: records.unpack(Attempt, found[key][at.PACKED])
            for token, key in keys.items()
            if key in found
        }

    def _all_runs(self, *, consistent: bool = True) -> tuple[dict[str, Item], list[Run]]:
        """The records of open machines by id, and the runs of all that may hold something."""
        items = list(self._table.query(at.MACHINES, consistent=consistent))
        machines = {item["sk"]: item for item in items if not item["sk"].endswith("!")}
        return machines, [run(item) for item in items if item["sk"].endswith("!")]

    def _all_held(self) -> list[Stored]:
        """All jobs that machines have."""
        _, runs = self._all_runs()
        books = self._books(runs)
        return [job for each in books.values() for job in each.held.values()]

    # ---------------------------------------------------------------------------- listing

    def _list(self, run_: Run, books: Books, tokens: Iterable[str], now: datetime) -> Run | None:
        """Write that these leases may come to be, with all that has been found out about the
        others, and that the machine's agent was heard of: the one beat that a claim costs. None
        when the run has changed meanwhile."""
        done = run_.done | set(books.ended)
        bookings = run_.bookings
        if self._worth_booking(done):
            self._book(run_, done)
            done, bookings = frozenset(), bookings + 1
        beat = max(now, run_.beat or now)
        unchanged = expr(
            f"{at.RUN_VERSION} = :seen AND attribute_not_exists({at.CLOSED}) "
            f"AND NOT {at.BEAT} > :beat",
            seen=run_.version,
            beat=at.stamp(beat),
        )
        change: dict[str, Value] = {
            at.HELD: _once(*tokens, *books.announced, *books.held),
            at.PACKED: done,
            at.BEAT: at.stamp(beat),
            at.IDLE_SINCE: at.stamp_or_none(_idle_base(run_, books)),
            at.RUN_VERSION: run_.version + 1,
            at.BOOKINGS: bookings or None,
        }
        with suppress(ConditionFailed):
            key = at.run_key(run_.machine_id)
            return run(self._table.update(*key, assign=change, condition=unchanged))
        return None

    # ---------------------------------------------------------------------------- booking

    def _worth_booking(self, tokens: Iterable[str]) -> bool:
        seconds = [at.token_parts(token)[2] for token in tokens]
        oldest = min(seconds, default=None)
        if oldest is None:
            return False
        return (
            len(seconds) >= BOOKED_TOGETHER
            or oldest < self._clock.now().timestamp() - BOOKED_AFTER_S
        )

    def _book(self, run_: Run, tokens: Iterable[str]) -> None:
        """Write ended attempts to the ledger. They are taken off the run's list afterwards; a crash
        in between books them again, under another key perhaps, and readers see each once."""
        attempts = self._attempts_of(tokens)
        ends = [each.ended_at for each in attempts if each.ended_at is not None]
        if not ends:
            return
        day = at.day(max(ends))
        self._note_day(at.BOOKED_DAYS, day)
        self._table.put(
            {
                "pk": at.bookings_of(day),
                "sk": f"{at.time_text(max(ends))}#{run_.machine_id}#{run_.bookings}",
                at.PACKED: records.pack(attempts),
            }
        )

    def _attempts_of(self, tokens: Iterable[str]) -> list[Attempt]:
        """The attempts behind tokens whose leases were there."""
        tokens = sorted(tokens)
        jobs = self._read_many({at.token_parts(token)[0] for token in tokens})
        aside = self._set_aside(tokens, jobs)
        found = []
        for token in tokens:
            job_id, epoch, _ = at.token_parts(token)
            job = jobs.get(job_id)
            attempt = aside.get(token) or (job and job.attempt_of(epoch))
            if attempt:
                found.append(attempt)
        return found

    def _settle(self, run_: Run) -> bool:
        """Book what a machine that has ended did, and forget its run; False while something is held
        or may be."""
        books = self._books([run_])[run_.machine_id]
        if books.held or books.announced:
            return False
        self._book(run_, run_.done | set(books.ended))
        unchanged = expr(f"{at.RUN_VERSION} = :seen", seen=run_.version)
        with suppress(ConditionFailed):
            self._table.delete(*at.run_key(run_.machine_id), condition=unchanged)
        return True

    def _booked(self, days: Iterable[str]) -> Iterable[Attempt]:
        """Booked attempts of these days, as they were booked, newest bookings first."""
        return chain.from_iterable(
            records.unpack(tuple[Attempt, ...], item[at.PACKED])
            for day in sorted(days, reverse=True)
            for item in self._table.query(at.bookings_of(day), forward=False)
        )

    def _unbooked(self, runs: Sequence[Run], *, consistent: bool = True) -> list[Attempt]:
        """Attempts that are listed and not booked: those that run, and the last that ended."""
        books = self._books(runs, consistent=consistent)
        found = self._attempts_of(token for each in runs for token in each.done)
        for each in books.values():
            found += each.ended.values()
            found += [job.attempt for job in each.held.values() if job.attempt]
        return found


def leases(books: Iterable[Books]) -> tuple[Lease, ...]:
    """The leases that there are, oldest first."""
    found = [transitions.lease_of(job.job) for each in books for job in each.held.values()]
    return tuple(sorted(found, key=lambda lease: (lease.leased_at, lease.job_id)))


def _once(*tokens: str) -> frozenset[str]:
    """These tokens, the first for each lease: one announced again is announced anew."""
    by_lease: dict[tuple[str, int], str] = {}
    for token in tokens:
        by_lease.setdefault(at.token_parts(token)[:2], token)
    return frozenset(by_lease.values())


def _idle_base(run_: Run, books: Books) -> datetime | None:
    """What the run item says of its idle time once the ended leases are off its list. Those still
    held do not matter: they are on it."""
    return idle_since(run_, Books(ended=books.ended))
