"""Calls made at the same time, until a deadline: what came back, and what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, wait
from typing import TypeVar

from control_plane.core.model import ErrorClass
from control_plane.errors import ProviderError

T = TypeVar("T")
K = TypeVar("K")


def side_by_side(
    pool: Executor, keys: Iterable[K], call: Callable[[K], T], *, deadline_s: float
) -> tuple[Mapping[K, T], Mapping[K, ProviderError]]:
    """Call for each key: the answers and the failures, both in the order of the keys. Who has not
    answered by the deadline has failed, and is left to its own time limit; a fault of one, whatever
    it is, does not hide the others."""
    running = {key: pool.submit(call, key) for key in keys}
    wait(running.values(), timeout=deadline_s)
    answers: dict[K, T] = {}
    failures: dict[K, ProviderError] = {}
    for key, asked in running.items():
        # What could still be cancelled never began, so it has no answer either.
        if asked.cancel() or not asked.done():
            failures[key] = _failure("DeadlineExceeded", f"no answer within {deadline_s:g} s")
            continue
        try:
            answers[key] = asked.result()
        except ProviderError as error:
            failures[key] = error
        except Exception as error:  # noqa: BLE001 - see above
            failures[key] = _failure("UnreadableAnswer", repr(error))
    return answers, failures


def _failure(code: str, text: str) -> ProviderError:
    return ProviderError(text, error_class=ErrorClass.TRANSIENT, raw_code=code)
