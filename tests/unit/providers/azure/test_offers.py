"""What is sold: the catalogue, joined with prices, rights and quotas of the moment."""

from __future__ import annotations

from decimal import Decimal

import pytest

from control_plane.core.model import Market, Offer
from providers.azure.prices import prices
from providers.catalog.loader import load_offers
from tests.fakes.azure import stock
from tests.unit.providers.azure.conftest import BURSTABLE, GPU_SIZE, PLAIN_SIZE, World

SHIPPED = [each for each in load_offers(["azure"]) if each.region == "eastus"]


def found(world: World, size: str = GPU_SIZE) -> dict[Market, Offer]:
    offers = world.provider.offers([world.settings("eastus")])
    return {each.market: each for each in offers if each.instance_type == size}


def test_without_settings_the_catalogue_is_told_and_nobody_asked(world: World) -> None:
    assert list(world.provider.offers()) == list(load_offers(["azure"]))
    assert world.cloud.calls == []


def test_at_shipped_prices_the_offers_are_the_catalogues(world: World) -> None:
    """The fake sells the catalogue at its prices, among old, dear and foreign rows."""
    offers = world.provider.offers([world.settings("eastus")])
    assert {each.key for each in offers} == {each.key for each in SHIPPED}
    assert {each.key: each.price_usd_hour for each in offers} == {
        each.key: each.price_usd_hour for each in SHIPPED
    }
    assert world.calls("prices") > 1, "the price list has several pages"


def test_only_regions_that_are_named(world: World) -> None:
    offers = world.provider.offers([world.settings("westeurope"), world.settings("eastus")])
    assert {each.region for each in offers} == {"westeurope", "eastus"}
    assert len({each.key for each in offers}) == len(offers)


def test_price_of_today_replaces_the_shipped_one(world: World) -> None:
    world.cloud.set_price("eastus", GPU_SIZE, "spot", "0.0512")
    world.cloud.set_price("eastus", GPU_SIZE, "on-demand", "0.5501")
    offers = found(world)
    assert offers[Market.SPOT].price_usd_hour == Decimal("0.0512")
    assert offers[Market.ON_DEMAND].price_usd_hour == Decimal("0.5501")
    assert {each.on_demand_usd_hour for each in offers.values()} == {Decimal("0.5501")}


def test_spot_price_above_the_list_price_is_not_offered(world: World) -> None:
    world.cloud.set_price("eastus", GPU_SIZE, "spot", "9.99")
    assert set(found(world)) == {Market.ON_DEMAND}


def test_untidy_list_gives_the_newest_then_the_lowest_price(world: World) -> None:
    size = stock.sizes()["eastus", GPU_SIZE.lower()]
    rows = list(stock.price_rows("eastus", {}))
    of_size = [row for row in rows if row["armSkuName"] == GPU_SIZE]
    assert len(of_size) == 10
    assert prices(world.clients, "eastus")[GPU_SIZE, Market.SPOT] == size.prices[Market.SPOT]


@pytest.mark.parametrize(
    ("name", "cores", "left"),
    [
        ("lowPriorityCores", 0, {Market.ON_DEMAND}),
        ("lowPriorityCores", 3, {Market.ON_DEMAND}),
        ("lowPriorityCores", 4, {Market.ON_DEMAND, Market.SPOT}),
        ("cores", 0, {Market.SPOT}),
        ("", 0, {Market.SPOT}),
        ("", 4, {Market.ON_DEMAND, Market.SPOT}),
    ],
)
def test_quota_that_no_machine_fits_in_takes_the_offer_away(
    world: World, name: str, cores: int, left: set[Market]
) -> None:
    family = stock.sizes()["eastus", GPU_SIZE.lower()].family
    world.cloud.set_quota("eastus", name or family, cores)
    assert set(found(world)) == left


def test_quota_that_is_used_up_leaves_the_offer(world: World) -> None:
    world.cloud.set_quota("eastus", "lowPriorityCores", 4)
    world.running()
    assert set(found(world)) == set(Market)


def test_size_withheld_from_the_subscription_is_not_offered(world: World) -> None:
    world.cloud.withhold(GPU_SIZE, "eastus")
    assert found(world) == {}
    assert found(world, PLAIN_SIZE)


def test_burstable_sizes_are_on_demand_only(world: World) -> None:
    assert set(found(world, BURSTABLE)) == {Market.ON_DEMAND}


@pytest.mark.parametrize(
    ("call", "status"), [("resource_skus_list", 403), ("usage_list", 500), ("prices", 503)]
)
def test_part_that_does_not_answer_leaves_the_catalogues_word(
    world: World, call: str, status: int
) -> None:
    world.cloud.withhold(PLAIN_SIZE, "eastus")
    world.cloud.set_price("eastus", GPU_SIZE, "spot", "0.0512")
    world.cloud.fail_next("Trouble", status=status, call=call)
    offers = found(world)
    shipped = next(
        each for each in SHIPPED if (each.instance_type, each.market) == (GPU_SIZE, Market.SPOT)
    )
    live = call != "prices"
    assert (offers[Market.SPOT].price_usd_hour == Decimal("0.0512")) is live
    assert (offers[Market.SPOT].price_usd_hour == shipped.price_usd_hour) is not live
    assert bool(found(world, PLAIN_SIZE)) is False, "the next look knows it again"


def test_region_that_is_too_slow_leaves_the_catalogues_word(world: World) -> None:
    world.provider._listing_s = 0.2
    world.cloud.latency_s = 0.5
    assert {each.key for each in world.provider.offers([world.settings("eastus")])} == {
        each.key for each in SHIPPED
    }


def test_unknown_region_sells_nothing(world: World) -> None:
    assert world.provider.offers([world.settings("atlantis")]) == []
