"""Requests that come at the same time go to the store together: one transaction and one trip to the
disk for all of them, where each would else take a thread and wait for the disk alone.

The transaction is done right in the event loop's thread, since it takes less time than handing it
to another one. What is left to threads is waiting: for a slow disk, and for whoever is writing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from starlette.concurrency import run_in_threadpool

T = TypeVar("T")
Call = Callable[[], None]

AT_ONCE = 64
"""Requests in one transaction at most, so that the event loop answers others meanwhile."""

TRIPS = 2
"""Under way at a time. While one waits for the disk, the next gathers and writes."""


class Joint(Protocol):
    """A store that does several things in one transaction."""

    def together(self, work: Call) -> None:
        """Call `work`, and return when all that it did here is safe. It may be called twice."""

    def together_now(self, work: Call) -> Sequence[Call] | None:
        """The same without waiting for anybody: returns what is left to do until it is safe, or
        None when it was not begun because somebody else is writing."""


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


@dataclass(slots=True, eq=False)
class _Trip:
    """Visits that are made together."""

    visits: Sequence[_Visit]
    running: threading.local
    later: set[Call] = field(default_factory=set)
    """To be called when they are safe."""

    def go(self) -> None:
        self.running.later = self.later
        try:
            for visit in self.visits:
                visit.go()
        finally:
            self.running.later = None

    def fail(self, error: Exception) -> None:
        for visit in self.visits:
            visit.error = error

    def end(self) -> None:
        """All is safe, or has failed: tell everybody."""
        for call in self.later:
            call()
        # Nearly always there is one loop.
        for loop in {visit.loop for visit in self.visits}:
            mine = [visit for visit in self.visits if visit.loop is loop]
            if loop is _running_loop():
                _settle(mine)
            else:
                loop.call_soon_threadsafe(_settle, mine)


class Together:
    """Runs what coroutines want of the store; without a store that does it together, each in a
    thread of its own."""

    def __init__(self, store: Joint | None) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._line: list[_Visit] = []
        self._trips = 0
        self._pool = ThreadPoolExecutor(TRIPS, thread_name_prefix="together")
        self._running = threading.local()
        """Its `later` is what the running thread has to call when its visits are safe."""

    def afterwards(self, call: Call) -> None:
        """Call this as soon as what the running thread is doing together is safe, however often it
        was asked for; at once when it is doing nothing together."""
        later: set[Call] | None = getattr(self._running, "later", None)
        if later is None:
            call()
        else:
            later.add(call)

    def do(self, act: Callable[[], T]) -> Awaitable[T]:
        """Call `act`; await what it returns, when that is safe, or raises. It may be called twice,
        like every request that may be repeated."""
        if self._store is None:
            return run_in_threadpool(act)
        loop = asyncio.get_running_loop()
        visit = _Visit(act=act, future=loop.create_future(), loop=loop)
        with self._lock:
            self._line.append(visit)
            first = len(self._line) == 1
        if first:
            # Not at once: what else has come by now goes along.
            loop.call_soon(self._gather, self._store, loop, 0)
        return visit.future

    def _gather(self, store: Joint, loop: asyncio.AbstractEventLoop, seen: int) -> None:
        """Go when a turn of the loop has brought nobody more."""
        waiting = len(self._line)
        if seen < waiting < AT_ONCE:
            loop.call_soon(self._gather, store, loop, waiting)
        else:
            self._go(store)

    def _go(self, store: Joint) -> None:
        visits = self._next(store)
        if not visits:
            return
        trip = _Trip(visits=visits, running=self._running)
        try:
            left = store.together_now(trip.go)
        except Exception as error:  # noqa: BLE001 - raised again where each of them waits
            trip.fail(error)
            left = ()
        if left is None:
            self._pool.submit(self._finish, store, trip, [lambda: store.together(trip.go)])
        elif left:
            self._pool.submit(self._finish, store, trip, left)
        else:
            self._end(store, trip)

    def _next(self, store: Joint) -> Sequence[_Visit]:
        """Who goes now; nobody while all trips are under way: the end of one calls again."""
        with self._lock:
            if not self._line or self._trips == TRIPS:
                return ()
            self._trips += 1
            visits, self._line = self._line[:AT_ONCE], self._line[AT_ONCE:]
            self._call_again(store)
        return visits

    def _call_again(self, store: Joint) -> None:
        if self._line:
            self._line[0].loop.call_soon_threadsafe(self._go, store)

    def _finish(self, store: Joint, trip: _Trip, left: Sequence[Call]) -> None:
        try:
            for call in left:
                call()
        except Exception as error:  # noqa: BLE001 - raised again where each of them waits
            trip.fail(error)
        self._end(store, trip)

    def _end(self, store: Joint, trip: _Trip) -> None:
        with self._lock:
            self._trips -= 1
            self._call_again(store)
        trip.end()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _settle(visits: Sequence[_Visit]) -> None:
    for visit in visits:
        visit.settle()
