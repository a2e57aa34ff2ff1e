"""Caps: what counts against them, and where exactly they end."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from control_plane.core.budget import Caps, possible_offers
from control_plane.core.choice import Choice
from control_plane.core.model import Machine, MachineState, Offer
from control_plane.core.snapshot import Spend
from tests.build import machine, offer, on_demand, policy, pool, snapshot

POOL = pool(high=2, gpus_max=4)
S = MachineState


def caps(*machines: Machine, spend: Spend | None = None, **budget: Any) -> Caps:
    rules = policy(POOL, pool("other"), budget=budget)
    return Caps(snapshot(policy=rules, machines=machines, spend=spend or Spend()))


TWO = (offer("0.30"), on_demand("1.00", gpus=2))


@pytest.mark.parametrize(
    ("state", "attempt", "usd_hour", "gpus"),
    [
        (S.PLANNED, 1, "1.00", 2),  # may still fall back to the dear one
        (S.LAUNCHING, 1, "1.00", 2),
        (S.LAUNCHING, 2, "1.00", 2),
        (S.BOOTING, 1, "0.30", 1),  # the cloud has taken the first
        (S.READY, 2, "1.00", 2),
        (S.DRAINING, 1, "0.30", 1),
        (S.TERMINATING, 1, "0.30", 1),  # until it is proven gone
        (S.LOST, 1, "0.30", 1),
        (S.TERMINATED, 1, "0", 0),
        (S.LAUNCH_FAILED, 1, "0", 0),
    ],
)
def test_a_machine_counts_at_its_worst_from_intent_to_proof(
    state: MachineState, attempt: int, usd_hour: str, gpus: int
) -> None:
    """0.30 USD/hour with one card, or as a fallback 1.00 USD/hour with two."""
    found = caps(machine("m-1", state, *TWO, attempt=attempt))
    assert found.rate_usd_hour == Decimal(usd_hour)
    fits = [n for n in range(1, 6) if found.refuse_offer(POOL, offer("0.01", gpus=n)) is None]
    assert fits == list(range(1, 5 - gpus))  # of the pool's 4 cards


def test_all_machines_count_together() -> None:
    """Two with one card: 2 x 0.30 USD/hour, and two of the pool's four cards are left."""
    found = caps(machine("m-1"), machine("m-2"))
    assert found.rate_usd_hour == Decimal("0.60")
    assert found.refuse_offer(POOL, offer(gpus=2)) is None
    assert found.refuse_offer(POOL, offer(gpus=3)) is not None


def test_an_open_launch_may_become_what_it_has_not_tried_yet() -> None:
    """The second of three: the first was refused."""
    three: tuple[Offer, ...] = (offer("0.1"), offer("0.2"), offer("0.3"))
    assert possible_offers(machine("m", S.LAUNCHING, *three, attempt=2)) == three[1:]
    assert possible_offers(machine("m", S.PLANNED, *three, attempt=9)) == three[2:]
    assert possible_offers(machine("m", S.BOOTING, *three, attempt=2)) == (three[1],)


@pytest.mark.parametrize(("there", "code"), [(1, None), (2, "cap-machines"), (3, "cap-machines")])
def test_the_machines_of_a_pool_are_capped(there: int, code: str | None) -> None:
    """Two at most; machines of other pools do not count."""
    mine = [machine(f"m-{n}") for n in range(there)]
    refused = caps(*mine, machine("o-1", pool="other")).refuse_machine(POOL)
    assert (refused.code if refused else None) == code


@pytest.mark.parametrize(
    ("price", "budget", "spend", "code"),
    [
        # One machine of 0.30 runs; what may come costs `price`.
        ("0.70", {"hour_usd": "1.00"}, {}, None),  # 0.30 + 0.70 = 1.00: reaching it is allowed
        ("0.71", {"hour_usd": "1.00"}, {}, "cap-hour"),
        ("0.70", {"day_usd": "11.00"}, {"day_usd": Decimal(10)}, None),  # 10 + 1.00 = 11.00
        ("0.71", {"day_usd": "11.00"}, {"day_usd": Decimal(10)}, "cap-day"),
        ("0.70", {"month_usd": "11.00"}, {"month_usd": Decimal(10)}, None),
        ("0.71", {"month_usd": "11.00"}, {"month_usd": Decimal(10)}, "cap-month"),
        # The hour is told before the day, the day before the month.
        ("9.00", {"hour_usd": "1", "day_usd": "1", "month_usd": "1"}, {}, "cap-hour"),
        ("9.00", {"day_usd": "1", "month_usd": "1"}, {}, "cap-day"),
    ],
)
def test_money_caps_hold_for_the_hour_ahead(
    price: str, budget: dict[str, Any], spend: dict[str, Decimal], code: str | None
) -> None:
    """All machines together must be able to run for an hour within every budget."""
    found = caps(machine(), spend=Spend(**spend), **budget)
    refused = found.refuse_offer(POOL, offer(price))
    assert (refused.code if refused else None) == code


def test_the_cards_of_a_pool_are_capped() -> None:
    """One of four is there: three more fit, four do not."""
    found = caps(machine())
    assert found.refuse_offer(POOL, offer(gpus=3)) is None
    refused = found.refuse_offer(POOL, offer(gpus=4))
    assert refused is not None
    assert refused.code == "cap-gpus"


def test_what_is_bought_counts_at_once() -> None:
    """The next machine of the same plan sees less room."""
    found = caps(machine(), hour_usd="1.00")
    found.take(POOL, offer("0.40", gpus=2))
    assert found.rate_usd_hour == Decimal("0.70")
    assert found.refuse_machine(POOL) is not None  # 1 + 1 = 2, the maximum
    assert found.refuse_offer(POOL, offer("0.30")) is None  # 0.70 + 0.30 = 1.00; 3 + 1 = 4 cards
    assert found.refuse_offer(POOL, offer("0.31")) is not None
    assert found.refuse_offer(POOL, offer("0.01", gpus=2)) is not None  # 3 + 2 = 5 cards


@pytest.mark.parametrize(
    ("more", "budget", "spend", "allowed", "usd_hour"),
    [
        # 0.30 runs, 0.40 with one card is bought and may also become `more`.
        (offer("0.10"), {"hour_usd": "0.70"}, {}, True, "0.70"),  # cheaper: adds nothing
        (offer("0.70"), {"hour_usd": "1.00"}, {}, True, "1.00"),  # 0.70 + (0.70 - 0.40)
        (offer("0.71"), {"hour_usd": "1.00"}, {}, False, "0.70"),
        (offer("0.70"), {"day_usd": "6"}, {"day_usd": Decimal(5)}, True, "1.00"),
        (offer("0.71"), {"day_usd": "6"}, {"day_usd": Decimal(5)}, False, "0.70"),
        (offer("0.70"), {"month_usd": "6"}, {"month_usd": Decimal(5)}, True, "1.00"),
        (offer("0.71"), {"month_usd": "6"}, {"month_usd": Decimal(5)}, False, "0.70"),
        (offer("0.40", gpus=3), {}, {}, True, "0.70"),  # 1 + 1 + (3 - 1) = 4 cards
        (offer("0.40", gpus=4), {}, {}, False, "0.70"),
    ],
)
def test_a_fallback_counts_only_by_what_it_adds(
    more: Offer, budget: dict[str, Any], spend: dict[str, Decimal], allowed: bool, usd_hour: str
) -> None:
    """And is left out where a cap has no room for that."""
    found = caps(machine(), spend=Spend(**spend), **budget)
    first = offer("0.40")
    found.take(POOL, first)
    assert found.widen(POOL, Choice([first, more])) == ((first, more) if allowed else (first,))
    assert found.rate_usd_hour == Decimal(usd_hour)


def test_a_fallback_with_as_many_cards_fits_a_pool_that_is_full() -> None:
    """Two of two cards are taken: another offer of one card takes no more."""
    tight = pool(gpus_max=2)
    found = Caps(snapshot(policy=policy(tight), machines=(machine(),)))
    found.take(tight, offer("0.40"))
    choice = Choice([offer("0.40"), offer("0.50"), offer("0.50", gpus=2)])
    assert found.widen(tight, choice) == choice.offers[:2]


@pytest.mark.parametrize("period", ["day", "month"])
def test_the_look_ahead_is_a_time(period: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two hours instead of one: 5 + 2 x 0.50 = 6."""
    monkeypatch.setattr("control_plane.core.budget.LOOKAHEAD_HOURS", Decimal(2))
    found = caps(spend=Spend(**{f"{period}_usd": Decimal(5)}), **{f"{period}_usd": "6"})
    assert found.refuse_offer(POOL, offer("0.51")) is not None
    assert found.refuse_offer(POOL, offer("0.50")) is None
    found.take(POOL, offer("0.40"))
    choice = Choice([offer("0.40"), offer("0.51"), offer("0.50")])
    assert found.widen(POOL, choice) == (offer("0.40"), offer("0.50"))


def test_fallbacks_add_up() -> None:
    """The dearest so far is what the next one is compared with, in money and in cards."""
    found = caps(hour_usd="1.00")
    found.take(POOL, offer("0.40"))
    choice = Choice([offer("0.40"), offer("0.90", gpus=3), offer("1.00", gpus=4)])
    assert found.widen(POOL, choice) == choice.offers
    assert found.rate_usd_hour == Decimal("1.00")
    assert found.refuse_offer(POOL, offer("0", gpus=1)) is not None  # 4 cards may be taken


@pytest.mark.parametrize(
    ("day", "month", "code"),
    [
        ("9.99", "99.99", None),
        ("10", "0", "budget-day"),
        ("10.01", "100", "budget-day"),
        ("0", "100", "budget-month"),
    ],
)
def test_a_budget_is_used_up_when_it_is_reached(day: str, month: str, code: str | None) -> None:
    """10 USD a day, 100 USD a month."""
    spend = Spend(day_usd=Decimal(day), month_usd=Decimal(month))
    used_up = caps(spend=spend, day_usd="10", month_usd="100").used_up()
    assert (used_up.code if used_up else None) == code


@pytest.mark.parametrize(
    ("offers", "high", "gpus_max", "budget", "machines"),
    [
        # One machine of 0.30 and one card is there; the first offer is the one that is bought.
        ([offer("0.30")], 9, 99, {}, 8),  # 9 machines - 1
        ([offer("0.30", gpus=2)], 9, 6, {}, 2),  # 1 + 2 + 2 = 5 cards
        ([offer("0.30", gpus=2)], 9, 7, {}, 3),  # 1 + 3 x 2 = 7 cards
        ([offer("0.30"), offer("0.30", gpus=3)], 9, 7, {}, 4),  # 1 + 3 + 3: the larger still fits
        ([offer("0.30", gpus=0)], 9, 1, {}, 8),  # cards are no matter
        ([offer("0.30")], 9, 99, {"hour_usd": "1.20"}, 3),  # 0.30 + 3 x 0.30 = 1.20
        ([offer("0.30")], 9, 99, {"day_usd": "1.19"}, 2),
        ([offer("0.30"), offer("0.60")], 9, 99, {"month_usd": "1.20"}, 2),  # 0.30 + 0.30 + 0.60
        ([offer("0")], 9, 99, {"hour_usd": "0.30"}, 8),  # money is no matter
    ],
)
def test_machines_are_alike_until_a_cap_takes_an_offer_away(
    offers: list[Offer], high: int, gpus_max: int, budget: dict[str, Any], machines: int
) -> None:
    """So many are bought in one step, and not one more."""
    wide = pool(high=high, gpus_max=gpus_max)
    found = Caps(snapshot(policy=policy(wide, budget=budget), machines=(machine(),)))
    choice = Choice(offers)
    assert found.affordable(wide, choice) is choice
    assert found.alike(wide, choice) == machines
    found.take(wide, offers[0], machines - 1)
    assert found.affordable(wide, choice) is choice
    assert found.alike(wide, choice) == 1
    found.take(wide, offers[0])
    assert found.affordable(wide, choice) is not choice or found.refuse_machine(wide) is not None
