"""One SQLite file: one connection that writes, and readers beside it.

Many processes or threads writing one file starve each other in SQLite's busy handler, so all writes
of this process go through one connection (`writer`).
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Concatenate, Literal, ParamSpec, TypeVar

from control_plane.errors import Unavailable
from control_plane.stores.figures import Figures
from control_plane.stores.sqlite import opening
from control_plane.stores.sqlite.writer import Writer

Durability = Literal["full", "normal"]
"""`full`: a commit that was acknowledged survives a power cut. `normal`: it survives a crash of the
process, a power cut may take the last ones; the file stays consistent either way."""

P = ParamSpec("P")
R = TypeVar("R")
Work = Callable[[sqlite3.Connection], R]


class _Joint(threading.local):
    """What a thread is in the middle of, in `together`."""

    tx: sqlite3.Connection | None = None
    """What it reads and writes by."""
    in_parts = False
    """Whether each write can be undone for itself."""
    lasting = False
    """Whether any of that is to be on the disk when it is over."""


class _HalfDone(BaseException):
    """A write has raised and left something in a transaction that others share. Nobody in between
    may take it for an answer."""


class Database:
    """Opens, upgrades and guards the file. Raises `Unavailable` when it cannot be used."""

    def __init__(self, path: Path, *, durability: Durability = "full") -> None:
        self.path = path
        self._readers: deque[sqlite3.Connection] = deque()
        self._closed = False
        self._joint = _Joint()
        connection = opening.open_store(path)
        self._log = opening.Log(path) if durability == "full" else None
        self._writer = Writer(connection, self._log.sync if self._log else None)

    def write(self, work: Work[R], *, lasting: bool = True) -> R:
        """Run `work` as one transaction; when this returns it is as durable as the store, unless it
        need not be `lasting`. Whatever `work` raises undoes all of it."""
        try:
            if (joint := self._joint_transaction()) is not None:
                return self._write_joined(joint, work, lasting)
            return self._writer.write(work, lasting=lasting)
        except (sqlite3.Error, OSError) as error:
            raise opening.unavailable(self.path, error) from error

    def read(self, work: Work[R]) -> R:
        """Run `work` on the last committed state, or on what `together` has come to."""
        joint = self._joint_transaction()
        return self.look(work) if joint is None else work(joint)

    def look(self, work: Work[R]) -> R:
        """Run `work` on the last committed state."""
        try:
            reader = self._reader()
            try:
                # One transaction: several questions of one method see the same state.
                reader.execute("begin")
                return work(reader)
            finally:
                if reader.in_transaction:
                    reader.execute("rollback")
                self._put_back(reader)
        except sqlite3.Error as error:
            raise opening.unavailable(self.path, error) from error

    def together(self, work: Callable[[], None]) -> None:
        """Call `work`; all that it reads and writes here is one transaction and one trip to the
        disk, and each write that raises is undone for itself. Nothing of it may be told to anybody
        before this returns, and when this raises it is not known what was done. `work` is called
        again when its transaction could not be kept."""

        if self.write(self._joined(work, in_parts=True), lasting=False):
            self._bring_to_disk()

    def together_now(self, work: Callable[[], None]) -> Sequence[Callable[[], None]] | None:
        """`together` without waiting for anybody, nor for a disk that was slow the last time:
        returns what is left to do until it is safe, or None when it was not begun because somebody
        else is writing."""
        try:
            lasting = self._write_now(work)
        except (sqlite3.Error, OSError) as error:
            raise opening.unavailable(self.path, error) from error
        if lasting is None:
            return None
        if not lasting or self._log is None:
            return ()
        if not self._writer.disk_is_quick:
            return (self._bring_to_disk,)
        self._bring_to_disk()
        return ()

    def close(self) -> None:
        """Let go of the file; waits for a commit that is under way."""
        self._closed = True
        while self._readers:
            self._readers.pop().close()
        self._writer.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _write_now(self, work: Callable[[], None]) -> bool | None:
        # Nearly never does one raise half-way, and to be ready for it costs each a twentieth.
        try:
            return self._writer.write_now(self._joined(work, in_parts=False))
        except _HalfDone:
            return self._writer.write_now(self._joined(work, in_parts=True))

    def _joined(self, work: Callable[[], None], *, in_parts: bool) -> Work[bool]:
        """A transaction that `work` does all in; says whether it is to be on the disk."""

        def joined(tx: sqlite3.Connection) -> bool:
            self._joint.tx, self._joint.in_parts, self._joint.lasting = tx, in_parts, False
            try:
                work()
                return bool(self._joint.lasting)
            finally:
                self._joint.tx = None

        return joined

    def _write_joined(self, tx: sqlite3.Connection, work: Work[R], lasting: bool) -> R:
        joint, before = self._joint, tx.total_changes
        try:
            done = _part(tx, work) if joint.in_parts else work(tx)
        except Exception as error:
            half_done = isinstance(error, sqlite3.Error) or tx.total_changes != before
            if half_done and not joint.in_parts:
                raise _HalfDone from error
            raise
        # What has changed nothing need not be brought anywhere.
        if lasting and tx.total_changes != before:
            joint.lasting = True
        return done

    def _bring_to_disk(self) -> None:
        try:
            self._writer.sync()
        except OSError as error:
            raise opening.unavailable(self.path, error) from error

    def _joint_transaction(self) -> sqlite3.Connection | None:
        """What `together` has begun in this thread."""
        tx = self._joint.tx
        if tx is not None and not tx.in_transaction:
            raise Unavailable("what was written together was given up")
        return tx

    def _reader(self) -> sqlite3.Connection:
        if self._closed:
            raise Unavailable(f"the store {self.path} is closed")
        try:
            return self._readers.pop()
        except IndexError:
            reader = opening.connect(self.path)
            reader.execute("pragma query_only=1")
            return reader

    def _put_back(self, reader: sqlite3.Connection) -> None:
        self._readers.append(reader)
        if self._closed:
            self._readers.pop().close()


def _part(tx: sqlite3.Connection, work: Work[R]) -> R:
    tx.execute("savepoint part")
    try:
        done = work(tx)
    except BaseException:
        if tx.in_transaction:
            tx.execute("rollback to part")
            tx.execute("release part")
        raise
    tx.execute("release part")
    return done


class Table:
    """What the parts of the store share: the database they are written on, and the figures."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._figures = Figures()


S = TypeVar("S", bound=Table)


def writes(
    method: Callable[Concatenate[S, sqlite3.Connection, P], R],
) -> Callable[Concatenate[S, P], R]:
    """Make a method one atomic write; it gets the open transaction as its first argument."""

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._database.write(lambda tx: method(self, tx, *args, **kwargs))

    return call


def marks(
    method: Callable[Concatenate[S, sqlite3.Connection, P], R],
) -> Callable[Concatenate[S, P], R]:
    """Make a method one atomic write that nobody has to wait for the disk for: a power cut may take
    it, or the next lasting write carries it there."""

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._database.write(lambda tx: method(self, tx, *args, **kwargs), lasting=False)

    return call


def reads(
    method: Callable[Concatenate[S, sqlite3.Connection, P], R],
) -> Callable[Concatenate[S, P], R]:
    """Make a method one consistent read; it gets a connection as its first argument."""

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._database.read(lambda tx: method(self, tx, *args, **kwargs))

    return call
