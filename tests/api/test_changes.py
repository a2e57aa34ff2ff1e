"""No change is missed by whoever waits for one, from whatever thread it comes."""

from __future__ import annotations

import asyncio
import threading

from control_plane.api.changes import Changes

SOON_S = 5.0


def test_everybody_who_waits_is_woken() -> None:
    async def run() -> None:
        changes = Changes()
        waiters = [asyncio.create_task(changes.wait(SOON_S)) for _ in range(50)]
        await asyncio.sleep(0)
        thread = threading.Thread(target=changes.notify)
        thread.start()
        assert all(await asyncio.gather(*waiters))
        thread.join()

    asyncio.run(run())


def test_a_change_since_the_last_look_does_not_wait() -> None:
    async def run() -> None:
        changes = Changes()
        seen = changes.generation
        changes.notify()
        assert await changes.wait(0.0, since=seen)
        assert not await changes.wait(0.0, since=changes.generation)

    asyncio.run(run())


def test_time_can_be_over() -> None:
    assert not asyncio.run(Changes().wait(0.001))


def test_closing_ends_every_wait_now_and_later() -> None:
    async def run() -> None:
        changes = Changes()
        waiter = asyncio.create_task(changes.wait(SOON_S))
        await asyncio.sleep(0)
        changes.close()
        assert not await waiter
        assert not await changes.wait(SOON_S)
        assert changes.closed

    asyncio.run(run())


def test_a_loop_that_ended_under_its_waiters_hurts_nobody() -> None:
    changes = Changes()
    loop = asyncio.new_event_loop()
    changes._waiters[loop.create_future()] = loop
    loop.close()
    changes.notify()
    assert changes.generation == 1


def test_none_of_many_changes_is_lost() -> None:
    """A counter that another thread moves is always seen at its last value: whoever looks and then
    waits from the generation before the look can never sleep through the last change."""
    target = 300

    async def run() -> int:
        changes = Changes()
        value = 0

        def count() -> None:
            nonlocal value
            for _ in range(target):
                value += 1
                changes.notify()

        thread = threading.Thread(target=count)
        thread.start()
        woken = 0
        while True:
            seen = changes.generation
            if value == target:
                break
            assert await changes.wait(SOON_S, since=seen)
            woken += 1
        thread.join()
        return woken

    assert asyncio.run(run()) <= target
