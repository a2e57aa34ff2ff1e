"""Calls side by side: each answers for itself, and the deadline is for all."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from control_plane.core.model import ErrorClass
from control_plane.errors import ProviderError
from providers.side_by_side import side_by_side


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


def test_answers_and_failures_come_in_the_order_of_the_keys(pool: ThreadPoolExecutor) -> None:
    """Whoever answers first: here the last does."""
    turns = [threading.Event() for _ in range(5)]
    turns[4].set()

    def call(key: int) -> int:
        assert turns[key + 1].wait(10)
        turns[key].set()
        if key % 2:
            raise refused
        return key * 10

    refused = ProviderError("no", error_class=ErrorClass.AUTH, raw_code="Denied")
    answers, failures = side_by_side(pool, [0, 1, 2, 3], call, deadline_s=10)
    assert list(answers.items()) == [(0, 0), (2, 20)]
    assert list(failures) == [1, 3]
    assert all(error is refused for error in failures.values())


def test_one_that_breaks_does_not_hide_the_others(pool: ThreadPoolExecutor) -> None:
    def call(key: str) -> str:
        return {"good": "answer"}[key]

    answers, failures = side_by_side(pool, ["bad", "good"], call, deadline_s=10)
    assert answers == {"good": "answer"}
    error = failures["bad"]
    assert (error.error_class, error.raw_code) == (ErrorClass.TRANSIENT, "UnreadableAnswer")
    assert "KeyError('bad')" in str(error)


def test_whoever_is_late_has_failed_and_the_others_have_not() -> None:
    """Also one that had no turn: it is not called any more."""
    release, called = threading.Event(), list[str]()

    def call(key: str) -> str:
        called.append(key)
        if key == "hangs":
            assert release.wait(30)
        return key

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(2) as two:
        try:
            began = time.monotonic()
            answers, failures = side_by_side(two, ["hangs", "quick"], call, deadline_s=0.2)
            assert time.monotonic() - began < 10
            assert answers == {"quick": "quick"}
            error = failures["hangs"]
            assert (error.error_class, error.raw_code) == (
                ErrorClass.TRANSIENT,
                "DeadlineExceeded",
            )
            assert "within 0.2 s" in str(error)
            _, failures = side_by_side(one, ["hangs", "waits"], call, deadline_s=0.2)
            assert list(failures) == ["hangs", "waits"]
        finally:
            release.set()
    assert "waits" not in called


def test_nothing_to_call_is_nothing_found(pool: ThreadPoolExecutor) -> None:
    def never(key: str) -> str:
        raise AssertionError(key)

    assert side_by_side(pool, [], never, deadline_s=0) == ({}, {})
