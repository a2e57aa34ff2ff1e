"""Long polls: look, sleep until something changed, look again; without holding a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.types import Receive

from control_plane.api.changes import Changes

RECHECK_S = 5.0
"""A look after this long even without a change: some things come with time alone, such as a job's
`not_before`, and a change in another process wakes nobody here."""

T = TypeVar("T")


async def poll(
    receive: Receive,
    changes: Changes | None,
    look: Callable[[], Awaitable[T]],
    *,
    wait_s: Callable[[T], float],
) -> T:
    """Look until `wait_s` of what it found is used up (0 = this is it).

    Ends early when the client hangs up or the server goes down, and after the first look when there
    is nothing to wait on. The request's body must have been read before."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    seen = changes.generation if changes else 0
    found = await look()
    if changes is None or wait_s(found) <= 0:
        return found
    gone = asyncio.create_task(_hung_up(receive))
    try:
        while not (changes.closed or gone.done()):
            left_s = start + wait_s(found) - loop.time()
            if left_s <= 0:
                break
            await _change(changes, seen, min(left_s, RECHECK_S), gone)
            if not gone.done():
                seen = changes.generation
                found = await look()
        return found
    finally:
        gone.cancel()


async def _change(changes: Changes, seen: int, timeout_s: float, gone: asyncio.Task[None]) -> None:
    waiter = asyncio.create_task(changes.wait(timeout_s, since=seen))
    try:
        await asyncio.wait({waiter, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
