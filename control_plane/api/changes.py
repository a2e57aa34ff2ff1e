"""Waking those who wait: long polls sleep until something changed, whatever thread changed it.

A change is a hint, never a message: whoever is woken looks again. No wake-up is lost, because a
waiter names the generation it looked at, and an older one does not wait at all.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress


class Changes:
    """A counter of changes that coroutines can wait on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._generation = 0
        self._closed = False
        self._waiters: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}

    @property
    def generation(self) -> int:
        """Counts changes. Read it before looking, then hand it to `wait`."""
        return self._generation

    @property
    def closed(self) -> bool:
        """Whether the server is going down: nobody should wait any more."""
        return self._closed

    def notify(self) -> None:
        """Something changed. May be called from any thread, often; never blocks for long."""
        with self._lock:
            self._generation += 1
            woken, self._waiters = self._waiters, {}
        for future, loop in woken.items():
            # A loop that has ended has nobody left who waits.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, future)

    def close(self) -> None:
        """End every wait, now and from now on: the server is going down."""
        self._closed = True
        self.notify()

    async def wait(self, timeout_s: float, *, since: int | None = None) -> bool:
        """Wait for a change after generation `since` (from now on by default), at most `timeout_s`
        seconds. Says whether there was one; False at once when closed."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if self._closed:
                return False
            if since is not None and since != self._generation:
                return True
            self._waiters[future] = loop
        try:
            await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            return False
        finally:
            with self._lock:
                self._waiters.pop(future, None)
        return not self._closed


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
