"""Which offers a pool takes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from control_plane.core.model import Market, Offer
from control_plane.core.policy import CloudPolicy, GpuRange, MarketPolicy, Range
from tests.build import offer, on_demand, pool

SOME = offer("0.50", gpus=2)  # 2 x L4 with 24 GiB, 8 CPUs, 32 GiB, spot, aws us-east-1


@pytest.mark.parametrize(
    ("rules", "accepted"),
    [
        ({}, True),
        ({"clouds": (CloudPolicy(provider="gcp"),)}, False),
        ({"clouds": (CloudPolicy(provider="gcp"), CloudPolicy(provider="aws"))}, True),
        ({"clouds": (CloudPolicy(provider="aws", regions=("us-east-1",)),)}, True),
        ({"clouds": (CloudPolicy(provider="aws", regions=("us-west-2",)),)}, False),
        ({"market": MarketPolicy.SPOT}, True),
        ({"market": MarketPolicy.ON_DEMAND}, False),
        ({"max_price_usd_hour": Decimal("0.50")}, True),  # the limit itself is allowed
        ({"max_price_usd_hour": Decimal("0.49")}, False),
        ({"cpus": Range(low=8)}, True),
        ({"cpus": Range(low=9)}, False),
        ({"cpus": Range(high=8)}, True),
        ({"cpus": Range(high=7)}, False),
        ({"memory_mib": Range(low=32_769)}, False),
        ({"memory_mib": Range(low=1, high=32_768)}, True),
        ({"gpu": None}, False),  # a pool without GPUs buys none
        ({"gpu": GpuRange()}, False),  # one card unless said otherwise
        ({"gpu": GpuRange(name="L4", count=Range(low=1, high=2))}, True),
        ({"gpu": GpuRange(name="A100", count=Range(low=1))}, False),
        ({"gpu": GpuRange(count=Range(low=2), memory_gib=Range(low=26))}, True),  # 234 <= 240
        ({"gpu": GpuRange(count=Range(low=2), memory_gib=Range(low=27))}, False),  # 243 > 240
        ({"gpu": GpuRange(count=Range(low=2), memory_gib=Range(high=22))}, True),  # 216 <= 220
        ({"gpu": GpuRange(count=Range(low=2), memory_gib=Range(high=21))}, False),  # 216 > 210
    ],
)
def test_a_pool_takes_what_all_its_rules_allow(rules: dict[str, Any], accepted: bool) -> None:
    """Place, market, price and size: one that does not hold is enough to refuse."""
    assert pool(**rules).accepts(SOME) is accepted


@pytest.mark.parametrize(
    ("market", "bought"),
    [
        (MarketPolicy.SPOT, {Market.SPOT}),
        (MarketPolicy.ON_DEMAND, {Market.ON_DEMAND}),
        (MarketPolicy.SPOT_FIRST, set(Market)),
    ],
)
def test_the_market_rule(market: MarketPolicy, bought: set[Market]) -> None:
    """`spot-first` may buy on demand too."""
    both: list[Offer] = [offer(), on_demand()]
    assert {each.market for each in both if pool(market=market).accepts(each)} == bought


def test_a_pool_without_gpus_takes_machines_without() -> None:
    """No GPU rule means no GPU, not any."""
    assert pool(gpu=None).accepts(offer(gpus=0))


def test_the_most_machines_of_a_pool_without_maximum_are_its_minimum() -> None:
    """Every cap is finite, also when only a minimum was given."""
    assert pool(low=2, high=None).machines_max == 2
    assert pool(low=2, high=7).machines_max == 7
