"""What fits into what, and the small facts that values know about themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from control_plane.core.model import Capacity, Machine, Market, Need, Observation, breaker_key
from tests.build import NOW, capacity, machine, offer, on_demand

BOX = capacity(4)  # 4 x L4 with 24 GiB, 16 CPUs, 64 GiB, 100 GiB disk, spot


@pytest.mark.parametrize(
    ("need", "count"),
    [
        ({"gpus": 1}, 4),  # 4 // 1
        ({"gpus": 3}, 1),  # 4 // 3
        ({"gpus": 4}, 1),
        ({"gpus": 5}, 0),
        ({"gpus": 1, "cpus": 5}, 3),  # min(4 // 1, 16 // 5)
        ({"gpus": 1, "memory_mib": 32_768}, 2),  # min(4 // 1, 65536 // 32768)
        ({"cpus": 16}, 1),
        ({"cpus": 17}, 0),
        ({"memory_mib": 65_537}, 0),
        ({"disk_gib": 40}, 2),  # 100 // 40
        ({"disk_gib": 101}, 0),
        ({"share_ppm": 300_000}, 3),  # 1000000 // 300000
        ({"share_ppm": 1_000_001}, 0),
        ({"gpus": 1, "gpu_name": "L4"}, 4),
        ({"gpus": 1, "gpu_name": "A100"}, 0),
        ({"cpus": 1, "gpu_name": "A100"}, 16),  # a name without a count asks for nothing
        ({"gpus": 1, "gpu_memory_gib": 24}, 4),
        ({"gpus": 1, "gpu_memory_gib": 26}, 4),  # 26 * 9 = 234 <= 24 * 10: within the tenth
        ({"gpus": 1, "gpu_memory_gib": 27}, 0),  # 27 * 9 = 243 > 240
        ({"gpus": 1, "on_demand_only": True}, 0),  # it is a spot machine
        ({}, 0),  # a need of nothing has no count
    ],
)
def test_how_many_jobs_fit_side_by_side(need: dict[str, Any], count: int) -> None:
    """The scarcest resource decides; one that is not stated does not count."""
    assert BOX.count(Need(**need)) == count


def test_a_job_that_must_not_be_interrupted_fits_on_demand_only() -> None:
    """The market is part of what a machine has."""
    steady = replace(BOX, market=Market.ON_DEMAND)
    assert steady.fits(Need(gpus=1, on_demand_only=True))
    assert not BOX.fits(Need(gpus=1, on_demand_only=True))


def test_a_reported_card_may_have_a_tenth_less_than_its_data_sheet() -> None:
    """An L4 reports 22 GiB and still is a 24 GiB card; 21 GiB is another card."""
    need = Need(gpus=1, gpu_memory_gib=24)
    assert replace(BOX, gpu_memory_gib=22).fits(need)  # 216 <= 220
    assert not replace(BOX, gpu_memory_gib=21).fits(need)  # 216 > 210


def test_what_is_left_is_never_below_zero() -> None:
    """A machine that holds more than the books say has nothing left, not a debt."""
    need = Need(gpus=1, cpus=3, memory_mib=1000, disk_gib=60, share_ppm=10)
    assert BOX.less(need, 2) == replace(
        BOX, gpus=2, cpus=10, memory_mib=63_536, disk_gib=0, share_ppm=999_980
    )
    left = BOX.less(Need(gpus=9, cpus=99, memory_mib=99_999, share_ppm=2_000_000))
    assert left == replace(BOX, gpus=0, cpus=0, memory_mib=0, share_ppm=0)
    assert BOX.less(need) == BOX.less(need, 1)


def test_an_offers_key_is_its_place_type_and_market() -> None:
    """The key under which a refusal is remembered; `*` where the cloud picks the zone."""
    assert offer().key == "aws/us-east-1/us-east-1a/g6.1x/spot"
    assert on_demand(zone="").key == "aws/us-east-1/*/g6.1x/on-demand"
    assert breaker_key("l4", offer()) == "boot/l4/aws/us-east-1/us-east-1a/g6.1x/spot"


@pytest.mark.parametrize(("attempt", "price"), [(1, "0.30"), (2, "1.00"), (3, "1.00")])
def test_a_machines_offer_is_that_of_its_attempt(attempt: int, price: str) -> None:
    """Attempt n buys offer n; an attempt beyond the list keeps the last."""
    tried = machine("m-1", attempt=attempt)
    tried = replace(tried, offers=(offer("0.30"), on_demand("1.00")))
    assert str(tried.offer.price_usd_hour) == price
    assert tried.launch_key == f"m-1.{attempt}"


def test_a_machine_may_be_bought_as_another_of_its_offers() -> None:
    """The key stays, and what was not bought is still to be tried."""
    first, second, third = offer("0.30"), on_demand("1.00"), offer("0.40", zone="us-east-1b")
    tried = replace(machine("m-1", attempt=2), offers=(first, second, third))
    bought = tried.buying(third)
    assert bought == replace(tried, offers=(first, third, second))
    assert (bought.offer, bought.launch_key) == (third, tried.launch_key)
    assert tried.buying(second) is tried
    assert tried.buying(offer("0.99")) is tried  # what it was never meant to be


def test_what_the_agent_found_counts_more_than_what_was_offered() -> None:
    """Machines differ from their data sheets."""
    bare: Machine = machine()
    assert bare.total == offer().capacity
    found = Capacity(gpus=1, cpus=3)
    assert replace(bare, capacity=found).total == found


@pytest.mark.parametrize(
    ("unknown", "knows"),
    [((), True), (("*",), False), (("r",), False), (("z",), False), (("r2", "z2"), True)],
)
def test_absence_from_a_listing_means_something_only_where_it_answered(
    unknown: tuple[str, ...], knows: bool
) -> None:
    """A region, a zone or the whole cloud may be unknown."""
    assert Observation(provider="aws", at=NOW, unknown=unknown).knows("r", "z") is knows
