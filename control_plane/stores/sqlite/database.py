"""One SQLite file: a single writer with group commit, and readers beside it.

Many processes or threads writing one file starve each other in SQLite's busy handler, so all writes
of this process go through one connection. Callers that arrive while a commit is on its way to the
disk share the next one: the disk, not the number of callers, sets the pace.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Concatenate, Generic, Literal, ParamSpec, TypeVar

from control_plane.errors import Unavailable
from control_plane.stores.sqlite.schema import MIGRATIONS

Durability = Literal["full", "normal"]
"""`full`: a commit that was acknowledged survives a power cut. `normal`: it survives a crash of the
process, a power cut may take the last ones; the file stays consistent either way."""

BUSY_S = 30.0
"""How long a foreign process may hold the file before we give up."""
BATCH = 64
"""Callers per commit at most, so the first one does not wait for all."""

P = ParamSpec("P")
R = TypeVar("R")


class _Turn(Generic[R]):
    """One caller's work on its way through a shared commit."""

    def __init__(self, work: Callable[[sqlite3.Connection], R]) -> None:
        self.work = work
        self.done = False
        self.error: BaseException | None = None
        self._result: list[R] = []

    def run(self, tx: sqlite3.Connection) -> None:
        tx.execute("savepoint turn")
        try:
            self._result.append(self.work(tx))
        except Exception as error:  # noqa: BLE001 - raised again in the thread of its caller
            self.error = error
            tx.execute("rollback to turn")
        tx.execute("release turn")

    def result(self) -> R:
        if self.error is not None:
            raise self.error
        return self._result[0]


class Database:
    """Opens, upgrades and guards the file. Raises `Unavailable` when it cannot be used."""

    def __init__(self, path: Path, *, durability: Durability = "full") -> None:
        self.path = path
        self._durability = durability
        self._lock = threading.Lock()
        self._turns: deque[_Turn[object]] = deque()
        self._readers: deque[sqlite3.Connection] = deque()
        self._closed = False
        try:
            self._writer = self._connect()
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error

    def write(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Run `work` as one transaction; when this returns, it is durable. Whatever `work` raises
        undoes all of it."""
        turn = _Turn(work)
        self._turns.append(turn)  # type: ignore[arg-type]
        with self._lock:
            while not turn.done:
                self._commit([self._turns.popleft() for _ in range(min(len(self._turns), BATCH))])
        if isinstance(turn.error, sqlite3.Error):
            raise self._unavailable(turn.error) from turn.error
        return turn.result()

    def read(self, work: Callable[[sqlite3.Connection], R]) -> R:
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
            raise self._unavailable(error) from error

    def close(self) -> None:
        """Let go of the file; waits for a commit that is under way."""
        with self._lock:
            self._closed = True
            self._writer.close()
            while self._readers:
                self._readers.pop().close()

    def _commit(self, turns: list[_Turn[object]]) -> None:
        try:
            self._writer.execute("begin immediate")
            for turn in turns:
                turn.run(self._writer)
            self._writer.execute("commit")
        except BaseException as error:
            shared = isinstance(error, sqlite3.Error)
            for turn in turns:
                turn.error = error if shared else sqlite3.OperationalError("commit interrupted")
            if not shared:
                raise
        finally:
            for turn in turns:
                turn.done = True
            if not self._closed and self._writer.in_transaction:
                self._writer.execute("rollback")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        connection.execute(f"pragma synchronous={self._durability}")
        return connection

    def _prepare(self) -> None:
        self._writer.execute("pragma journal_mode=wal")
        health = self._writer.execute("pragma quick_check(1)").fetchone()[0]
        if health != "ok":
            raise sqlite3.DatabaseError(f"it is damaged: {health}")
        # Within one transaction: two processes may open a new file at once.
        self._writer.execute("begin immediate")
        have = self._writer.execute("pragma user_version").fetchone()[0]
        if have > len(MIGRATIONS):
            self._writer.close()
            raise Unavailable(
                f"{self.path} has schema version {have}; this orchctl knows {len(MIGRATIONS)}",
                fix="Run the orchctl that wrote the file, or a newer one.",
            )
        for step in MIGRATIONS[have:]:
            for statement in step:
                self._writer.execute(statement)
        self._writer.execute(f"pragma user_version={len(MIGRATIONS)}")
        self._writer.execute("commit")

    def _reader(self) -> sqlite3.Connection:
        if self._closed:
            raise sqlite3.ProgrammingError("it is closed")
        try:
            return self._readers.pop()
        except IndexError:
            reader = self._connect()
            reader.execute("pragma query_only=1")
            return reader

    def _put_back(self, reader: sqlite3.Connection) -> None:
        if self._closed:
            reader.close()
        else:
            self._readers.append(reader)

    def _unavailable(self, error: Exception) -> Unavailable:
        return Unavailable(f"the store file {self.path} cannot be used: {error}")


class Table:
    """What the parts of the store share: the database they are written on."""

    def __init__(self, database: Database) -> None:
        self._database = database


S = TypeVar("S", bound=Table)


def writes(
    method: Callable[Concatenate[S, sqlite3.Connection, P], R],
) -> Callable[Concatenate[S, P], R]:
    """Make a method one atomic write; it gets the open transaction as its first argument."""

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._database.write(lambda tx: method(self, tx, *args, **kwargs))

    return call


def reads(
    method: Callable[Concatenate[S, sqlite3.Connection, P], R],
) -> Callable[Concatenate[S, P], R]:
    """Make a method one consistent read; it gets a connection as its first argument."""

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._database.read(lambda tx: method(self, tx, *args, **kwargs))

    return call
