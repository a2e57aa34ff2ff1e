"""What the calls of a store come to, by operation: one way of counting for every store.

It costs less than a microsecond a call, so it is always on.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import wraps
from time import perf_counter
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from control_plane.errors import Conflict
from control_plane.ports import OperationFigures, Store

UNNAMED = "other"
"""Where is counted what happens outside any operation."""

OPERATIONS = frozenset(
    name
    for part in Store.__mro__
    for name, member in vars(part).items()
    if callable(member) and not name.startswith("_") and name not in ("figures", "close")
)
"""Every operation of the port."""


@dataclass(slots=True)
class _Sums:
    calls: int = 0
    seconds: float = 0.0
    conflicts: int = 0
    throttles: int = 0
    retries: int = 0
    read_units: float = 0.0
    write_units: float = 0.0


class Figures:
    """Sums by operation, for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: defaultdict[str, _Sums] = defaultdict(_Sums)

    def call(self, operation: str, seconds: float) -> None:
        """Count one call."""
        with self._lock:
            sums = self._sums[operation]
            sums.calls += 1
            sums.seconds += seconds

    def add(
        self,
        *,
        conflicts: int = 0,
        throttles: int = 0,
        retries: int = 0,
        read_units: float = 0.0,
        write_units: float = 0.0,
    ) -> None:
        """Add to the operation that runs now what only its store can know of it."""
        running = _running.__dict__
        if running:
            running["conflicts"] += conflicts
        with self._lock:
            sums = self._sums[running.get("name", UNNAMED)]
            sums.conflicts += conflicts
            sums.throttles += throttles
            sums.retries += retries
            sums.read_units += read_units
            sums.write_units += write_units

    def read(self) -> Mapping[str, OperationFigures]:
        """All sums so far, by operation."""
        with self._lock:
            return {name: OperationFigures(**asdict(sums)) for name, sums in self._sums.items()}


class Counting(Protocol):
    """A store that `counted` can count."""

    _figures: Figures


P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=Counting)


_running = threading.local()
"""What this thread is in the middle of, by `name`, and the `conflicts` that the store itself has
counted meanwhile; empty = nothing. Taken by its dictionary, since each look at a thread's own costs
as much as three at that."""


def counted(store: type[C]) -> type[C]:
    """Class decorator: count each call of each operation of the port, its time, and the `Conflict`
    it ends in. An operation that calls another one pays for it: the outermost counts."""
    for name in OPERATIONS:
        setattr(store, name, _counting(name, getattr(store, name)))
    return store


def _counting(name: str, method: Callable[Concatenate[C, P], R]) -> Callable[Concatenate[C, P], R]:
    @wraps(method)
    def call(self: C, /, *args: P.args, **kwargs: P.kwargs) -> R:
        running = _running.__dict__
        if running:
            return method(self, *args, **kwargs)
        running["name"], running["conflicts"] = name, 0
        began = perf_counter()
        try:
            return method(self, *args, **kwargs)
        except Conflict:
            if not running["conflicts"]:
                self._figures.add(conflicts=1)
            raise
        finally:
            self._figures.call(name, perf_counter() - began)
            running.clear()

    return call
