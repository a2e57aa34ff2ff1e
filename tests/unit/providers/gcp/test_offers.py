"""Offers: the catalogue joined with what the cloud sells, allows and asks for today."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from control_plane.core.model import Market, Offer, breaker_key
from providers.catalog.loader import load_offers
from providers.gcp.launch import machine_type
from providers.gcp.names import region_of, zones_of
from providers.gcp.prices import catalogue
from providers.gcp.provider import GcpProvider
from tests.fakes.gcp.connection import to
from tests.unit.providers.gcp.conftest import World

Key = tuple[str, str, str, Market, str]


def keys(offers: Sequence[Offer]) -> set[Key]:
    return {
        (o.region, o.zone, o.instance_type, o.market, f"{o.capacity.gpus} {o.capacity.gpu_name}")
        for o in offers
    }


def of(offers: Sequence[Offer], instance_type: str, market: Market, zone: str = "") -> list[Offer]:
    return [
        o
        for o in offers
        if (o.instance_type, o.market) == (instance_type, market) and zone in ("", o.zone)
    ]


def test_without_settings_it_is_the_catalogue_and_nobody_is_asked(world: World) -> None:
    assert world.provider().offers() == catalogue()
    assert not world.cloud.calls


def test_only_the_regions_that_were_named(world: World, provider: GcpProvider) -> None:
    offers = provider.offers(world.clouds("us-east5", "us-west1"))
    assert {each.region for each in offers} == {"us-east5", "us-west1"}


def test_every_offer_names_a_zone_that_sells_it(world: World, provider: GcpProvider) -> None:
    offers = provider.offers(world.clouds("us-central1"))
    assert all(machine_type(o.instance_type) in world.cloud.stock.kinds[o.zone] for o in offers)
    zones = {o.zone for o in of(offers, "e2-standard-4", Market.SPOT)}
    assert zones == set(world.cloud.stock.regions()["us-central1"])


def test_what_a_zone_no_longer_sells_is_left_out_there_alone(
    world: World, provider: GcpProvider
) -> None:
    before = keys(provider.offers(world.clouds("us-central1")))
    world.cloud.withdraw("g2-standard-4", "us-central1-a")
    world.cloud.withdraw("e2-standard-4", "us-central1-a")
    world.cloud.withdraw("nvidia-tesla-t4", "us-central1-b")
    after = keys(provider.offers(world.clouds("us-central1")))
    assert after < before
    assert {(zone, kind, gpu) for _, zone, kind, _, gpu in before - after} == {
        ("us-central1-a", "g2-standard-4", "1 L4"),
        ("us-central1-a", "e2-standard-4", "0 "),
        ("us-central1-b", "n1-standard-4+T4:1", "1 T4"),
        ("us-central1-b", "n1-standard-8+T4:1", "1 T4"),
        ("us-central1-b", "n1-standard-16+T4:2", "2 T4"),
        ("us-central1-b", "n1-standard-32+T4:4", "4 T4"),
    }


def test_spot_price_is_the_one_of_today_in_that_zone(world: World, provider: GcpProvider) -> None:
    world.cloud.set_price("0.123456789", "a2-ultragpu-1g", "us-east5-b")
    offers = provider.offers(world.clouds())
    (spot,) = of(offers, "a2-ultragpu-1g", Market.SPOT, "us-east5-b")
    (listed,) = of(offers, "a2-ultragpu-1g", Market.ON_DEMAND, "us-east5-b")
    assert spot.price_usd_hour == Decimal("0.123456789")
    (other,) = of(offers, "a2-ultragpu-1g", Market.SPOT, "us-east5-a")
    assert other.price_usd_hour > 1
    assert spot.on_demand_usd_hour == listed.price_usd_hour == listed.on_demand_usd_hour


def test_spot_is_never_dearer_than_list(world: World, provider: GcpProvider) -> None:
    world.cloud.set_price("99", "a2-ultragpu-1g", "us-east5-b")
    (spot,) = of(provider.offers(world.clouds()), "a2-ultragpu-1g", Market.SPOT, "us-east5-b")
    assert spot.price_usd_hour == spot.on_demand_usd_hour


def test_spot_price_is_asked_again_after_an_hour(world: World, provider: GcpProvider) -> None:
    def price() -> Decimal:
        (spot,) = of(provider.offers(world.clouds()), "a2-ultragpu-1g", Market.SPOT, "us-east5-b")
        return spot.price_usd_hour

    first = price()
    world.cloud.set_price("0.5", "a2-ultragpu-1g", "us-east5-b")
    world.clock.advance(3599)
    assert price() == first
    world.clock.advance(1)
    assert price() == Decimal("0.5")


def test_prices_are_asked_for_a_few_at_a_time(world: World, provider: GcpProvider) -> None:
    def asked() -> int:
        before = world.cloud.calls["advice.capacityHistory"]
        provider.offers(world.clouds("us-central1"))
        return world.cloud.calls["advice.capacityHistory"] - before

    looks = [asked() for _ in range(6)]
    wanted = {
        (o.zone, o.instance_type)
        for o in provider.offers(world.clouds("us-central1"))
        if o.market is Market.SPOT and not (o.capacity.gpus and o.instance_type.startswith("n1-"))
    }
    assert looks[0] == max(looks) == 60
    assert sum(looks) == len(wanted) > 60
    assert looks[-1] == 0


def test_spot_price_that_cannot_be_read_stays_the_last_one(
    world: World, provider: GcpProvider
) -> None:
    def price() -> Decimal:
        (spot,) = of(provider.offers(world.clouds()), "a2-ultragpu-1g", Market.SPOT, "us-east5-b")
        return spot.price_usd_hour

    world.cloud.set_price("0.5", "a2-ultragpu-1g", "us-east5-b")
    assert price() == Decimal("0.5")
    world.clock.advance(3600)
    world.cloud.fail_next("forbidden", times=1000, call="advice.capacityHistory")
    assert price() == Decimal("0.5")


@pytest.mark.parametrize("call", ["advice.capacityHistory", "regions.get", "projects.get"])
def test_part_that_fails_leaves_the_figures_of_the_catalogue(
    world: World, provider: GcpProvider, call: str
) -> None:
    usual = keys(provider.offers(world.clouds()))
    world.cloud.fail_next("forbidden", times=1000, call=call)
    offers = world.provider().offers(world.clouds())
    assert keys(offers) == usual
    listed = {each.key: each.price_usd_hour for each in catalogue(["us-east5"])}
    same = [o for o in offers if o.key in listed]
    assert same
    assert all(o.price_usd_hour == listed[o.key] for o in same)


def test_zones_that_do_not_say_what_they_sell_keep_what_the_table_has(
    world: World, provider: GcpProvider
) -> None:
    world.cloud.fail_next("forbidden", times=1000, call="machineTypes.list")
    offers = provider.offers(world.clouds())
    assert keys(offers) == keys(catalogue(["us-east5"]))


def test_table_without_zones_is_offered_in_all_of_the_region() -> None:
    """So that a start from nothing, before any cloud has answered, can buy it."""
    assert all(each.zone for each in catalogue())
    for name, zones in (("us-central1", "abcf"), ("europe-west1", "bcd"), ("me-west1", "abc")):
        found = {o.zone for o in of(catalogue([name]), "e2-standard-4", Market.ON_DEMAND)}
        assert found == {f"{name}-{letter}" for letter in zones}


def test_every_zone_of_the_table_is_one_that_its_region_has() -> None:
    """The list of zones agrees with the zones that somebody has seen a machine in."""
    seen = {each.zone for each in load_offers(["gcp"]) if each.zone}
    assert len(seen) > 70
    assert seen <= {zone for name in {*map(region_of, seen)} for zone in zones_of(name)}


def test_zones_that_the_cloud_names_are_offered_too(world: World, provider: GcpProvider) -> None:
    """A list is never complete: what a region says of itself goes before it."""
    stock = world.cloud.stock
    sold = {**stock.kinds, "us-east5-ai1a": stock.kinds["us-east5-a"]}
    world.cloud.stock = replace(stock, kinds=sold)
    found = of(provider.offers(world.clouds()), "e2-standard-4", Market.ON_DEMAND)
    assert {o.zone for o in found} == {f"us-east5-{name}" for name in ("a", "b", "c", "ai1a")}


def test_one_type_with_other_gpus_has_another_key() -> None:
    """What rests after one is sold out does not hold the other."""
    added = [o for o in catalogue(["us-central1"]) if o.instance_type.startswith("n1-standard-8")]
    gpus = {o.capacity.gpu_name for o in added}
    assert gpus == {"P4", "T4", "P100", "V100"}
    anywhere = {(replace(o, zone="").key, o.capacity.gpu_name) for o in added}
    assert len({key for key, _ in anywhere}) == len(anywhere) == 8
    assert len({breaker_key("pool", o) for o in added}) == len(added)


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({"NVIDIA_A100_80GB_GPUS": 0, "PREEMPTIBLE_NVIDIA_A100_80GB_GPUS": 0}, {"H100"}),
        ({"NVIDIA_A100_80GB_GPUS": 0}, {"A100-80GB", "H100"}),
        ({"PREEMPTIBLE_NVIDIA_H100_GPUS": 0}, {"A100-80GB"}),
        ({"PREEMPTIBLE_NVIDIA_H100_GPUS": 8}, {"A100-80GB", "H100"}),
    ],
)
def test_gpus_without_any_quota_are_left_out(
    world: World, provider: GcpProvider, limits: dict[str, float], left: set[str]
) -> None:
    for metric, limit in limits.items():
        world.cloud.set_quota(metric, limit, "us-east5")
    found = {o.capacity.gpu_name for o in provider.offers(world.clouds()) if o.capacity.gpus}
    assert found - {"RTX-PRO-6000"} == left
    assert "RTX-PRO-6000" in found, "it has no metric of its own"


def test_project_without_gpus_is_offered_none(world: World, provider: GcpProvider) -> None:
    world.cloud.set_quota("GPUS_ALL_REGIONS", 0)
    offers = provider.offers(world.clouds())
    assert offers
    assert not any(o.capacity.gpus for o in offers)


def test_answers_that_come_too_late_are_done_without(world: World) -> None:
    world.cloud.latency(0.4)
    hasty = GcpProvider(to(world.server.url), patience_s=0.05, now=world.clock.now, version="1")
    assert keys(hasty.offers(world.clouds())) == keys(catalogue(["us-east5"]))


def test_sold_out_is_still_for_sale(world: World, provider: GcpProvider) -> None:
    before = keys(provider.offers(world.clouds()))
    world.cloud.set_capacity(0)
    assert keys(provider.offers(world.clouds())) == before
