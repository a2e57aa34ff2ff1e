"""The stores that are held against the spec: all that the conformance suite knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from control_plane.ports import Store
from control_plane.stores.sqlite import SqliteStore
from tests.conformance.conftest import STORES

AGAIN: dict[str, Callable[[Path], Store]] = {
    "sqlite": lambda folder: SqliteStore(folder / "store.db", durability="normal"),
}
"""How a store that was made in a folder is opened once more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One kind of store."""

    name: str
    empty: Callable[[Path], Store]
    again: Callable[[Path], Store] | None = None
    """None where what was written ends with the process."""
    remote: bool = False
    """Each call takes some requests over a network: histories are shorter and are looked at less
    often. Among simultaneous callers its order is that of the port's `CLAIM_WINDOW`, and reads may
    lag."""


@pytest.fixture(params=STORES)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    name = request.param
    return Adapter(
        name=name,
        empty=partial(STORES[name].empty, request),
        again=AGAIN.get(name),
        remote=STORES[name].shared,
    )
