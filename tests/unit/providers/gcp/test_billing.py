"""Prices on demand from the list that Google bills by: the right entries, or the shipped figure."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from control_plane.core.model import Market, Offer
from providers.gcp.billing import PriceList, parts, prices
from providers.gcp.client import Client
from providers.gcp.launch import machine_type
from providers.gcp.prices import catalogue
from providers.gcp.provider import GcpProvider
from tests.fakes.gcp.billing import AMERICAS, UNIT_USD, sku, skus
from tests.fakes.gcp.connection import to
from tests.unit.providers.gcp.conftest import World

IOWA = "us-central1"
KNOWN = ("a2-", "e2-", "g2-", "n1-", "n2-", "n2d-")
"""Series whose unit prices are known."""
CORE = "E2 Instance Core running in Americas"


def shipped(kind: str = "e2-standard-4", market: Market = Market.ON_DEMAND) -> Offer:
    return next(
        each
        for each in catalogue([IOWA])
        if (machine_type(each.instance_type), each.market) == (kind, market)
    )


def told(world: World, offer: Offer) -> Decimal | None:
    """What a fresh look at the list says of an offer."""
    listed = PriceList(Client(to(world.server.url)), world.clock.now)
    listed.refresh()
    return listed.on_demand(offer)


def changed(name: str, **fields: Any) -> list[dict[str, Any]]:
    """The list with one entry changed."""
    return [each | fields if each["description"] == name else each for each in skus()]


def dearer(offer: Offer) -> Offer:
    """As an old table would have it: so that a price of the list is told from it."""
    price = offer.price_usd_hour * Decimal("1.3")
    return replace(offer, price_usd_hour=price, on_demand_usd_hour=price)


def test_list_gives_the_prices_that_the_table_has(world: World) -> None:
    """The table was computed by others from the same list: parts, units and entries are right when
    both come to the same, for every machine whose unit prices are published."""
    listed = PriceList(Client(to(world.server.url)), world.clock.now)
    listed.refresh()
    seen = set[str]()
    for offer in catalogue(AMERICAS):
        if not offer.instance_type.startswith(KNOWN) or offer.market is Market.SPOT:
            continue
        price = listed.on_demand(dearer(offer))
        assert price is not None
        assert abs(price - offer.price_usd_hour) <= Decimal("0.0005") * offer.price_usd_hour
        seen.add(offer.instance_type)
    assert len(seen) > 25
    assert {"a2-ultragpu-8g", "n1-standard-8+V100:1", "g2-standard-96", "e2-standard-2"} <= seen


@pytest.mark.parametrize("kind", ["a3-highgpu-8g", "a3-megagpu-8g"])
def test_machines_with_parts_we_do_not_know_keep_the_shipped_price(world: World, kind: str) -> None:
    known = shipped(kind)
    assert parts(known) == []
    assert told(world, known) == known.price_usd_hour


def test_what_is_not_sold_on_demand_gets_no_price(world: World) -> None:
    assert told(world, shipped("a3-highgpu-1g", Market.SPOT)) is None


def test_series_that_the_list_does_not_have_keeps_the_shipped_price(world: World) -> None:
    known = dearer(shipped("g4-standard-48"))
    assert parts(known)
    assert told(world, known) == known.price_usd_hour


@pytest.mark.parametrize(
    "entry",
    [
        {"serviceRegions": ["us-east1"]},
        {"category": {"usageType": "Preemptible"}},
        {"category": {}},
        {"pricingInfo": []},
        {"pricingInfo": [{"pricingExpression": {"usageUnit": "h", "tieredRates": []}}]},
        {"pricingInfo": sku(CORE, "0.03", "d")["pricingInfo"]},
        {"pricingInfo": sku(CORE, "0.03", currency="EUR")["pricingInfo"]},
        {"pricingInfo": sku(CORE, "0")["pricingInfo"]},
        {"pricingInfo": sku(CORE, "0.3")["pricingInfo"]},
        {"pricingInfo": sku(CORE, "0.0001")["pricingInfo"]},
        {"description": "E2 Instance Core running in Americas (DWS)"},
        {"description": "E2 Instance Core"},
    ],
    ids=lambda entry: str(entry)[:60],
)
def test_entry_that_is_not_clear_leaves_the_shipped_price(
    world: World, entry: Mapping[str, Any]
) -> None:
    known = dearer(shipped())
    assert told(world, known) != known.price_usd_hour
    world.cloud.skus = changed(CORE, **entry)
    assert told(world, known) == known.price_usd_hour


@pytest.mark.parametrize(
    "entry",
    [{"serviceRegions": ["us-east1"]}, {"pricingInfo": sku("", "0", "GiBy.h")["pricingInfo"]}],
)
def test_sum_without_a_small_part_is_no_price(world: World, entry: Mapping[str, Any]) -> None:
    """Not even when it comes near: memory is a fifteenth of what a GPU machine costs."""
    known = dearer(shipped("g2-standard-4"))
    assert told(world, known) != known.price_usd_hour
    world.cloud.skus = changed("G2 Instance Ram running in Americas", **entry)
    assert told(world, known) == known.price_usd_hour


def test_two_prices_for_one_part_are_none(world: World) -> None:
    known = dearer(shipped())
    again = sku("E2 Instance Core running in Iowa", UNIT_USD["E2 Instance Core"][0], "h", IOWA)
    world.cloud.skus = [*skus(), again]
    assert told(world, known) != known.price_usd_hour, "the same price twice is one"
    world.cloud.skus = [*skus(), sku("E2 Instance Core running in Iowa", "0.025", "h", IOWA)]
    assert told(world, known) == known.price_usd_hour
    oregon = replace(known, region="us-west1", zone="us-west1-a")
    assert told(world, oregon) != known.price_usd_hour


def test_price_in_tiers_is_none() -> None:
    entry = sku(CORE, "0.02")
    (rate,) = entry["pricingInfo"][0]["pricingExpression"]["tieredRates"]
    tiers = [rate, rate | {"startUsageAmount": 100}]
    entry["pricingInfo"][0]["pricingExpression"]["tieredRates"] = tiers
    assert prices([entry]) == {}


def test_last_period_counts() -> None:
    entry = sku(CORE, "0.02", "h", IOWA)
    entry["pricingInfo"] += sku(CORE, "0.03")["pricingInfo"]
    assert prices([entry]) == {("E2 Instance Core", IOWA): Decimal("0.03")}


# --------------------------------------------------------------------------------- among offers


def sold(provider: GcpProvider, world: World, kind: str, market: Market) -> Offer:
    return next(
        each
        for each in provider.offers(world.clouds(IOWA))
        if (machine_type(each.instance_type), each.market) == (kind, market)
    )


def test_offers_have_the_price_of_today(world: World, provider: GcpProvider) -> None:
    usd = sku("", "0.03")["pricingInfo"]
    world.cloud.skus = changed(CORE, pricingInfo=usd)
    wanted = Decimal("0.03") * 4 + Decimal("0.00292353") * 16
    bought = sold(provider, world, "e2-standard-4", Market.ON_DEMAND)
    assert bought.price_usd_hour == bought.on_demand_usd_hour == round(wanted, 6)
    spot = sold(provider, world, "e2-standard-4", Market.SPOT)
    assert spot.on_demand_usd_hour == round(wanted, 6)
    assert spot.price_usd_hour < wanted


@pytest.mark.parametrize("told_of_spot", [True, False])
def test_spot_is_no_dearer_than_the_list_has_become(
    world: World, provider: GcpProvider, told_of_spot: bool
) -> None:
    if not told_of_spot:
        world.cloud.fail_next("forbidden", times=1000, call="advice.capacityHistory")
    spot = sold(provider, world, "e2-standard-4", Market.SPOT)
    world.clock.advance(timedelta(days=1).total_seconds())
    world.cloud.skus = changed(CORE, pricingInfo=sku("", "0.006")["pricingInfo"])
    found = sold(provider, world, "e2-standard-4", Market.SPOT)
    assert found.price_usd_hour == found.on_demand_usd_hour < spot.price_usd_hour


def test_list_is_read_once_a_day(world: World, provider: GcpProvider) -> None:
    def pages() -> int:
        before = world.cloud.calls["skus.list"]
        provider.offers(world.clouds(IOWA))
        return world.cloud.calls["skus.list"] - before

    assert pages() == -(-len(skus()) // world.cloud.skus_at_once) > 2
    world.clock.advance(timedelta(hours=23).total_seconds())
    assert pages() == 0
    world.clock.advance(timedelta(hours=1).total_seconds())
    assert pages() > 2


def test_list_that_cannot_be_read_leaves_what_was_known(
    world: World, provider: GcpProvider, caplog: pytest.LogCaptureFixture
) -> None:
    usd = sku("", "0.03")["pricingInfo"]
    world.cloud.skus = changed(CORE, pricingInfo=usd)
    first = sold(provider, world, "e2-standard-4", Market.ON_DEMAND)
    world.clock.advance(timedelta(days=1).total_seconds())
    world.cloud.fail_next("accessNotConfigured", times=1, call="skus.list")
    with caplog.at_level(logging.WARNING):
        assert sold(provider, world, "e2-standard-4", Market.ON_DEMAND) == first
    assert "accessNotConfigured" in caplog.text
    before = world.cloud.calls["skus.list"]
    world.clock.advance(3599)
    sold(provider, world, "e2-standard-4", Market.ON_DEMAND)
    assert world.cloud.calls["skus.list"] == before
    world.clock.advance(1)
    sold(provider, world, "e2-standard-4", Market.ON_DEMAND)
    assert world.cloud.calls["skus.list"] > before


def test_project_that_never_has_the_list_is_told_so_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    listed = PriceList(Client(to(world.server.url)), world.clock.now)
    world.cloud.fail_next("accessNotConfigured", times=3, call="skus.list")
    world.cloud.fail_next("backendError", call="skus.list")
    for _ in range(4):
        listed.refresh()
        world.clock.advance(3600)
    said = [each.getMessage() for each in caplog.records]
    assert len(said) == 2
    assert "accessNotConfigured" in said[0]
    assert "backendError" in said[1]


def test_list_that_breaks_off_is_not_believed_in_part(world: World) -> None:
    class Breaking(Client):
        def skus(self, service: str) -> Iterator[Mapping[str, Any]]:
            entries = super().skus(service)
            yield next(entries)
            world.cloud.drop_next_answer("skus.list")
            yield from entries

    known = dearer(shipped())
    world.cloud.skus = [*skus(), *(sku("Storage PD Capacity", "0.04") for _ in range(5))]
    world.cloud.skus_at_once = len(skus())
    listed = PriceList(Breaking(to(world.server.url)), world.clock.now)
    listed.refresh()
    assert listed.on_demand(known) == known.price_usd_hour
