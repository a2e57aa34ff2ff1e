"""Blobs in a dict: for the simulator and tests."""

from __future__ import annotations

import threading

from control_plane.blobs import keys
from control_plane.errors import Conflict, NotFound
from control_plane.ports import Blobs


class MemoryBlobs:
    """`ports.Blobs` that lives as long as the process. Any number of threads may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blobs: dict[str, bytes] = {}

    def put(self, key: str, data: bytes) -> None:
        keys.check(key)
        with self._lock:
            self._blobs[key] = bytes(data)

    def get(self, key: str) -> bytes:
        keys.check(key)
        with self._lock:
            if key not in self._blobs:
                raise NotFound(f"there is no blob {key}")
            return self._blobs[key]

    def append(self, key: str, offset: int, data: bytes) -> int:
        keys.check(key)
        with self._lock:
            stored = self._blobs.get(key, b"")
            if offset > len(stored):
                raise Conflict(f"blob {key} has {len(stored)} bytes, offset {offset} is beyond it")
            self._blobs[key] = stored + data[len(stored) - offset :]
            return len(self._blobs[key])

    def read(self, key: str, offset: int, limit: int) -> bytes:
        keys.check(key)
        with self._lock:
            return self._blobs.get(key, b"")[offset : offset + limit]

    def size(self, key: str) -> int:
        keys.check(key)
        with self._lock:
            return len(self._blobs.get(key, b""))

    def remove(self, prefix: str) -> None:
        keys.check_prefix(prefix)
        with self._lock:
            for key in [key for key in self._blobs if key.startswith(prefix)]:
                del self._blobs[key]


_: type[Blobs] = MemoryBlobs
