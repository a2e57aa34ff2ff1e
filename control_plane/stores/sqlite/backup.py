"""Copies of the store file that hold together: taken while writers go on, and checked.

A copy is made beside its place, brought to the disk, read through, and only then given its name. So
a file that has the name of a backup is one.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from control_plane.errors import InvalidInput, NotFound, Refused, Unavailable
from control_plane.stores.sqlite.opening import (
    check,
    check_version,
    connect,
    schema_version,
    sync_folder,
    unavailable,
)

_PAGES = 4096
"""Copied at a time; in between, other threads get their turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupReport:
    """What a copy holds."""

    path: Path
    bytes: int
    jobs: int
    schema_version: int


def backup(source: Path, target: Path) -> BackupReport:
    """Copy the store file `source`, as of one instant, into the new file `target`. Raises
    `NotFound`, `Refused` when the target exists, `Unavailable` when the source is damaged or the
    target cannot be written."""
    if not source.is_file():
        raise NotFound(f"there is no store file {source}")
    return _copy(source, target)


def restore(backup: Path, target: Path) -> BackupReport:
    """Make the store file `target` from a backup; it must not exist. Raises `NotFound`, `Refused`
    when the target exists, `InvalidInput` for a file that is no store, `Unavailable` when it is
    damaged or was written by a newer orchctl, or the target cannot be written."""
    if not backup.is_file():
        raise NotFound(f"there is no backup {backup}")
    return _copy(backup, target)


def _copy(source: Path, target: Path) -> BackupReport:
    check_new(target)
    with _told(source, target), _scratch(target) as aside:
        with closing(connect(source)) as reader, closing(connect(aside)) as copy:
            # One state is read from the first page to the last; otherwise each write in between
            # would make the copy begin anew.
            reader.execute("begin")
            reader.execute("select 1 from sqlite_master").fetchone()
            reader.backup(copy, pages=_PAGES)
            # A copy is one file: nothing of it is left in a log.
            copy.execute("pragma journal_mode=delete")
            check(copy)
            version = schema_version(copy)
            check_version(source, version)
            jobs = _jobs(copy, source)
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        size = aside.stat().st_size
        give_name(aside, target)
        sync_folder(target)
    return BackupReport(path=target, bytes=size, jobs=jobs, schema_version=version)


def check_new(target: Path) -> None:
    """Raise `Refused` when there is something of this name."""
    if target.exists():
        raise Refused(f"{target} exists", fix="Name a new file.")


def give_name(aside: Path, target: Path) -> None:
    """Give a finished file its name. Raises `Refused` when something has that name."""
    try:
        os.link(aside, target)
    except OSError:
        check_new(target)
        # A file system without links, such as that of many USB sticks.
        aside.rename(target)


@contextmanager
def _told(source: Path, target: Path) -> Iterator[None]:
    """Raise `Unavailable` about that one of the two files that is to blame."""
    try:
        yield
    except sqlite3.Error as error:
        # Only the copy grows.
        full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        raise unavailable(target if full else source, error) from error
    except OSError as error:
        raise Unavailable(
            f"{target} cannot be written: {error.strerror}",
            fix=f"Let this user write to {target.parent}, make room there, or name another place.",
        ) from error


def _jobs(copy: sqlite3.Connection, source: Path) -> int:
    found = copy.execute("select 1 from sqlite_master where name = 'jobs'").fetchone()
    if found is None:
        raise InvalidInput(f"{source} is no store of orchctl", fix="Name the right file.")
    number: int = copy.execute("select count(*) from jobs").fetchone()[0]
    return number


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """A new name in the folder of the target, with all that SQLite puts beside it removed after."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".backup-", dir=target.parent)
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(name + suffix).unlink(missing_ok=True)
