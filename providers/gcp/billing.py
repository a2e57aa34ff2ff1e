"""On-demand prices of today, from the list that Google bills by (Cloud Billing Catalog API).

A machine has no price of its own there: it is so many virtual CPUs, so much memory, GPUs and local
disk, each with a price in each region. The list has tens of thousands of entries, most of them for
something else (custom machines, sole tenants, reservations, Spot), told apart by their description
alone. So only an entry is believed that is worded exactly as expected, in the expected unit, with
one price, and alone in its region; and a sum that is far from the shipped figure is not.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from control_plane.core.model import Offer
from control_plane.errors import ProviderError
from providers.gcp.client import Client

log = logging.getLogger("orchctl.gcp")

COMPUTE_ENGINE = "6F81-5844-456A"
"""Its id in the list, "Google Cloud SKUs" (cloud.google.com/skus)."""

_SERIES: Mapping[str, str] = {
    "a2": "A2 Instance",
    "e2": "E2 Instance",
    "g2": "G2 Instance",
    "g4": "G4 Instance",
    "n1": "N1 Predefined Instance",
    "n2": "N2 Instance",
    "n2d": "N2D AMD Instance",
    "n4": "N4 Instance",
}
"""How the list calls each series. A3 and A4 are left out: their price has parts that we do not know
(local disks, GPUs sold in slices), and the shipped figure stands."""
_GPUS: Mapping[str, str] = {
    "A100": "Nvidia Tesla A100 GPU",
    "A100-80GB": "Nvidia Tesla A100 80GB GPU",
    "L4": "Nvidia L4 GPU",
    "P100": "Nvidia Tesla P100 GPU",
    "P4": "Nvidia Tesla P4 GPU",
    "RTX-PRO-6000": "RTX 6000 96GB",
    "T4": "Nvidia Tesla T4 GPU",
    "V100": "Nvidia Tesla V100 GPU",
}
_DISK = "SSD backed Local Storage"
_DISK_GIB_PER_GPU: Mapping[str, int] = {"a2-ultragpu-": 375}
"""Local disk that comes with a type, "Accelerator-optimized machine family"."""

_WORDED = re.compile(
    r"(?P<what>.+?) running in (?P<where>[^,()]+)|(?P<disk>" + _DISK + r")( in .+)?"
)
_SOLD_OTHERWISE = re.compile(
    r"spot|preemptible|custom|sole tenancy|reserved|premium|commitment|dws|calendar|extended",
    re.IGNORECASE,
)
_HOURS: Mapping[str, Decimal] = {"h": Decimal(1), "GiBy.h": Decimal(1), "GiBy.mo": Decimal(730)}
"""Hours in the unit of a price; no other unit is understood."""
_NANO = Decimal("1e-9")
_FARTHEST = Decimal(2)
"""How many times the shipped price a believable one may be, or the other way round."""

_KEPT = timedelta(days=1)
"""Prices change a few times a year, and the list is long."""
_ASKED_AGAIN = timedelta(hours=1)

_Part = tuple[str, str]
"""What is paid for, as the list words it, and the region."""


class PriceList:
    """The prices of parts, read once a day. Any number of threads may ask."""

    def __init__(self, client: Client, now: Callable[[], datetime]) -> None:
        self._client = client
        self._now = now
        self._lock = threading.Lock()
        self._due: datetime | None = None
        self._prices: Mapping[_Part, Decimal] = {}
        self._problem = ""

    def refresh(self) -> None:
        """Read the list if it is time to; takes half a minute. One that cannot be read leaves the
        prices as they were known."""
        now = self._now()
        with self._lock:
            if self._due is not None and now < self._due:
                return
            self._due = now + _KEPT
        try:
            self._prices = prices(self._client.skus(COMPUTE_ENGINE))
        except ProviderError as error:
            self._missed(error, now)

    def _missed(self, error: ProviderError, now: datetime) -> None:
        """A project may never have the list: it is said once, not every hour."""
        with self._lock:
            self._due, known = now + _ASKED_AGAIN, self._problem
            self._problem = error.raw_code
        if error.raw_code != known:
            log.warning("on-demand prices of Google Cloud stay as they were known: %s", error)

    def on_demand(self, offer: Offer) -> Decimal | None:
        """US dollars an hour of an offer's machine, as the shipped figure has it unless the list
        is clear about each part; None = not sold on demand."""
        shipped = offer.on_demand_usd_hour
        if shipped is None:
            return None
        told = [(self._prices.get((name, offer.region)), many) for name, many in parts(offer)]
        summed = sum((price * many for price, many in told if price is not None), Decimal(0))
        clear = told and all(price is not None for price, _ in told)
        near = shipped / _FARTHEST <= summed <= shipped * _FARTHEST
        return round(summed, 6) if clear and near else shipped


def parts(offer: Offer) -> list[tuple[str, Decimal]]:
    """What a machine is made of, as the list words it, each with how much; nothing where that is
    not known."""
    has, kind = offer.capacity, offer.instance_type
    series, gpu = _SERIES.get(kind.partition("-")[0]), _GPUS.get(has.gpu_name)
    if series is None or (has.gpus and gpu is None):
        return []
    found = [
        (f"{series} Core", Decimal(has.cpus)),
        (f"{series} Ram", Decimal(has.memory_mib) / 1024),
    ]
    if gpu:
        found.append((gpu, Decimal(has.gpus)))
    found += [
        (_DISK, Decimal(gib * has.gpus))
        for prefix, gib in _DISK_GIB_PER_GPU.items()
        if kind.startswith(prefix)
    ]
    return found


def prices(skus: Iterable[Mapping[str, Any]]) -> Mapping[_Part, Decimal]:
    """The on-demand price of each part in each region; of what has two there, none. Entries that
    cost nothing stand for what is paid elsewhere, as in a reservation."""
    found: dict[_Part, set[Decimal | None]] = {}
    for sku in skus:
        name = _part(sku)
        if not name or (price := _usd_hour(sku)) == 0:
            continue
        for region in sku.get("serviceRegions", ()):
            found.setdefault((name, region), set()).add(price)
    alone = ((part, next(iter(each))) for part, each in found.items() if len(each) == 1)
    return {part: price for part, price in alone if price is not None}


def _part(sku: Mapping[str, Any]) -> str:
    """What an entry is about, if it is bought on demand; else nothing."""
    text = str(sku.get("description", ""))
    worded = _WORDED.fullmatch(text)
    if not worded or _SOLD_OTHERWISE.search(text):
        return ""
    on_demand = sku.get("category", {}).get("usageType") == "OnDemand"
    return (worded["disk"] or worded["what"]) if on_demand else ""


def _usd_hour(sku: Mapping[str, Any]) -> Decimal | None:
    """The price of the last period; None for one in tiers, of an odd unit or another currency."""
    try:
        told = sku["pricingInfo"][-1]["pricingExpression"]
        (tier,) = told["tieredRates"]
        money = tier["unitPrice"]
        usd = Decimal(money.get("units", 0)) + Decimal(money.get("nanos", 0)) * _NANO
        clear = money["currencyCode"] == "USD" and not tier.get("startUsageAmount")
        return usd / _HOURS[told["usageUnit"]] if clear else None
    except (LookupError, ValueError, ArithmeticError):
        return None
