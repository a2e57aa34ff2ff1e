"""Virtual time: nothing waits, everything happens in order, the same way each time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
"""A Monday morning, so that day and month budgets and weekly windows have room on both sides."""


class SimulatedClock:
    """`ports.Clock` that moves only when it is told to, and calls back on its way.

    Callbacks run in order of their time, equal times in the order they were given. A callback may
    schedule more, and may sleep. It is meant for one thread.
    """

    def __init__(self, start: datetime = EPOCH) -> None:
        self._now = start
        self._agenda: list[tuple[datetime, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        """The virtual time, aware UTC."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Move on by this long, running what falls due on the way."""
        self.advance(seconds)

    def at(self, when: datetime, callback: Callable[[], None]) -> None:
        """Call back at a time; a time in the past means at the next move."""
        heapq.heappush(self._agenda, (when, next(self._order), callback))

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back this long from now."""
        self.at(self._now + timedelta(seconds=seconds), callback)

    def advance(self, seconds: float) -> None:
        """Move on by this long."""
        self.advance_to(self._now + timedelta(seconds=seconds))

    def advance_to(self, when: datetime) -> None:
        """Move on to a time, never back, running what falls due on the way."""
        while self._agenda and self._agenda[0][0] <= when:
            due, _, callback = heapq.heappop(self._agenda)
            self._now = max(self._now, due)
            callback()
        self._now = max(self._now, when)
