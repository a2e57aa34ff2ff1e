"""Worlds on both stores, and a client of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from control_plane.stores.memory import MemoryStore
from control_plane.stores.sqlite import SqliteStore
from tests.api.world import DOCUMENT, World


@pytest.fixture(params=["memory", "sqlite"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A control plane without anything in it."""
    if request.param == "memory":
        yield World(MemoryStore())
        return
    store = SqliteStore(tmp_path / "orchctl.db", durability="normal")
    yield World(store)
    store.close()


@pytest.fixture
def client(world: World) -> Iterator[TestClient]:
    """An admin of this world."""
    with world.client() as client:
        yield client


@pytest.fixture
def applied(world: World, client: TestClient) -> TestClient:
    """The same, with the autoscaler `research` applied."""
    answer = client.put(
        "/v1/autoscalers/research", json={"document": DOCUMENT}, headers={"If-None-Match": "*"}
    )
    assert answer.status_code == 201, answer.text
    return client
