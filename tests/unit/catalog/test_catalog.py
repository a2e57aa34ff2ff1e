"""The shipped offers: whole, plausible, by the rules of the catalogue's README, and read fast."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from decimal import Decimal

import pytest

from control_plane.core.model import Market, Offer
from providers.catalog import loader
from providers.catalog.loader import PROVIDERS, load_offers

OFFERS = load_offers()


def some(**wanted: str) -> list[Offer]:
    return [
        offer
        for offer in OFFERS
        if all(getattr(offer, field) == value for field, value in wanted.items())
    ]


def test_every_cloud_is_there_with_both_markets() -> None:
    """A table cut short would show here."""
    found = Counter((offer.provider, offer.market) for offer in OFFERS)
    assert set(found) == {(name, market) for name in PROVIDERS for market in Market}
    assert all(count > 300 for count in found.values())


def test_prices_are_plausible() -> None:
    """Between half a cent and 200 USD an hour; spot never above on demand, but for rounding."""
    for offer in OFFERS:
        assert isinstance(offer.price_usd_hour, Decimal)
        assert Decimal("0.005") < offer.price_usd_hour < Decimal(200)
        if offer.on_demand_usd_hour is not None:
            assert offer.price_usd_hour <= offer.on_demand_usd_hour + Decimal("0.0001")


def test_capacities_are_whole_machines() -> None:
    """No slices of cards, no empty machines, names and GPUs go together."""
    for offer in OFFERS:
        has = offer.capacity
        assert has.cpus >= 1
        assert has.memory_mib >= 1024
        assert bool(has.gpus) == bool(has.gpu_name) == bool(has.gpu_memory_gib)
        assert has.gpus in (0, 1, 2, 4, 8, 16)


def test_no_offer_is_there_twice() -> None:
    """The key names one offer, also where several GPUs are added to one type."""
    assert max(Counter(each.key for each in OFFERS).values()) == 1
    added = some(instance_type="n1-standard-8+V100:1")
    assert added
    assert {(each.capacity.gpu_name, each.capacity.gpus) for each in added} == {("V100", 1)}


def test_a_known_row_becomes_its_offers() -> None:
    """AWS g6.xlarge in us-east-1: one price list entry for the region, spot in the zones seen."""
    found = some(provider="aws", region="us-east-1", instance_type="g6.xlarge")
    on_demand = [offer for offer in found if offer.market is Market.ON_DEMAND]
    spot = [offer for offer in found if offer.market is Market.SPOT]
    assert [(offer.zone, offer.price_usd_hour) for offer in on_demand] == [("", Decimal("0.8048"))]
    assert [offer.zone for offer in spot] == ["use1-az1", "use1-az2", "use1-az4", "use1-az6"]
    assert {offer.on_demand_usd_hour for offer in spot} == {Decimal("0.8048")}
    has = spot[0].capacity
    assert (has.gpus, has.gpu_name, has.gpu_memory_gib) == (1, "L4", 24)
    assert (has.cpus, has.memory_mib) == (4, 16 * 1024)


def test_zones_follow_the_clouds() -> None:
    """Azure never has zones; AWS zones are zone ids; Google Cloud keeps zones on both markets."""
    assert {offer.zone for offer in some(provider="azure")} == {""}
    assert all(
        re.fullmatch(r"[a-z]{3,4}[0-9]-az[0-9]+", offer.zone)
        for offer in some(provider="aws")
        if offer.zone
    )
    g2 = some(provider="gcp", region="us-central1", instance_type="g2-standard-4")
    assert {(offer.zone, offer.market) for offer in g2} == {
        (f"us-central1-{letter}", market) for letter in "abc" for market in Market
    }


def test_spot_only_machines_have_no_on_demand_price() -> None:
    """Not sold on demand is not the same as free."""
    found = some(provider="gcp", instance_type="a3-highgpu-1g")
    assert found
    assert {offer.market for offer in found} == {Market.SPOT}
    assert {offer.on_demand_usd_hour for offer in found} == {None}


@pytest.mark.parametrize(
    "left_out",
    [
        lambda offer: offer.capacity.gpu_name == "MI300X",  # not NVIDIA
        lambda offer: offer.instance_type.startswith("g5g."),  # Arm
        lambda offer: re.fullmatch(r"Standard_NC\d+r?s_v3", offer.instance_type),  # retiring
        lambda offer: re.match(r"g6f|gr6f", offer.instance_type),  # slices
    ],
)
def test_what_cannot_be_used_is_left_out(left_out: Callable[[Offer], object]) -> None:
    """Each kind is in the table and not among the offers."""
    table = loader._TABLE.read_text(encoding="utf-8")
    assert all(word in table for word in ("MI300X", "g5g.", "Standard_NC6s_v3", "g6f."))
    assert not any(left_out(offer) for offer in OFFERS)


def test_providers_can_be_chosen() -> None:
    """Unknown ones have no price list, which is not an error."""
    assert {offer.provider for offer in load_offers(["gcp"])} == {"gcp"}
    assert load_offers(["local", "simulated"]) == ()
    assert load_offers(["aws", "local"]) == load_offers({"aws"})


def test_the_table_is_read_once() -> None:
    assert load_offers()[0] is load_offers()[0]


def test_every_source_of_the_table_is_attributed() -> None:
    """Each source id of each row stands in the README's table of sources and licences."""
    readme = loader._TABLE.with_name("README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z0-9*-]+)` \|", readme, re.MULTILINE)
    patterns = [re.compile(re.escape(each).replace(r"\*", ".*")) for each in listed]
    ids = {
        part
        for line in loader._TABLE.read_text(encoding="utf-8").splitlines()[1:]
        for part in line.split(",")[-2].split("+")
    }
    assert ids
    unlisted = {each for each in ids if not any(known.fullmatch(each) for known in patterns)}
    assert unlisted == set()
