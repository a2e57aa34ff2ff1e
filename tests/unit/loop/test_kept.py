"""What is read by name is kept for a moment, and never longer than whoever changed it allows."""

from __future__ import annotations

import pytest

from control_plane.errors import NotFound
from control_plane.kept import KEPT_FOR, Kept
from providers.simulated.clock import SimulatedClock


class Shelf:
    """Counts what is read from it."""

    def __init__(self) -> None:
        self.reads: list[str] = []
        self.values = {"a": 1, "b": 2}

    def read(self, name: str) -> int:
        self.reads.append(name)
        if name not in self.values:
            raise NotFound(name)
        return self.values[name]


def test_an_answer_is_read_once_in_its_time() -> None:
    shelf, clock = Shelf(), SimulatedClock()
    kept = Kept(shelf.read, clock.now)
    assert [kept.get("a"), kept.get("b"), kept.get("a")] == [1, 2, 1]
    clock.advance(KEPT_FOR.total_seconds() - 0.1)
    kept.get("a")
    assert shelf.reads == ["a", "b"]
    clock.advance(0.1)
    shelf.values["a"] = 3
    assert kept.get("a") == 3


def test_forgetting_reads_anew() -> None:
    shelf, clock = Shelf(), SimulatedClock()
    kept = Kept(shelf.read, clock.now)
    kept.get("a")
    shelf.values["a"] = 4
    kept.forget()
    assert kept.get("a") == 4


def test_that_there_is_none_is_not_kept() -> None:
    """Whoever has just made it is served at once."""
    shelf, clock = Shelf(), SimulatedClock()
    kept = Kept(shelf.read, clock.now)
    with pytest.raises(NotFound):
        kept.get("c")
    shelf.values["c"] = 5
    assert kept.get("c") == 5


def test_what_was_being_read_while_another_forgot_is_not_kept() -> None:
    """The reader may have been handed what was there before the change."""
    shelf, clock = Shelf(), SimulatedClock()

    def read_slowly(name: str) -> int:
        value = shelf.read(name)
        if len(shelf.reads) == 1:
            shelf.values["a"] = 9
            kept.forget()
        return value

    kept = Kept(read_slowly, clock.now)
    assert kept.get("a") == 1
    assert kept.get("a") == 9
