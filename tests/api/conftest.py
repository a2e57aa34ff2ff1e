"""Worlds and clients of them. What a store does is proven elsewhere, so most worlds are in memory;
those that meet many requests at once, or strange ones, stand on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from control_plane.stores.memory import MemoryStore
from control_plane.stores.sqlite import SqliteStore
from tests.api.world import DOCUMENT, World


@pytest.fixture
def world() -> World:
    """A control plane without anything in it."""
    return World(MemoryStore())


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SqliteStore]:
    """An empty store in a file."""
    store = SqliteStore(tmp_path / "orchctl.db", durability="normal")
    yield store
    store.close()


@pytest.fixture
def client(world: World) -> Iterator[TestClient]:
    """An admin of this world."""
    with world.client() as client:
        yield client


@pytest.fixture(scope="module")
def refused() -> Iterator[TestClient]:
    """An admin with the queue `default`, for requests that change nothing: many tests share it."""
    with World(MemoryStore()).client() as client:
        client.post("/v1/queues", json={"name": "default"})
        yield client


@pytest.fixture
def applied(client: TestClient) -> TestClient:
    """The same, with the autoscaler `research` applied."""
    answer = client.put(
        "/v1/autoscalers/research", json={"document": DOCUMENT}, headers={"If-None-Match": "*"}
    )
    assert answer.status_code == 201, answer.text
    return client
