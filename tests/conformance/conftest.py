"""The adapters that the suites of the store and the blobs run against: a new one joins here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from control_plane.blobs.local import LocalBlobs
from control_plane.blobs.memory import MemoryBlobs
from control_plane.ports import Blobs, Store
from control_plane.stores.memory import MemoryStore
from control_plane.system import SystemClock

_tables = count(1)


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One kind of store, as the suite sees it."""

    empty: Callable[[pytest.FixtureRequest, Path], Store]
    """Makes a new, empty store; the folder is its own. What it needs of the outside, such as a
    server, it asks of the request (`getfixturevalue`), which skips the test where that is not
    there."""
    many: int = 10_000
    """How many jobs are many where numbers are the point; fewer where each call takes long."""
    crowd: int = 10_000
    """How many jobs a crowd of claimers fights for, which is the other test of numbers."""
    crowd_long: int = 50_000
    """The same in a long run."""
    expires: bool = False
    """Records expire by themselves: `history_prune` finds nothing to do."""
    shared: bool = False
    """Several servers use it at a time: none may free what another may be answering."""


def empty_sqlite(request: pytest.FixtureRequest, folder: Path) -> Store:
    """A file of its own. The disk's pace is not what these tests are about; `test_store_sqlite` has
    the durable one."""
    # Loaded when it is asked for: what is wrong with one adapter must not fail another's tests.
    from control_plane.stores.sqlite import SqliteStore

    return SqliteStore(folder / "store.db", durability="normal")


def empty_dynamodb(request: pytest.FixtureRequest, folder: Path) -> Store:
    """A table of its own on the shared emulator."""
    client = request.getfixturevalue("dynamodb")
    # Here, since it takes half a second that only tests who need it should pay.
    from control_plane.stores.dynamodb import INDEXES, DynamoStore
    from control_plane.stores.dynamodb.table import create_table

    table = f"conformance-{next(_tables)}"
    create_table(client, table, INDEXES)
    return DynamoStore(client, table=table, clock=SystemClock())


def empty_s3(request: pytest.FixtureRequest) -> Blobs:
    """A bucket of its own on the shared emulator."""
    client = request.getfixturevalue("s3")
    from control_plane.blobs.s3 import S3Blobs

    bucket = f"conformance-{next(_tables)}"
    client.create_bucket(
        Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    return S3Blobs(lambda: client, bucket)


STORES: dict[str, Adapter] = {
    "memory": Adapter(empty=lambda request, folder: MemoryStore()),
    "sqlite": Adapter(empty=empty_sqlite),
    "dynamodb": Adapter(
        empty=empty_dynamodb, many=60, crowd=1_000, crowd_long=10_000, expires=True, shared=True
    ),
}
BLOBS: dict[str, Callable[[pytest.FixtureRequest, Path], Blobs]] = {
    "memory": lambda request, folder: MemoryBlobs(),
    "local": lambda request, folder: LocalBlobs(folder / "blobs"),
    "s3": lambda request, folder: empty_s3(request),
}


@pytest.fixture(params=STORES)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return STORES[request.param]


@pytest.fixture
def store(request: pytest.FixtureRequest, adapter: Adapter, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each kind."""
    yield from _opened(adapter, request, tmp_path / "store")


@pytest.fixture(params=STORES)
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A second empty store, of each kind as well."""
    yield from _opened(STORES[request.param], request, tmp_path / "other")


@pytest.fixture
def reference() -> Store:
    """An empty store of the kind that says what is right where the port leaves no choice."""
    return MemoryStore()


@pytest.fixture(params=BLOBS)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return BLOBS[request.param](request, tmp_path)


def _opened(adapter: Adapter, request: pytest.FixtureRequest, folder: Path) -> Iterator[Store]:
    folder.mkdir()
    made = adapter.empty(request, folder)
    yield made
    made.close()
