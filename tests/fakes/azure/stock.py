"""What the fake sells: the sizes and prices of the shipped catalogue, with quotas and a price list
as untidy as the real one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from control_plane.core.model import Market
from providers.catalog.loader import load_offers

SPOT_CORES, ALL_CORES = "lowPriorityCores", "cores"
_TODAY, _LONG_AGO = "2026-10-01T00:00:00Z", "2020-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One machine size in one region."""

    name: str
    region: str
    cpus: int
    family: str
    prices: Mapping[Market, Decimal]


@cache
def sizes() -> Mapping[tuple[str, str], Size]:
    """By region and lower-case name."""
    found: dict[tuple[str, str], Size] = {}
    for offer in load_offers(["azure"]):
        key = offer.region, offer.instance_type.lower()
        known = found[key].prices if key in found else {}
        found[key] = Size(
            name=offer.instance_type,
            region=offer.region,
            cpus=offer.capacity.cpus,
            family=_family(offer.instance_type),
            prices={**known, offer.market: offer.price_usd_hour},
        )
    return found


@cache
def regions() -> frozenset[str]:
    return frozenset(region for region, _ in sizes())


def _family(size: str) -> str:
    """`Standard_NC4as_T4_v3` → `standardNCasT4v3Family`, much as Azure names its families."""
    name = size.removeprefix("Standard_")
    return (
        f"standard{re.sub(r'[0-9]+', '', name.split('_')[0])}{''.join(name.split('_')[1:])}Family"
    )


def sku(size: Size, *, withheld: bool) -> dict[str, Any]:
    """A size as the list of resource SKUs shows it."""
    restriction = {
        "type": "Location",
        "values": [size.region],
        "restrictionInfo": {"locations": [size.region]},
        "reasonCode": "NotAvailableForSubscription",
    }
    return {
        "resourceType": "virtualMachines",
        "name": size.name,
        "tier": "Standard",
        "family": size.family,
        "locations": [size.region],
        "locationInfo": [{"location": size.region, "zones": ["1", "2", "3"]}],
        "capabilities": [{"name": "vCPUs", "value": str(size.cpus)}],
        "restrictions": [restriction] if withheld else [],
    }


def price_rows(
    region: str, set_prices: Mapping[tuple[str, str, Market], Decimal]
) -> Iterator[dict[str, Any]]:
    """The price list of a region: what is asked for, among what is not."""
    for size in sizes().values():
        if size.region != region:
            continue
        for market, shipped in size.prices.items():
            price = set_prices.get((region, size.name, market), shipped)
            yield _row(size, market, price * 3, since=_LONG_AGO)
            yield _row(size, market, price)
            yield _row(size, market, price + 1)
            yield _row(size, market, price / 2, since=_LONG_AGO)
        dear = size.prices.get(Market.ON_DEMAND, Decimal(1))
        yield _row(size, Market.ON_DEMAND, dear / 100, kind=" Low Priority")
        yield _row(size, Market.ON_DEMAND, dear / 100, product=" Windows")


def _row(
    size: Size,
    market: Market,
    price: Decimal,
    *,
    since: str = _TODAY,
    kind: str = "",
    product: str = "",
) -> dict[str, Any]:
    short = size.name.removeprefix("Standard_").replace("_", " ")
    meter = short + (" Spot" if market is Market.SPOT else kind)
    return {
        "currencyCode": "USD",
        "tierMinimumUnits": 0.0,
        "retailPrice": float(price),
        "unitPrice": float(price),
        "armRegionName": size.region,
        "location": size.region,
        "effectiveStartDate": since,
        "meterName": meter,
        "productName": f"Virtual Machines {size.family} Series{product}",
        "skuName": meter,
        "serviceName": "Virtual Machines",
        "unitOfMeasure": "1 Hour",
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        "armSkuName": size.name,
    }


_CLAUSE = re.compile(r"(\w+) eq '([^']*)'|contains\((\w+), ?'([^']*)'\) eq (true|false)")
_FIELDS = {None, "serviceName", "priceType", "armRegionName", "armSkuName", "productName"}
"""What can be asked for, as it must be written; None = the other kind of clause."""


def matching(rows: Iterator[dict[str, Any]], wanted: str) -> list[dict[str, Any]]:
    """Rows that fulfil a filter; values are compared as they are written. Raises `ValueError` for
    what the filter language does not know."""
    tests = []
    for clause in wanted.split(" and "):
        found = _CLAUSE.fullmatch(clause)
        if found is None or not {found[1], found[3]} <= _FIELDS:
            raise ValueError(clause)
        tests.append(found.groups())
    return [row for row in rows if all(_fulfils(row, *test) for test in tests)]


def _fulfils(
    row: Mapping[str, Any], field: str, value: str, text_field: str, part: str, wanted: str
) -> bool:
    if field:
        return bool(row["type" if field == "priceType" else field] == value)
    return (part in row[text_field]) is (wanted == "true")
