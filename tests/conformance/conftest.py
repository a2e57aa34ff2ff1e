"""The adapters that the suites of the store and the blobs run against: a new one joins here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control_plane.blobs.local import LocalBlobs
from control_plane.blobs.memory import MemoryBlobs
from control_plane.ports import Blobs, Store
from control_plane.stores.memory import MemoryStore
from control_plane.stores.sqlite import SqliteStore

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda folder: MemoryStore(),
    # The disk's pace is not what these tests are about; `test_store_sqlite` has the durable one.
    "sqlite": lambda folder: SqliteStore(folder / "store.db", durability="normal"),
}
BLOBS: dict[str, Callable[[Path], Blobs]] = {
    "memory": lambda folder: MemoryBlobs(),
    "local": lambda folder: LocalBlobs(folder / "blobs"),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = STORES[request.param](tmp_path)
    yield made
    made.close()


@pytest.fixture(params=BLOBS)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return BLOBS[request.param](tmp_path)


@pytest.fixture
def jumpy_threads() -> Iterator[None]:
    """Threads take turns after every few instructions, so that a missing lock shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
