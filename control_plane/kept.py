"""Answers that hot requests need again and again, kept for a moment.

Agents and submitters need the document behind a queue or a machine with each request; reading and
parsing it each time would cost more than the request itself.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

T = TypeVar("T")

KEPT_FOR = timedelta(seconds=2)
"""How late another process learns of a change. The one that made it knows at once."""


class Kept(Generic[T]):
    """What was read by name a moment ago. Any number of threads may ask."""

    def __init__(self, read: Callable[[str], T], now: Callable[[], datetime]) -> None:
        self._read = read
        self._now = now
        self._known: dict[str, tuple[datetime, T]] = {}

    def get(self, name: str) -> T:
        """The answer, at most `KEPT_FOR` old; raises what the reading raises."""
        # What is read while another thread forgets goes with what that one threw away.
        known, now = self._known, self._now()
        if name in known and now - known[name][0] < KEPT_FOR:
            return known[name][1]
        answer = self._read(name)
        known[name] = (now, answer)
        return answer

    def forget(self) -> None:
        """Something was changed here: read it anew."""
        self._known = {}
