"""Which time windows are open: cron lines read in named time zones.

The one third-party import of the core is `cronsim`: pure, and right about daylight saving, where a
wall-clock time may be skipped or come twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from control_plane.core.policy import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWindow:
    """A window that is open now, and until when."""

    window: Window
    until: datetime


_BEYOND = timedelta(hours=3)
"""The search runs backwards on the wall clock. When that clock was just set back, fires of the hour
before are still ahead on it, so the search starts later than any clock is ever set back by."""


def open_windows(windows: Iterable[Window], now: datetime) -> tuple[OpenWindow, ...]:
    """The windows that are open at `now`, in their order."""
    found = ((window, _open_until(window, now)) for window in windows)
    return tuple(OpenWindow(window=window, until=until) for window, until in found if until)


def _open_until(window: Window, now: datetime) -> datetime | None:
    started = last_fire(window.cron, window.timezone, now)
    if started is None:
        return None
    until = started + timedelta(seconds=window.duration_s)
    return until if now < until else None


def last_fire(cron: str, timezone: str, now: datetime) -> datetime | None:
    """The last moment at or before `now` at which a cron line fired, in UTC; None if it never
    did."""
    start = (now + _BEYOND).astimezone(ZoneInfo(timezone))
    fires = (fire.astimezone(UTC) for fire in CronSim(cron, start, reverse=True))
    return next((moment for moment in fires if moment <= now), None)
