"""The offers that ship with orchctl, from `gpu_offers.csv`; `README.md` beside it has the rules.

Prices are those of the day the table was made. Nothing here asks a cloud.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path

from control_plane.core.model import Capacity, Market, Offer

PROVIDERS = ("aws", "azure", "gcp")
"""The clouds in the table."""

_TABLE = Path(__file__).with_name("gpu_offers.csv")
_MIB_PER_GIB = 1024

_NOT_SUPPORTED = frozenset({"MI300X", "T4G"})
"""Not NVIDIA, and NVIDIA on Arm machines: neither runs the agent's machine images."""
_RETIRED = ("Standard_NC6s_v3", "Standard_NC12s_v3", "Standard_NC24s_v3", "Standard_NC24rs_v3")
_REGIONAL_PRICE = frozenset({"aws"})
"""Clouds whose zone rows repeat one on-demand price of the whole region."""

_Row = Mapping[str, str]


def load_offers(providers: Collection[str] = PROVIDERS) -> tuple[Offer, ...]:
    """Everything these clouds sell at a known price, in the order of the table, read once.

    Names of other providers are ignored: they have no price list.
    """
    return tuple(offer for offer in _all_offers() if offer.provider in providers)


@cache
def _all_offers() -> tuple[Offer, ...]:
    offers = (offer for row in _rows() for offer in _offers(row))
    return tuple({offer.key: offer for offer in offers}.values())


def _rows() -> Iterator[_Row]:
    with _TABLE.open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            if _is_supported(row):
                yield row


def _is_supported(row: _Row) -> bool:
    return (
        row["gpu_count"].isdecimal()
        and row["gpu_name"] not in _NOT_SUPPORTED
        and row["instance_type"] not in _RETIRED
    )


def _offers(row: _Row) -> Iterator[Offer]:
    on_demand, spot = _usd(row["on_demand_usd_per_hour"]), _usd(row["spot_usd_per_hour"])
    if on_demand is not None:
        zone = "" if row["provider"] in _REGIONAL_PRICE else row["zone"]
        yield _offer(row, zone, Market.ON_DEMAND, on_demand, on_demand)
    if spot is not None:
        yield _offer(row, row["zone"], Market.SPOT, spot, on_demand)


def _offer(
    row: _Row, zone: str, market: Market, price: Decimal, on_demand: Decimal | None
) -> Offer:
    return Offer(
        provider=row["provider"],
        region=row["region"],
        zone=zone,
        instance_type=_type(row),
        capacity=_capacity(row, market),
        price_usd_hour=price,
        on_demand_usd_hour=on_demand,
    )


def _type(row: _Row) -> str:
    """A Google Cloud N1 is one type whatever GPUs are added to it; an offer's key tells them
    apart."""
    name, gpu = row["instance_type"], row["gpu_name"]
    added = row["provider"] == "gcp" and name.startswith("n1-") and gpu
    return f"{name}+{gpu}:{row['gpu_count']}" if added else name


def _capacity(row: _Row, market: Market) -> Capacity:
    return Capacity(
        gpus=int(row["gpu_count"]),
        gpu_name=row["gpu_name"],
        gpu_memory_gib=int(row["gpu_memory_gib"] or 0),
        cpus=int(row["vcpus"]),
        memory_mib=int(Decimal(row["memory_gib"]) * _MIB_PER_GIB),
        market=market,
    )


def _usd(cell: str) -> Decimal | None:
    return Decimal(cell) if cell else None
