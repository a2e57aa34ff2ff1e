"""The time of a fake: it stands still until a test moves it (`SimulatedClock`), or it goes on."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class FakesClock(Protocol):
    """What a fake needs of time."""

    def now(self) -> datetime: ...

    def advance(self, seconds: float) -> None: ...


class RunningClock:
    """Real time from a start on (by default now), and what was added. Any thread may ask."""

    def __init__(self, start: datetime | None = None) -> None:
        self._start = start or datetime.now(UTC)
        self._since = time.monotonic()
        self._lock = threading.Lock()

    def now(self) -> datetime:
        with self._lock:
            return self._start + timedelta(seconds=time.monotonic() - self._since)

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._start += timedelta(seconds=seconds)
