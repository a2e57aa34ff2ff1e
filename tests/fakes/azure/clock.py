"""The fake's time: it stands still until a test moves it, or goes on as real time does."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

START = datetime(2026, 11, 2, 8, 0, tzinfo=UTC)


class MovedClock(Protocol):
    """What the fake needs of time."""

    def now(self) -> datetime: ...

    def advance(self, seconds: float) -> None: ...


class FakeClock:
    """Aware UTC, moved by hand; `ticking` lets real time be added. Safe to use from threads."""

    def __init__(self, start: datetime = START, *, ticking: bool = False) -> None:
        self._now = start
        self._since = time.monotonic() if ticking else None
        self._lock = threading.Lock()

    def now(self) -> datetime:
        with self._lock:
            gone_by = time.monotonic() - self._since if self._since is not None else 0.0
            return self._now + timedelta(seconds=gone_by)

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now += timedelta(seconds=seconds)
