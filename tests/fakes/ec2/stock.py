"""What the fake sells: types, where, at which price, how many of each, and the account's quotas."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import cache

from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES

from control_plane.core.model import Market
from providers.catalog.loader import load_offers

QUOTAS = {
    "L-DB2E81BA": ("on-demand", "g", "vt"),
    "L-417A185B": ("on-demand", "p"),
    "L-1216C47A": ("on-demand", "a", "c", "d", "h", "i", "m", "r", "t", "z"),
    "L-3819A6DF": ("spot", "g", "vt"),
    "L-7212CCBC": ("spot", "p2", "p3", "p4"),
    "L-C4BD4855": ("spot", "p5"),
    "L-34B43A08": ("spot", "a", "c", "d", "h", "i", "m", "r", "t", "z"),
}
"""From quota to market and the beginnings of the type names that it counts."""
_PLENTY = 1_000_000.0


def exists(instance_type: str) -> bool:
    """Whether there is such a type."""
    return instance_type in INSTANCE_TYPES


def cpus(instance_type: str) -> int:
    """Virtual CPUs of a type."""
    found: int = INSTANCE_TYPES[instance_type]["VCpuInfo"]["DefaultVCpus"]
    return found


@cache
def zones_of(region: str, instance_type: str) -> tuple[str, ...]:
    """The ids of the zones that have a type."""
    return tuple(
        sorted(
            each["Location"]
            for each in INSTANCE_TYPE_OFFERINGS["availability-zone-id"].get(region, ())
            if each["InstanceType"] == instance_type
        )
    )


@cache
def quota_code(instance_type: str, *, spot: bool) -> str:
    """The quota that an instance counts against; empty when there is none."""
    market = "spot" if spot else "on-demand"
    # `gr6` counts as G, `p4de` as P4: the longest beginning wins.
    fitting = [
        (len(start), code)
        for code, (of, *starts) in QUOTAS.items()
        for start in starts
        if of == market and instance_type.startswith(start)
    ]
    return max(fitting, default=(0, ""))[1]


@cache
def _catalogue() -> Mapping[tuple[str, str], Decimal]:
    return {
        (offer.instance_type, offer.zone): offer.price_usd_hour
        for offer in load_offers(("aws",))
        if offer.market is Market.SPOT
    }


class Stock:
    """What there is; changed by tests."""

    def __init__(self) -> None:
        self._room: dict[tuple[str, str, str], int] = {}
        self._prices: dict[tuple[str, str], Decimal] = dict(_catalogue())
        self._quotas: dict[tuple[str, str], float] = {}

    def set_room(self, count: int | None, instance_type: str, zone: str, market: str) -> None:
        """How many instances there can be at a time; `*` stands for any, None for no limit."""
        key = (instance_type, zone, market)
        if count is None:
            self._room.pop(key, None)
        else:
            self._room[key] = count

    def room(self, instance_type: str, zone: str, *, spot: bool) -> int | None:
        """How many instances of a kind there can be; None = no limit."""
        market = "spot" if spot else "on-demand"
        keys = [
            (kind, place, of)
            for kind in (instance_type, "*")
            for place in (zone, "*")
            for of in (market, "*")
        ]
        return min((self._room[key] for key in keys if key in self._room), default=None)

    def set_price(self, instance_type: str, zone: str, usd_hour: str) -> None:
        """The spot price in one zone, by its id."""
        self._prices[instance_type, zone] = Decimal(usd_hour)

    def price(self, instance_type: str, zone: str) -> Decimal | None:
        """The spot price; None = not sold on spot there."""
        return self._prices.get((instance_type, zone))

    def set_quota(self, region: str, code: str, cpus: float) -> None:
        """How many virtual CPUs the account may have."""
        self._quotas[region, code] = cpus

    def quota(self, region: str, code: str) -> float:
        """The same, as it is now."""
        return self._quotas.get((region, code), _PLENTY)
