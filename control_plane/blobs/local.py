"""Blobs as files below one folder: key `logs/j-1/1` is the file `logs/j-1/1`."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from control_plane.blobs import keys
from control_plane.errors import Conflict, InvalidInput, NotFound
from control_plane.ports import Blobs


class LocalBlobs:
    """`ports.Blobs` in the folder `root`, which is made when missing.

    Any number of threads and processes may use it. What was acknowledged is on the disk."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # No key begins with a dot, so nothing in here is ever taken for a blob.
        self._unfinished = root / ".unfinished"
        self._unfinished.mkdir(parents=True, exist_ok=True)

    def put(self, key: str, data: bytes) -> None:
        path = self._place(key)
        descriptor, name = tempfile.mkstemp(dir=self._unfinished)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                _flush(file)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
        _flush_folder(path.parent)

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except _ABSENT as error:
            raise NotFound(f"there is no blob {key}") from error

    def append(self, key: str, offset: int, data: bytes) -> int:
        with _locked(self._place(key)) as file:
            size = file.seek(0, os.SEEK_END)
            if offset > size:
                raise Conflict(f"blob {key} has {size} bytes, offset {offset} is beyond it")
            fresh = data[size - offset :]
            if fresh:
                file.write(fresh)
                _flush(file)
            return size + len(fresh)

    def read(self, key: str, offset: int, limit: int) -> bytes:
        try:
            with self._path(key).open("rb") as file:
                file.seek(offset)
                return file.read(limit)
        except _ABSENT:
            return b""

    def size(self, key: str) -> int:
        path = self._path(key)
        return path.stat().st_size if path.is_file() else 0

    def remove(self, prefix: str) -> None:
        keys.check_prefix(prefix)
        folder = self._root / prefix
        if not folder.is_dir():
            return
        # Renamed away first: all of them go at once, even when deleting is cut short.
        with tempfile.TemporaryDirectory(dir=self._unfinished) as doomed:
            try:
                os.replace(folder, doomed)
            except FileNotFoundError:  # somebody else removes the same
                return
            _flush_folder(folder.parent)

    def _path(self, key: str) -> Path:
        keys.check(key)
        return self._root / key

    def _place(self, key: str) -> Path:
        """Where to write a key, with the folders above it made."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise InvalidInput(f"a part of {key} is a blob itself") from error
        if path.is_dir():
            raise InvalidInput(f"{key} is the beginning of other blobs' keys")
        return path


_: type[Blobs] = LocalBlobs

_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file opened to append, for one thread of one process at a time."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """A new name survives a power cut only when its folder was written too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
