"""What was spent is the sum of the ledger at every moment; it costs no more when much is over."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from control_plane.core.cost import spend
from control_plane.core.snapshot import Spend
from control_plane.spending import LATE, Spending
from control_plane.stores.memory import MemoryStore
from tests.conformance.builders import interval
from tests.unit.loop.recording import Recording

START = datetime(2026, 3, 30, 22, 0, tzinfo=UTC)


def whole(store: MemoryStore, autoscaler: str, now: datetime) -> Spend:
    """From all of the month."""
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    month = day.replace(day=1)
    mine = [each for each in store.prices_between(month, now) if each.autoscaler == autoscaler]
    return Spend(day_usd=spend(mine, day, now), month_usd=spend(mine, month, now))


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_sum_of_the_ledger_over_days_and_months(seed: int) -> None:
    """Two days and a turn of the month, in steps of minutes: machines of two autoscalers begin and
    end, some are written down late, some for the second time, some as another price."""
    chance = Random(seed)
    store, now = MemoryStore(), START
    spending, running = Spending(store), list[str]()
    for number in range(500):
        now += timedelta(minutes=chance.choice((0, 1, 3, 17)))
        late = timedelta(minutes=chance.choice((0, 0, 2, 59)))
        step = chance.random()
        if step < 0.4:
            began = interval(f"m-{number}", start=now - late, price=str(chance.randint(1, 9)))
            store.price_open(replace(began, autoscaler=chance.choice(("a", "other"))))
            running.append(began.machine_id)
            if chance.random() < 0.3:
                store.price_close(running.pop(), at=now)
        elif step < 0.7 and running:
            ended = running.pop(chance.randrange(len(running)))
            store.price_close(ended, at=now - late)
        elif step < 0.8 and running:
            store.price_open(interval(running[0], start=now, price="0.5"))
        for autoscaler in ("a", "other"):
            assert spending.of(autoscaler, now) == whole(store, autoscaler, now), number
    assert now > START + timedelta(days=1)


def test_it_is_kept_by_autoscaler() -> None:
    store = MemoryStore()
    store.price_open(interval())
    spending, now = Spending(store), interval().started_at + timedelta(hours=2)
    for _ in range(2):
        assert spending.of("a", now).day_usd > 0
        assert spending.of("other", now) == Spend()


def test_a_month_is_read_once_a_day_whatever_is_over() -> None:
    store = Recording(MemoryStore())
    spending = Spending(store.as_store)
    with store.during() as calls:
        for minutes in (0, 1, 2, 60 * 24, 60 * 24 + 1):
            spending.of("a", START + timedelta(minutes=minutes))
    assert calls == [
        "prices_between",
        "prices_begun",
        "prices_begun",
        "prices_between",
        "prices_begun",
    ]


def test_a_clock_that_goes_back_is_believed() -> None:
    store = MemoryStore()
    store.price_open(interval(start=START))
    spending = Spending(store)
    later, earlier = START + timedelta(hours=1), START + timedelta(minutes=10)
    assert spending.of("a", later) == whole(store, "a", later)
    assert spending.of("a", earlier) == whole(store, "a", earlier)


def test_what_is_written_down_very_late_is_counted_from_the_next_day_on() -> None:
    store = MemoryStore()
    spending = Spending(store)
    now = START + LATE
    assert spending.of("a", now) == Spend()
    store.price_open(interval(start=START - timedelta(seconds=1)))
    store.price_close("m-1", at=START)
    assert spending.of("a", now) == Spend()
    tomorrow = now + timedelta(days=1)
    assert spending.of("a", tomorrow) == whole(store, "a", tomorrow)
    assert spending.of("a", tomorrow).month_usd > 0
