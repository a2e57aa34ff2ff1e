"""What can be bought today: the shipped catalogue joined with what AWS says now.

AWS tells which types a zone has, spot prices by zone and the account's quotas. On-demand prices
change a few times a year and stay those of the catalogue. A part that does not answer is left to
the catalogue too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeAlias

from control_plane.core.model import Market, Offer
from providers.aws import quotas
from providers.aws.client import Clients
from providers.aws.errors import answered
from providers.aws.listing import Zones
from providers.side_by_side import side_by_side

_QUOTAS = frozenset(quotas.CODES.values())

Sold: TypeAlias = frozenset[tuple[str, str]]
"""Pairs of instance type and zone id."""
Spot: TypeAlias = Mapping[tuple[str, str], Decimal]
"""US dollars an hour by instance type and zone id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Today:
    """What one region has told; None = it did not say."""

    sold: Sold | None = None
    spot: Spot | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    """Virtual CPUs by quota code, as far as they are known."""


class PriceList:
    """Today's offers of any regions."""

    def __init__(
        self,
        clients: Clients,
        zones: Zones,
        pool: Executor,
        *,
        deadline_s: float,
        now: Callable[[], datetime],
    ) -> None:
        self._clients = clients
        self._zones = zones
        self._pool = pool
        self._deadline_s = deadline_s
        self._now = now

    def today(self, catalogue: Sequence[Offer], regions: Sequence[str]) -> Sequence[Offer]:
        """The offers of some regions. Never raises: what cannot be asked is as the catalogue
        says."""
        shipped = {at: [offer for offer in catalogue if offer.region == at] for at in regions}
        answers, _ = side_by_side(
            self._pool,
            [(at, question) for at in regions for question in _questions(shipped[at])],
            lambda key: self._ask(*key, shipped[key[0]]),
            deadline_s=self._deadline_s,
        )
        told = {
            at: {key[1]: each for key, each in answers.items() if key[0] == at} for at in regions
        }
        return [offer for at in regions for offer in joined(shipped[at], _today(told[at]))]

    def _ask(self, region: str, question: str, shipped: Sequence[Offer]) -> Any:
        types = sorted({offer.instance_type for offer in shipped})
        with answered():
            if question == "sold":
                return self._sold(region, types)
            if question == "spot":
                return self._spot(region, types)
            return quotas.limit(self._clients.get("service-quotas", region), question)

    def _sold(self, region: str, types: Sequence[str]) -> Sold:
        ec2 = self._clients.get("ec2", region)
        pages = ec2.get_paginator("describe_instance_type_offerings").paginate(
            LocationType="availability-zone-id",
            Filters=[{"Name": "instance-type", "Values": types}],
        )
        found = (each for page in pages for each in page["InstanceTypeOfferings"])
        return frozenset((each["InstanceType"], each["Location"]) for each in found)

    def _spot(self, region: str, types: Sequence[str]) -> Spot:
        """A start time of now asks for the prices in force, one for each type and zone."""
        zones = self._zones.of(region)
        ec2 = self._clients.get("ec2", region)
        pages = ec2.get_paginator("describe_spot_price_history").paginate(
            StartTime=self._now(), InstanceTypes=types, ProductDescriptions=["Linux/UNIX"]
        )
        rows = (each for page in pages for each in page["SpotPriceHistory"])
        return {
            (row["InstanceType"], zones.get(row["AvailabilityZone"], "")): Decimal(row["SpotPrice"])
            for row in rows
        }


def _questions(shipped: Sequence[Offer]) -> Sequence[str]:
    """What to ask one region: `sold`, `spot`, and quotas by their code."""
    if not shipped:
        return []
    types = {offer.instance_type for offer in shipped}
    codes = {quotas.code(market, each) for market in Market for each in types}
    return ["sold", "spot", *sorted(codes - {""})]


def _today(told: Mapping[str, Any]) -> Today:
    limits = {question: each for question, each in told.items() if question in _QUOTAS}
    return Today(sold=told.get("sold"), spot=told.get("spot"), limits=limits)


def joined(shipped: Sequence[Offer], today: Today) -> Sequence[Offer]:
    """The offers of one region: those of the catalogue, with spot as it is today, without what is
    not sold there and what no quota lets us have."""
    on_demand = [offer for offer in shipped if offer.market is Market.ON_DEMAND]
    spot = [offer for offer in shipped if offer.market is Market.SPOT]
    if today.spot is not None:
        spot = list(_spot_offers(shipped, today.spot))
    return [
        offer
        for offer in (*on_demand, *spot)
        if _is_sold(offer, today.sold) and _is_allowed(offer, today.limits)
    ]


def _spot_offers(shipped: Sequence[Offer], prices: Spot) -> Iterator[Offer]:
    kinds = {offer.instance_type: offer for offer in shipped}
    for (instance_type, zone), price in sorted(prices.items()):
        kind = kinds.get(instance_type)
        if kind is None or not zone:
            continue
        known = kind.on_demand_usd_hour
        yield replace(
            kind,
            zone=zone,
            capacity=replace(kind.capacity, market=Market.SPOT),
            price_usd_hour=price,
            # AWS never asks more for spot than for on-demand: a lower figure is out of date.
            on_demand_usd_hour=None if known is None else max(known, price),
        )


def _is_sold(offer: Offer, sold: Sold | None) -> bool:
    if sold is None:
        return True
    if offer.zone:
        return (offer.instance_type, offer.zone) in sold
    return any(instance_type == offer.instance_type for instance_type, _ in sold)


def _is_allowed(offer: Offer, limits: Mapping[str, float]) -> bool:
    limit = limits.get(quotas.code(offer.market, offer.instance_type))
    return limit is None or offer.capacity.cpus <= limit
