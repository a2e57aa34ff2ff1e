"""Figures count what the port's operations come to, whatever calls whatever."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from control_plane.errors import Conflict
from control_plane.ports import OperationFigures, Store
from control_plane.stores.figures import OPERATIONS, UNNAMED, Figures, _counting
from control_plane.stores.memory import MemoryStore


class Counter:
    """A store of two operations, one of which calls the other."""

    def __init__(self) -> None:
        self._figures = Figures()

    def inner(self, *, fails: bool = False) -> int:
        self._figures.add(throttles=1, retries=2, read_units=0.5, write_units=3.0)
        if fails:
            raise Conflict("somebody was faster")
        return 7

    def outer(self, *, fails: bool = False) -> int:
        try:
            return self.inner(fails=fails)
        except Conflict:
            self._figures.add(conflicts=1)
            return 8

    def read(self) -> Mapping[str, OperationFigures]:
        return self._figures.read()


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    for name in ("inner", "outer"):
        monkeypatch.setattr(Counter, name, _counting(name, getattr(Counter, name)))
    return Counter()


def test_the_operations_are_those_of_the_port() -> None:
    assert {"job_claim", "queue_waits", "transfer_write", "shared_read", "price_open"} < OPERATIONS
    assert all(hasattr(Store, name) for name in OPERATIONS)
    assert not OPERATIONS & {"figures", "close", "__init__"}


def test_an_operation_pays_for_those_it_calls(counter: Counter) -> None:
    assert (counter.inner(), counter.outer()) == (7, 7)
    figures = counter.read()
    assert sorted(figures) == ["inner", "outer"]
    for each in figures.values():
        assert (each.calls, each.throttles, each.retries) == (1, 1, 2)
        assert (each.read_units, each.write_units) == (0.5, 3.0)
        assert each.seconds > 0


def test_a_conflict_counts_where_it_is_seen(counter: Counter) -> None:
    with pytest.raises(Conflict):
        counter.inner(fails=True)
    assert counter.outer(fails=True) == 8, "a race that was lost inside and made good"
    figures = counter.read()
    assert (figures["inner"].conflicts, figures["outer"].conflicts) == (1, 1)
    assert counter.inner() == 7
    assert counter.read()["inner"].calls == 2, "a failed call is a call, and it is over"


def test_what_happens_outside_any_operation_has_a_name_of_its_own(counter: Counter) -> None:
    counter._figures.add(retries=1)
    assert counter.read()[UNNAMED] == OperationFigures(retries=1)


def test_threads_count_apart_and_in_sum(counter: Counter) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: (counter.inner(), counter.outer()), range(200)))
    figures = counter.read()
    assert {name: each.calls for name, each in figures.items()} == {"inner": 200, "outer": 200}
    assert figures["outer"].write_units == 600.0


def test_two_stores_count_apart() -> None:
    one, other = MemoryStore(), MemoryStore()
    one.queue_list()
    assert (one.figures()["queue_list"].calls, other.figures()) == (1, {})
