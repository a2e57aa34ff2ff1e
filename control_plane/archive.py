"""A state directory as one file: `orchctl server backup|restore`.

The archive is a plain tar: the database as SQLite's own online backup, the secrets that make it
this installation, the blobs, and last a note of what it holds. It may be taken while the server
runs: the database is copied as of one instant, and blobs written later are harmless, since nothing
in the copy names them.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from control_plane.blobs import keys
from control_plane.errors import InvalidInput, NotFound, Refused, Unavailable
from control_plane.lock import LOCK, alone
from control_plane.stores.sqlite import backup as sqlite_backup

DATABASE = "orchctl.db"
IDENTITY = ("secret", "installation", "admin-token")
"""Files that make an installation itself: with other ones, its machines and users are strangers."""
BLOBS = "blobs"
FORMAT = 1
_NOTE = "backup.json"
"""The last file of an archive; one that lacks it was cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """What is in an archive."""

    path: Path
    bytes: int
    jobs: int
    blobs: int


def backup(state: Path, target: Path, *, blobs: bool = True) -> Archived:
    """Write a state directory into the file `target`, which must not exist. Raises `NotFound` when
    there is no database in it or no folder for the target, `Refused` when the target exists,
    `Unavailable` when it cannot be written."""
    check_state(state)
    if not target.parent.is_dir():
        raise NotFound(f"there is no folder {target.parent}", fix="make it, or name another file")
    sqlite_backup.check_new(target)
    with _scratch(target) as scratch:
        report = sqlite_backup.backup(state / DATABASE, scratch / DATABASE)
        unfinished = scratch / "archive.tar"
        unfinished.touch(mode=0o600)  # it holds secrets
        with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT) as tar:
            tar.add(scratch / DATABASE, DATABASE)
            for name in IDENTITY:
                _add(tar, state / name, name)
            found = blobs_of(state) if blobs else ()
            count = sum(_add(tar, path, path.relative_to(state).as_posix()) for path in found)
            _add_note(tar, {"format": FORMAT, "jobs": report.jobs, "blobs": count})
        _flush(unfinished)
        sqlite_backup.give_name(unfinished, target)
    return Archived(path=target, bytes=target.stat().st_size, jobs=report.jobs, blobs=count)


def restore(archive: Path, state: Path, *, replace: bool = False) -> Archived:
    """Make a state directory from an archive. What was there is kept beside it under another name,
    and only with `replace`. Raises `NotFound`, `InvalidInput` for a file that is no archive of
    ours, `Refused` for a directory that is not empty, `Unavailable` while a server uses it or when
    it cannot be written."""
    if not archive.is_file():
        raise NotFound(f"there is no file {archive}")
    with alone(state) if state.exists() else nullcontext(), _scratch(state) as scratch:
        if _occupied(state) and not replace:
            raise Refused(
                f"{state} is not empty",
                fix="choose another --state-dir, or pass --yes to put it aside",
            )
        unpacked, made = scratch / "unpacked", scratch / "state"
        made.mkdir(mode=0o700)
        count = _unpack(archive, unpacked)
        report = _restore_database(archive, unpacked / DATABASE, made / DATABASE)
        for name in (*IDENTITY, BLOBS):
            if (unpacked / name).exists():
                (unpacked / name).rename(made / name)
        _put_in_place(made, state)
    return Archived(path=state, bytes=archive.stat().st_size, jobs=report.jobs, blobs=count)


def check_state(state: Path) -> None:
    """Raise `NotFound` unless this is a server's directory."""
    if not (state / DATABASE).is_file():
        raise NotFound(f"there is no {DATABASE} in {state}", fix="name the server's directory")


def blobs_of(state: Path) -> Iterator[Path]:
    """The files of all blobs, as far as each is still there when its turn comes. Names that begin
    with a dot are unfinished writes."""
    for folder, folders, names in os.walk(state / BLOBS, onerror=_unless_gone):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


# ------------------------------------------------------------------------------------ packing


def _add(tar: tarfile.TarFile, path: Path, name: str) -> bool:
    """Add a file as it is at this moment; False when it is not there, or no longer."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return False
    with file:
        # Of the file that is open: by its name there may be another one a moment later.
        tar.addfile(tar.gettarinfo(arcname=name, fileobj=file), file)
    return True


def _add_note(tar: tarfile.TarFile, facts: dict[str, int]) -> None:
    text = json.dumps(facts).encode()
    member = tarfile.TarInfo(_NOTE)
    member.size = len(text)
    tar.addfile(member, io.BytesIO(text))


# ---------------------------------------------------------------------------------- unpacking

_CONTRADICTIONS = (FileExistsError, IsADirectoryError, NotADirectoryError)
"""A name that is both a file and a folder in the same archive."""


def _unpack(archive: Path, folder: Path) -> int:
    """Unpack into a folder and return how many blobs there were. Raises `InvalidInput`."""
    blobs, note = 0, b""
    try:
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                if member.name == _NOTE:
                    note = _content(tar, member).read()
                else:
                    _write(_content(tar, member), folder / member.name)
                    blobs += member.name.startswith(f"{BLOBS}/")
    except (tarfile.TarError, *_CONTRADICTIONS) as error:
        raise _unusable(archive, str(error)) from error
    _check_note(archive, note, blobs=blobs)
    return blobs


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> BinaryIO:
    """A file in the archive. Only names that a backup has are taken, and only plain files: an
    archive is somebody's input."""
    keys.check(member.name)
    known = member.name in (DATABASE, *IDENTITY, _NOTE) or member.name.startswith(f"{BLOBS}/")
    content = tar.extractfile(member) if member.isreg() and not member.issparse() else None
    if content is None or not known:
        raise InvalidInput(f"{member.name} is nothing that a backup of orchctl holds")
    return cast("BinaryIO", content)


def _write(content: BinaryIO, path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with content, open(path, "wb", opener=_private) as file:
        shutil.copyfileobj(content, file)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _restore_database(archive: Path, unpacked: Path, made: Path) -> sqlite_backup.BackupReport:
    if not unpacked.is_file():
        raise _unusable(archive, f"it holds no {DATABASE}")
    try:
        return sqlite_backup.restore(unpacked, made)
    except (InvalidInput, Unavailable) as error:
        raise _unusable(archive, error.message.replace(str(unpacked), DATABASE)) from error


def _check_note(archive: Path, note: bytes, *, blobs: int) -> None:
    if not note:
        raise _unusable(archive, "its end is missing, or it is no backup of orchctl")
    try:
        facts = json.loads(note)
        form, promised = facts["format"], facts["blobs"]
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(archive, f"its {_NOTE} cannot be read") from error
    if form != FORMAT:
        raise _unusable(archive, f"it has format {form}, and this orchctl knows {FORMAT}")
    if promised != blobs:
        raise _unusable(archive, f"it holds {blobs} of {promised} blobs")


def _unusable(archive: Path, why: str) -> InvalidInput:
    return InvalidInput(
        f"{archive} cannot be restored: {why}",
        fix="take another backup, or a newer orchctl if a newer one has made it",
    )


# ------------------------------------------------------------------------------------- places


def _occupied(state: Path) -> bool:
    return state.exists() and any(each.name != LOCK for each in state.iterdir())


def _put_in_place(made: Path, state: Path) -> None:
    if _occupied(state):
        state.rename(_free_name(state))
    else:
        (state / LOCK).unlink(missing_ok=True)
    # An empty folder of that name is replaced; one that somebody has just filled is not.
    made.rename(state)
    _flush(state.parent)


def _free_name(state: Path) -> Path:
    number = 1
    while (aside := state.with_name(f"{state.name}.replaced-{number}")).exists():
        number += 1
    return aside


@contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    """A folder beside what is to be made: on the same file system, so that results are renamed into
    place, never copied. Raises `Unavailable` when the disk or its permissions do not allow it."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".orchctl-", dir=place.parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise Unavailable(
            f"{place} cannot be made: {error.strerror}{where}",
            fix="Let this user read and write there, make room, or name another place.",
        ) from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
