"""The one connection that writes, shared by all threads that have something to write.

Who finds it free takes it and writes at once. Who comes while it is taken stands in line, and the
one who has it takes along everybody who stands there: they share a transaction, and one trip to the
disk. During that trip the next of the line has the connection already, so that neither the disk nor
the processor waits for the other. Everybody is woken once: with the answer, or to go first.

Who goes first after a transaction of many lets those come back who have just been answered: they
mostly do, and a transaction of all costs little more than one of a few.
"""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from control_plane.errors import Unavailable
from control_plane.stores.sqlite import opening

R = TypeVar("R")
Work = Callable[[sqlite3.Connection], R]

BATCH = 64
"""Callers per transaction at most, so that the first one does not wait for all."""

CHANCES = 8
"""So many times whoever goes first lets other threads run while fewer stand in line than wrote
together before. Some microseconds in all; each more gained less (3,000 jobs/s of eight callers with
none, 3,500 with one, 3,900 with four, 4,100 with eight)."""


QUICK_S = 0.001
"""A trip to the disk that takes less is made where one is: handing it to another thread takes as
long, while that thread waits for its turn in the interpreter."""


LOOK_AGAIN_S = 0.002
"""Between two tries to get the file from another process."""


class _Turn(Generic[R]):
    """One caller's work on its way through a transaction."""

    __slots__ = ("awake", "done", "error", "gate", "lasting", "leads", "result", "work")

    def __init__(self, work: Work[R], lasting: bool) -> None:
        self.work = work
        self.lasting = lasting
        """Whether its caller waits for the disk."""
        self.gate: threading.Lock | None = None
        """Held until there is something to wake its caller for."""
        self.awake = False
        """Its caller was woken."""
        self.leads = False
        """It was woken to go first, not with an answer."""
        self.done = False
        self.result: R | None = None
        self.error: Exception | None = None

    def answer(self) -> R:
        if self.error is not None:
            raise self.error
        if not self.done:
            raise Unavailable(
                "whoever was writing this was interrupted; whether it was done is not known",
                fix="Repeat it: nothing is done twice.",
            )
        return cast("R", self.result)

    def wake(self) -> None:
        assert self.gate is not None, "only who stands in line is woken"
        self.awake = True
        self.gate.release()


class _Spoilt(Exception):
    """A turn failed and has left something in a transaction that others share."""


class Writer:
    """Runs work on `connection`. `sync` brings to the disk what was committed before it was called;
    None = what is committed need not survive a power cut."""

    def __init__(self, connection: sqlite3.Connection, sync: Callable[[], None] | None) -> None:
        self._tx = connection
        # Who waits for another process does so in `_begin`: not everybody may.
        connection.execute("pragma busy_timeout=0")
        self._sync = sync
        self._broken: Exception | None = None
        self._busy = threading.Lock()
        """Whoever holds it has the connection."""
        self._line: deque[_Turn[object]] = deque()
        self._crowd = 1
        """Callers in the last transaction."""
        self._commits = 0
        self._syncing = threading.Lock()
        self._synced = 0
        """So many of the commits are on the disk."""
        self._sync_s = math.inf
        """What the last trip there took."""

    def write(self, work: Work[R], *, lasting: bool = True) -> R:
        """Run `work` as one transaction, or as its own part of one: whatever it raises undoes all
        of it. When this returns it is on the disk, unless it need not be `lasting`."""
        free = self._busy.acquire(blocking=False)
        if free and self._crowd == 1:
            return self._write_alone(work, lasting)
        turn = _Turn(work, lasting)
        if free:
            self._lead(turn)
        else:
            self._stand_in_line(turn)
        return turn.answer()

    def write_now(self, work: Work[R]) -> R | None:
        """Run `work` as one transaction without waiting for anybody, the disk included; None when
        somebody else is writing, here or in another process."""
        if not self._busy.acquire(blocking=False):
            return None
        self._crowd = 1
        try:
            return self._transact(work, waits=False)
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                raise
            return None
        finally:
            self._pass_on()

    def sync(self) -> None:
        """What was committed before is on the disk when this returns. Raises `OSError`."""
        self._keep(self._commits)

    @property
    def disk_is_quick(self) -> bool:
        """Whether its last trip to the disk took less than handing over the next one would."""
        return self._sync_s < QUICK_S

    def close(self) -> None:
        """Let go of the connection; waits for who has it and for the disk."""
        with self._busy, self._syncing:
            self._broken = Unavailable("the store is closed")
            self._tx.close()

    def _write_alone(self, work: Work[R], lasting: bool) -> R:
        """Nobody stands in line; the connection is taken."""
        try:
            result = self._transact(work)
        finally:
            commit = self._commits
            self._pass_on()
        if lasting:
            self._keep(commit)
        return result

    # ------------------------------------------------------------------------------- the line

    def _stand_in_line(self, turn: _Turn[R]) -> None:
        turn.gate = threading.Lock()
        turn.gate.acquire()
        try:
            self._line.append(turn)  # type: ignore[arg-type]
            # Who had the connection may have left without having seen this turn.
            if self._busy.acquire(blocking=False):
                self._pass_on()
            turn.gate.acquire()
        except BaseException:
            self._leave_line(turn)
            raise
        if turn.leads:
            self._lead(turn)

    def _leave_line(self, turn: _Turn[R]) -> None:
        """Its caller was interrupted while it waited."""
        try:
            self._line.remove(turn)  # type: ignore[arg-type]
        except ValueError:
            # Somebody has taken it along by now, or relies on it to go first.
            assert turn.gate is not None
            if not turn.awake:
                turn.gate.acquire()
            if turn.leads:
                self._pass_on()

    def _pass_on(self) -> None:
        """Give the connection to the first of the line, or let it go."""
        while not (self._line and (heir := self._next())):
            self._busy.release()
            # Who came in between found it taken, and waits.
            if not self._line or not self._busy.acquire(blocking=False):
                return
        heir.leads = True
        heir.wake()

    def _next(self) -> _Turn[object] | None:
        try:
            return self._line.popleft()
        except IndexError:
            return None

    # ----------------------------------------------------------------------- the transaction

    def _lead(self, own: _Turn[R]) -> None:
        """Write this turn and what stands in line; the connection is taken."""
        batch: list[_Turn[object]] = [own]  # type: ignore[list-item]
        try:
            try:
                self._gather()
                self._run(batch)
            finally:
                self._crowd = len(batch)
                commit = self._commits
                self._pass_on()
            if any(turn.lasting for turn in batch):
                self._keep(commit)
        except BaseException as error:
            for turn in batch:
                turn.done = False
                turn.error = error if isinstance(error, Exception) else None
            if not isinstance(error, Exception):
                raise
        finally:
            for turn in batch[1:]:
                turn.wake()

    def _gather(self) -> None:
        """Let those come who wrote together before."""
        for _ in range(CHANCES):
            if len(self._line) + 1 >= self._crowd:
                return
            time.sleep(0)

    def _run(self, batch: list[_Turn[object]]) -> None:
        """Run a batch in one transaction, together with all who stand in line until its end."""
        # Before it begins: if the file is locked for long, it is so for all of them.
        self._take_along(batch)
        try:
            self._transact(lambda tx: self._run_turns(tx, batch))
        except _Spoilt:
            # Done again one by one: each gets its own answer, not the trouble of another one.
            for turn in batch:
                self._run_alone(turn)

    def _run_turns(self, tx: sqlite3.Connection, batch: list[_Turn[object]]) -> None:
        for turn in batch:  # it grows
            changes = tx.total_changes
            try:
                turn.result = turn.work(tx)
                turn.done = True
            except Exception as error:
                if isinstance(error, sqlite3.Error) or tx.total_changes != changes:
                    raise _Spoilt from error
                turn.error = error
            self._take_along(batch)

    def _run_alone(self, turn: _Turn[object]) -> None:
        turn.done, turn.error = False, None
        try:
            turn.result = self._transact(turn.work)
            turn.done = True
        except Exception as error:  # noqa: BLE001 - raised again in the thread of its caller
            turn.error = error

    def _take_along(self, batch: list[_Turn[object]]) -> None:
        while len(batch) < BATCH and (turn := self._next()) is not None:
            batch.append(turn)

    def _transact(self, work: Work[R], *, waits: bool = True) -> R:
        """Run `work` as one transaction; unless it `waits`, another process may not have the
        file."""
        if self._broken is not None:
            raise self._broken
        tx = self._tx
        changes = tx.total_changes
        try:
            self._begin(opening.BUSY_S if waits else 0)
            result = work(tx)
            tx.execute("commit")
        except BaseException:
            self._undo()
            raise
        if tx.total_changes != changes:
            self._commits += 1
        return result

    def _begin(self, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                self._tx.execute("begin immediate")
                return
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() >= deadline:
                    raise
            time.sleep(LOOK_AGAIN_S)

    def _undo(self) -> None:
        if self._tx.in_transaction:
            self._tx.execute("rollback")

    # ------------------------------------------------------------------------------- the disk

    def _keep(self, commit: int) -> None:
        """Return when so many commits are on the disk."""
        if self._sync is None or self._synced >= commit:
            return
        with self._syncing:
            if self._synced >= commit:
                return
            if self._broken is not None:
                raise self._broken
            reach = self._commits
            began = time.perf_counter()
            try:
                self._sync()
            except OSError as error:
                # What a disk has refused once may be lost even when it says yes later.
                self._broken = error
                raise
            self._sync_s = time.perf_counter() - began
            self._synced = reach


def _is_busy(error: sqlite3.OperationalError) -> bool:
    """Whether another process has the file."""
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
