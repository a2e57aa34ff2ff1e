"""A store that remembers what it was asked for: how many calls a look or a request costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from control_plane.ports import Store
from control_plane.stores.figures import OPERATIONS

READS = frozenset(
    {
        "shared_read",
        "fleet_read",
        "waiting_groups",
        "queue_heads",
        "queue_stats",
        "prices_between",
        "prices_begun",
        "prices_get",
        *(name for name in OPERATIONS if name.endswith(("_get", "_list", "_leases"))),
    }
)
"""Operations that change nothing."""


class Recording:
    """Passes every call on to a store and writes its name down."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: list[str] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        """The calls with what was given by name."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(self._store, name)
        if name not in OPERATIONS:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            self.asked.append((name, kwargs))
            return found(*args, **kwargs)

        return call

    @property
    def as_store(self) -> Store:
        """The same, for whoever wants a store."""
        return cast("Store", self)

    @property
    def writes(self) -> list[str]:
        """What may have changed something."""
        return [name for name in self.calls if name not in READS]

    @contextmanager
    def during(self) -> Iterator[list[str]]:
        """The calls made while the block runs."""
        del self.calls[:], self.asked[:]
        yield self.calls
