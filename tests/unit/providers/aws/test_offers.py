"""Today's offers: the catalogue joined with what AWS says; a silent part leaves it as it is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal

import pytest

from control_plane.core.model import Market, Offer
from providers.aws import quotas
from providers.aws.prices import Today, joined
from providers.catalog.loader import load_offers
from tests.fakes.ec2 import stock
from tests.unit.providers.aws.world import REGION, ZONE, World, an_offer

SHIPPED = [offer for offer in load_offers(("aws",)) if offer.region == REGION]
SPOT_G, ON_DEMAND_P = "L-3819A6DF", "L-417A185B"


def offers(world: World) -> Sequence[Offer]:
    return world.provider.offers(world.clouds())


def spot(found: Sequence[Offer], instance_type: str = "g4dn.xlarge") -> dict[str, Decimal]:
    """Spot prices of a type by zone."""
    return {
        offer.zone: offer.price_usd_hour
        for offer in found
        if offer.instance_type == instance_type and offer.market is Market.SPOT
    }


def test_without_settings_it_is_the_catalogue_and_nobody_is_asked(world: World) -> None:
    assert list(world.provider.offers()) == list(load_offers(("aws",)))
    assert not world.account.called()


def test_only_the_regions_of_the_settings_are_asked(world: World) -> None:
    assert {offer.region for offer in offers(world)} == {REGION}


def test_spot_price_of_today_replaces_that_of_the_catalogue(world: World) -> None:
    world.account.set_price("g4dn.xlarge", ZONE, "0.3131")
    found = spot(offers(world))
    assert found[ZONE] == Decimal("0.3131")
    assert found[ZONE] != an_offer().price_usd_hour


def test_zone_that_the_catalogue_does_not_know_is_sold_too(world: World) -> None:
    shipped = spot(SHIPPED, "g6.xlarge")
    sold = set(stock.zones_of(REGION, "g6.xlarge"))
    new = min(sold - set(shipped), default=None)
    assert new is not None, "the catalogue knows all zones: take another type"
    world.account.set_price("g6.xlarge", new, "0.2500")
    offer = next(
        each for each in offers(world) if (each.instance_type, each.zone) == ("g6.xlarge", new)
    )
    assert offer.price_usd_hour == Decimal("0.2500")
    assert offer.capacity.gpu_name == "L4"
    assert offer.market is Market.SPOT


def test_type_that_no_zone_has_is_left_out(world: World) -> None:
    sold = {(offer.instance_type, offer.zone) for offer in offers(world)}
    for instance_type, zone in sold:
        zones = stock.zones_of(REGION, instance_type)
        assert zone in zones if zone else zones


def test_price_above_the_known_one_on_demand_corrects_it(world: World) -> None:
    world.account.set_price("g4dn.xlarge", ZONE, "0.9")
    offer = next(
        each for each in offers(world) if (each.instance_type, each.zone) == ("g4dn.xlarge", ZONE)
    )
    assert offer.on_demand_usd_hour == offer.price_usd_hour == Decimal("0.9")


def test_quota_of_none_takes_a_family_off_one_market(world: World) -> None:
    world.account.set_quota(REGION, SPOT_G, 0)
    found = offers(world)
    assert not spot(found)
    assert [each for each in found if each.instance_type == "g4dn.xlarge"]
    assert spot(found, "c6i.xlarge") == spot(SHIPPED, "c6i.xlarge")


def test_quota_takes_off_what_it_could_never_hold(world: World) -> None:
    world.account.set_quota(REGION, ON_DEMAND_P, 100)
    sizes = {
        each.instance_type: each.capacity.cpus
        for each in offers(world)
        if each.market is Market.ON_DEMAND and each.instance_type.startswith("p")
    }
    assert "p4d.24xlarge" in sizes
    assert max(sizes.values()) <= 100


PARTS = {
    "DescribeSpotPriceHistory": lambda found: spot(found) == spot(SHIPPED),
    "DescribeAvailabilityZones": lambda found: spot(found) == spot(SHIPPED),
    "DescribeInstanceTypeOfferings": lambda found: spot(found)[ZONE] == Decimal("0.31"),
    "GetServiceQuota": lambda found: spot(found)[ZONE] == Decimal("0.31"),
}


@pytest.mark.parametrize("lost", sorted(PARTS))
def test_part_that_does_not_answer_is_as_the_catalogue_says(world: World, lost: str) -> None:
    world.account.set_price("g4dn.xlarge", ZONE, "0.31")
    world.account.fail_next("InternalError", operation=lost, times=100)
    fallen_back: Callable[[Sequence[Offer]], bool] = PARTS[lost]
    found = offers(world)
    assert fallen_back(found)
    assert an_offer(market=Market.ON_DEMAND) in found


def test_silent_region_is_as_the_catalogue_says(world: World) -> None:
    world.account.silence(REGION)
    assert sorted(offers(world), key=lambda each: each.key) == sorted(
        SHIPPED, key=lambda each: each.key
    )


def test_sold_out_stays_on_offer(world: World) -> None:
    before = offers(world)
    world.account.set_capacity(0)
    assert offers(world) == before


def test_region_that_is_not_in_the_catalogue_has_nothing(world: World) -> None:
    assert world.provider.offers(world.clouds("xx-north-1")) == []


def test_nothing_told_is_the_catalogue() -> None:
    on_demand = [offer for offer in SHIPPED if offer.market is Market.ON_DEMAND]
    assert joined(SHIPPED, Today())[: len(on_demand)] == on_demand
    assert len(joined(SHIPPED, Today())) == len(SHIPPED)


@pytest.mark.parametrize(
    ("instance_type", "on_demand", "on_spot"),
    [
        ("g4dn.xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("gr6.4xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("vt1.3xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("p3dn.24xlarge", "L-417A185B", "L-7212CCBC"),
        ("p4de.24xlarge", "L-417A185B", "L-7212CCBC"),
        ("p5.48xlarge", "L-417A185B", "L-C4BD4855"),
        ("p5en.48xlarge", "L-417A185B", "L-C4BD4855"),
        ("p6-b200.48xlarge", "L-417A185B", ""),
        ("t3.medium", "L-1216C47A", "L-34B43A08"),
        ("m7i.large", "L-1216C47A", "L-34B43A08"),
        ("trn1.2xlarge", "", ""),
        ("inf2.xlarge", "", ""),
    ],
)
def test_quota_of_each_family(instance_type: str, on_demand: str, on_spot: str) -> None:
    assert quotas.code(Market.ON_DEMAND, instance_type) == on_demand
    assert quotas.code(Market.SPOT, instance_type) == on_spot


def test_every_type_of_the_catalogue_has_a_quota() -> None:
    types = {offer.instance_type for offer in load_offers(("aws",))}
    unknown = {each for each in types if not quotas.code(Market.ON_DEMAND, each)}
    assert not unknown


def test_the_sdk_is_not_imported_with_the_adapter() -> None:
    check = (
        "import sys, json; import providers.aws.provider; "
        "print(json.dumps(sorted(n for n in sys.modules if n.split('.')[0] in "
        "('boto3', 'botocore', 's3transfer', 'urllib3'))))"
    )
    found = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert json.loads(found.stdout) == []
