"""When a window is open: cron lines in named zones, also where the clock jumps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from control_plane.core.policy import Window
from control_plane.core.schedule import OpenWindow, last_fire, open_windows


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "fired"),
    [
        ("2026-11-02T08:00", "2026-11-02T08:00"),  # at the very moment
        ("2026-11-02T08:00:30", "2026-11-02T08:00"),
        ("2026-11-02T07:59:59", "2026-11-01T08:00"),  # a second before: yesterday's
        ("2026-11-02T08:00:00.000001", "2026-11-02T08:00"),
        ("2026-11-02T23:59:59.999999", "2026-11-02T08:00"),
    ],
)
def test_the_last_fire_is_the_one_at_or_before_now(now: str, fired: str) -> None:
    """The moment itself counts, to the microsecond."""
    found = last_fire("0 8 * * *", "UTC", utc(now))
    assert found == utc(fired)
    assert found is not None
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    ("cron", "timezone", "now", "fired"),
    [
        # Berlin is UTC+1 in winter and UTC+2 in summer.
        ("0 8 * * *", "Europe/Berlin", "2026-01-15T12:00", "2026-01-15T07:00"),
        ("0 8 * * *", "Europe/Berlin", "2026-07-15T12:00", "2026-07-15T06:00"),
        # Kolkata is UTC+5:30: 08:00 there is 02:30 UTC.
        ("0 8 * * *", "Asia/Kolkata", "2026-11-02T12:00", "2026-11-02T02:30"),
        # Friday 20:00 in Los Angeles (UTC-8) is Saturday 04:00 UTC.
        ("0 20 * * FRI", "America/Los_Angeles", "2026-11-14T05:00", "2026-11-14T04:00"),
        # 2026-03-29: 02:00 becomes 03:00. A line for 02:30 fires at once after the jump: 01:00 UTC.
        ("30 2 * * *", "Europe/Berlin", "2026-03-29T12:00", "2026-03-29T01:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-29T00:59", "2026-03-28T01:30"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-30T12:00", "2026-03-30T00:30"),
        # The line for 08:00 moves from 07:00 UTC to 06:00 UTC that day.
        ("0 8 * * *", "Europe/Berlin", "2026-03-29T12:00", "2026-03-29T06:00"),
        # 2026-10-25: 03:00 becomes 02:00. 02:30 comes twice; a line for it fires the first time.
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T12:00", "2026-10-25T00:30"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:29", "2026-10-24T00:30"),
        ("0 8 * * *", "Europe/Berlin", "2026-10-25T12:00", "2026-10-25T07:00"),
        # A line for every hour fires in both of the two hours.
        ("30 * * * *", "Europe/Berlin", "2026-10-25T00:45", "2026-10-25T00:30"),
        ("30 * * * *", "Europe/Berlin", "2026-10-25T01:45", "2026-10-25T01:30"),
        ("30 * * * *", "Europe/Berlin", "2026-03-29T01:15", "2026-03-29T00:30"),
        # Just before the clock is set back, one minute ahead on the wall is an hour ahead.
        ("59 * * * *", "Europe/Berlin", "2026-10-25T00:59:30", "2026-10-25T00:59"),
        ("59 * * * *", "Europe/Berlin", "2026-10-25T01:59:30", "2026-10-25T01:59"),
        # 29 February: last seen in 2024.
        ("0 0 29 2 *", "UTC", "2026-11-02T12:00", "2024-02-29T00:00"),
    ],
)
def test_a_line_is_read_on_the_wall_clock_of_its_zone(
    cron: str, timezone: str, now: str, fired: str
) -> None:
    """Also on the two days of the year on which that clock jumps."""
    assert last_fire(cron, timezone, utc(now)) == utc(fired)


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
@pytest.mark.parametrize("cron", ["15 * * * *", "30 2 * * *", "0 */2 * * *", "59 1,2,3 * * *"])
def test_looking_back_finds_what_looking_forward_finds(day: str, cron: str) -> None:
    """Minute by minute through both jumps of 2026: cronsim's own fires, read the other way."""
    start = utc(f"{day}T00:00")
    berlin = ZoneInfo("Europe/Berlin")
    forward = CronSim(cron, (start - timedelta(days=2)).astimezone(berlin))
    fires = [fire.astimezone(UTC) for fire in islice(forward, 100)]
    for minute in range(240):
        now = start + timedelta(minutes=minute)
        assert last_fire(cron, "Europe/Berlin", now) == max(f for f in fires if f <= now)


NIGHT = Window(cron="0 22 * * *", duration_s=8 * 3600, timezone="Europe/Berlin", machines=2)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-11-02T20:59", None),  # 21:59 in Berlin
        ("2026-11-02T21:00", "2026-11-03T05:00"),  # 22:00 to 06:00
        ("2026-11-02T23:30", "2026-11-03T05:00"),  # after midnight it is still yesterday's
        ("2026-11-03T04:59:59", "2026-11-03T05:00"),
        ("2026-11-03T05:00", None),  # the end is outside
        # In the night of the jump the window lasts its eight hours, to 05:00 on the wall.
        ("2026-10-25T03:30", "2026-10-25T04:00"),
    ],
)
def test_a_window_spans_midnight_and_lasts_its_time(now: str, until: str | None) -> None:
    """From the moment it fires, for exactly as long as it says."""
    opened = open_windows((NIGHT,), utc(now))
    assert opened == ((OpenWindow(window=NIGHT, until=utc(until)),) if until else ())


def test_a_window_that_fires_again_while_it_is_open_is_prolonged() -> None:
    """Every hour for three hours is open for ever; its end is three hours after the last fire."""
    window = Window(cron="0 * * * *", duration_s=3 * 3600)
    (opened,) = open_windows((window,), utc("2026-11-02T12:30"))
    assert opened.until == utc("2026-11-02T15:00")


def test_several_windows_are_told_in_their_order() -> None:
    """Those that are closed are left out."""
    morning = Window(cron="0 8 * * *", duration_s=8 * 3600)
    noon = Window(cron="0 12 * * *", duration_s=3600, machines=1)
    evening = Window(cron="0 18 * * *", duration_s=3600)
    opened = open_windows((noon, evening, morning), utc("2026-11-02T12:00"))
    assert [each.window for each in opened] == [noon, morning]


NEVER = "0 0 */20 * MON#5"
"""Days 1 and 21 that are a fifth Monday."""


def test_a_line_that_never_fires_opens_nothing() -> None:
    """The search has an end."""
    window = Window(cron=NEVER, duration_s=60)
    assert last_fire(NEVER, "UTC", utc("2026-11-02T12:00")) is None
    assert open_windows((window,), utc("2026-11-02T12:00")) == ()
