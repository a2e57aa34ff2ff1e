"""Requests that come at the same time go to the store together: one thread, one transaction and one
trip to the disk for all of them, where each would else take a thread and wait for the disk alone.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool

T = TypeVar("T")
RunTogether = Callable[[Callable[[], None]], None]
"""Calls what it is given, and returns when all that this did with the store is safe (for example
`SqliteStore.together`). It may call it a second time."""

WORKERS = 2
"""While one waits for the disk, another one gathers and writes."""


@dataclass(slots=True, eq=False)
class _Visit:
    """One request's business with the store."""

    act: Callable[[], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    result: Any = None
    error: Exception | None = None

    def go(self) -> None:
        self.result = self.error = None
        try:
            self.result = self.act()
        except Exception as error:  # noqa: BLE001 - raised again in the coroutine that waits for it
            self.error = error

    def settle(self) -> None:
        if self.future.done():  # the client has hung up
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Together:
    """Runs what coroutines want of the store; without a way to do it together, each in a thread of
    its own."""

    def __init__(self, run_together: RunTogether | None) -> None:
        self._run_together = run_together
        self._lock = threading.Lock()
        self._line: list[_Visit] = []
        self._idle = WORKERS
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="together")
        self._running = threading.local()
        """Its `later` is what the running thread has to call when its visits are safe."""

    def afterwards(self, call: Callable[[], None]) -> None:
        """Call this as soon as what the running thread is doing together is safe, however often it
        was asked for; at once when it is doing nothing together."""
        later: set[Callable[[], None]] | None = getattr(self._running, "later", None)
        if later is None:
            call()
        else:
            later.add(call)

    def do(self, act: Callable[[], T]) -> Awaitable[T]:
        """Call `act` in a thread; await what it returns, when that is safe, or raises. It may be
        called twice, like every request that may be repeated."""
        if self._run_together is None:
            return run_in_threadpool(act)
        loop = asyncio.get_running_loop()
        visit = _Visit(act=act, future=loop.create_future(), loop=loop)
        with self._lock:
            self._line.append(visit)
            wake = self._idle > 0
            self._idle -= wake
        if wake:
            self._pool.submit(self._work)
        return visit.future

    def _work(self) -> None:
        while visits := self._next():
            self._visit(visits)
            # One call for all of them; nearly always there is one loop.
            for loop in {visit.loop for visit in visits}:
                loop.call_soon_threadsafe(_settle, [each for each in visits if each.loop is loop])

    def _next(self) -> Sequence[_Visit]:
        with self._lock:
            visits, self._line = self._line, []
            self._idle += not visits
        return visits

    def _visit(self, visits: Sequence[_Visit]) -> None:
        assert self._run_together is not None
        later: set[Callable[[], None]] = set()

        def go() -> None:
            self._running.later = later
            try:
                for visit in visits:
                    visit.go()
            finally:
                self._running.later = None

        try:
            self._run_together(go)
        except Exception as error:  # noqa: BLE001 - raised again where each of them waits
            for visit in visits:
                visit.error = error
        for call in later:
            call()


def _settle(visits: Sequence[_Visit]) -> None:
    for visit in visits:
        visit.settle()
