"""Opening the file: what it must be, bringing it up to date, and what to do when it cannot be used.

Damage is looked for before anything is written, as long as that takes no more than a moment: a file
above `CHECK_BYTES` is not read through. SQLite notices a damaged page whenever it reads one, and
every backup is checked whole (`backup`).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from control_plane.errors import Unavailable
from control_plane.stores.sqlite.mounts import network_of
from control_plane.stores.sqlite.schema import MIGRATIONS

BUSY_S = 30.0
"""How long a foreign process may hold the file before we give up."""
CHECK_BYTES = 256 * 1024 * 1024
LOG_PAGES = 2000
"""So long (8 MiB) the log grows before its pages go to the file: most are written many times. A
longer one makes whoever has to wait for that wait longer."""
CACHE_KIB = 4 * 1024
RESTORE = "Restore a backup: `orchctl server restore BACKUP`."


def connect(path: Path) -> sqlite3.Connection:
    """A connection in which every transaction is begun by hand."""
    connection = sqlite3.connect(
        path,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    # The log is brought to the disk by `Log`, where that is asked for; the file always is, in time.
    connection.execute("pragma synchronous=normal")
    connection.execute(f"pragma wal_autocheckpoint={LOG_PAGES}")
    connection.execute(f"pragma cache_size=-{CACHE_KIB}")
    return connection


def open_store(path: Path) -> sqlite3.Connection:
    """Open the store file, which is made when missing, check it and bring it up to date. Raises
    `Unavailable`."""
    kind = network_of(path)
    if kind:
        raise Unavailable(
            f"{path} lies on a network file system ({kind}), where a store cannot be kept safely",
            fix="Put the state directory on a local disk.",
        )
    _check_writable(path)
    connection = None
    try:
        connection = connect(path)
        connection.execute("pragma journal_mode=wal")
        check(connection, most_bytes=CHECK_BYTES)
        migrate(connection, path)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, (sqlite3.Error, OSError)):
            raise unavailable(path, error) from error
        raise
    return connection


def _check_writable(path: Path) -> None:
    """Raise `Unavailable` now, not at the first write. SQLite would open the file all the same, and
    what it puts beside a file that may only be read may only be read too, ever after."""
    for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        if os.access(each, os.F_OK) and not os.access(each, os.W_OK):
            raise Unavailable(
                f"the store file {path} cannot be used: this user may only read {each}",
                fix=_ALL_WRITABLE.format(path=path),
            )


def check(connection: sqlite3.Connection, *, most_bytes: int | None = None) -> None:
    """Raise `sqlite3.DatabaseError` when the file is damaged; one of more bytes is not read."""
    pages = connection.execute("pragma page_count").fetchone()[0]
    page_bytes = connection.execute("pragma page_size").fetchone()[0]
    if most_bytes is not None and pages * page_bytes > most_bytes:
        return
    health = connection.execute("pragma quick_check(1)").fetchone()[0]
    if health != "ok":
        # Above it stands in which database, of which there is one.
        raise Damaged(health.splitlines()[-1])


class Damaged(sqlite3.DatabaseError):
    """The file was read and does not hold together."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def schema_version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("pragma user_version").fetchone()[0]
    return version


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the tables up to date, in one transaction: two processes may open a new file at once.
    Raises `Unavailable` when a newer orchctl wrote the file."""
    if schema_version(connection) == len(MIGRATIONS):
        return
    connection.execute("begin immediate")
    have = schema_version(connection)
    check_version(path, have)
    for step in MIGRATIONS[have:]:
        for statement in step:
            connection.execute(statement)
    connection.execute(f"pragma user_version={len(MIGRATIONS)}")
    connection.execute("commit")


def check_version(path: Path, have: int) -> None:
    """Raise `Unavailable` for a schema that only a newer orchctl knows."""
    if have > len(MIGRATIONS):
        raise Unavailable(
            f"{path} has schema version {have}; this orchctl knows {len(MIGRATIONS)}",
            fix="Run the orchctl that wrote the file, or a newer one.",
        )


class Log:
    """The file in which SQLite keeps what was committed until it goes into the store file.

    It stays the same file as long as a connection is open. Bringing it to the disk after a commit
    is what SQLite does at `synchronous=full`, but it does so with its own locks held."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(f"{path}-wal", os.O_RDONLY)
        sync_folder(path)

    def sync(self) -> None:
        """What was written to it until now is on the disk when this returns. Raises `OSError`."""
        _sync(self._handle)

    def close(self) -> None:
        os.close(self._handle)


def sync_folder(path: Path) -> None:
    """Bring to the disk which files there are beside this one."""
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unavailable(path: Path, error: Exception) -> Unavailable:
    """What went wrong with the file, and what to do next."""
    what, fix = _what_to_do(path, error)
    return Unavailable(f"the store file {path} cannot be used: {what}", fix=fix)


def _what_to_do(path: Path, error: Exception) -> tuple[str, str]:
    folder = path.parent
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_CANTOPEN and not folder.is_dir():
        return f"there is no folder {folder}", "Make it, or give another one."
    told = _TOLD.get(code)
    if told is None:
        return str(error), ""
    what, fix = told
    return what.format(error=error), fix.format(path=path, folder=folder)


_WRITABLE = "Let this user write {path} and its folder."
_ALL_WRITABLE = "Let this user write {path}, {path}-wal, {path}-shm and their folder."
_TOLD = {
    sqlite3.SQLITE_FULL: (
        "there is no room left ({error})",
        "Make room on the disk of {folder}, then repeat: nothing was half written.",
    ),
    sqlite3.SQLITE_READONLY: ("it may only be read ({error})", _ALL_WRITABLE),
    sqlite3.SQLITE_CANTOPEN: ("it cannot be opened ({error})", _WRITABLE),
    sqlite3.SQLITE_PERM: ("it cannot be opened ({error})", _WRITABLE),
    sqlite3.SQLITE_CORRUPT: ("it is damaged ({error})", RESTORE),
    sqlite3.SQLITE_NOTADB: (
        "it is no store ({error})",
        "Move it away, give another path, or restore a backup: `orchctl server restore BACKUP`.",
    ),
    sqlite3.SQLITE_BUSY: (
        "another program holds it ({error})",
        "End the program that has {path} open, then repeat.",
    ),
    sqlite3.SQLITE_IOERR: (
        "the disk did not do what it was asked ({error})",
        "Look at the disk of {folder} and its free space, then start the server again.",
    ),
}
_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
