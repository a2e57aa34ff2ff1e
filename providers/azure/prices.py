"""Today's prices, from the public list (`prices.azure.com`): no account is needed to read it.

A size has several rows: plain and spot, Linux and Windows, low priority, old and new. The newest
row of a kind counts, and the lowest of equally new ones (learn.microsoft.com, "Azure Retail Prices
REST API overview").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from control_plane.core.model import Market, Offer
from providers.azure.client import Clients
from providers.azure.errors import told

API_VERSION = "2023-01-01-preview"
_MOST_PAGES = 50
_OTHER_THINGS = ("Windows", "Low Priority", "Cloud Services", "Dedicated")

Prices = Mapping[tuple[str, Market], Decimal]
"""US dollars an hour by machine size and market."""


def prices(clients: Clients, region: str) -> Prices:
    """What machines cost in a region now. Raises `ProviderError`."""
    newest: dict[tuple[str, Market], tuple[str, Decimal]] = {}
    with told():
        for row in _rows(clients, region):
            key = row["armSkuName"], _market(row)
            since, price = str(row["effectiveStartDate"]), Decimal(row["retailPrice"])
            known = newest.get(key)
            if known is None or since > known[0] or (since == known[0] and price < known[1]):
                newest[key] = since, price
    return {key: price for key, (_, price) in newest.items() if price > 0}


def priced(offers: Iterable[Offer], today: Prices) -> Iterator[Offer]:
    """The offers of a region at today's prices. A market that only the live list knows is added."""
    for size, variants in _by_size(offers).items():
        shipped = {offer.market: offer.price_usd_hour for offer in variants}
        found = {market: today.get((size, market), shipped.get(market)) for market in Market}
        listed = found[Market.ON_DEMAND]
        for market, price in found.items():
            # A spot price above the list price is an old figure beside a new one: nobody would buy.
            if price is not None and (listed is None or price <= listed):
                yield replace(
                    variants[0],
                    capacity=replace(variants[0].capacity, market=market),
                    price_usd_hour=price,
                    on_demand_usd_hour=listed,
                )


def _by_size(offers: Iterable[Offer]) -> Mapping[str, list[Offer]]:
    found: dict[str, list[Offer]] = {}
    for offer in offers:
        found.setdefault(offer.instance_type, []).append(offer)
    return found


def _rows(clients: Clients, region: str) -> Iterator[Mapping[str, Any]]:
    url = f"{clients.endpoint.prices_url}/api/retail/prices"
    wanted = (
        "serviceName eq 'Virtual Machines' and priceType eq 'Consumption' "
        f"and armRegionName eq '{region}' and contains(productName,'Windows') eq false"
    )
    params = {"api-version": API_VERSION, "currencyCode": "USD", "$filter": wanted}
    for _ in range(_MOST_PAGES):
        page = clients.price_page(url, params)
        yield from (row for row in page["Items"] if _is_machine(row))
        url, params = page.get("NextPageLink") or "", {}
        if not url:
            return


def _is_machine(row: Mapping[str, Any]) -> bool:
    texts = f"{row['productName']} {row['skuName']} {row['meterName']}"
    hourly = row["unitOfMeasure"] == "1 Hour" and row["armSkuName"]
    return bool(hourly) and not any(other in texts for other in _OTHER_THINGS)


def _market(row: Mapping[str, Any]) -> Market:
    return Market.SPOT if "Spot" in row["skuName"] else Market.ON_DEMAND
