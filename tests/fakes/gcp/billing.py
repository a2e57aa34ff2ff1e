"""The price list of Compute Engine: unit prices as published for Iowa and the regions priced like
it, among entries that are worded nearly alike and mean something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from tests.fakes.gcp.cloud import GcpCloud
from tests.fakes.gcp.discovery import ApiError, Json
from tests.fakes.gcp.listings import Call, Handler

AMERICAS = ("us-central1", "us-east1", "us-west1")
_COMPUTE_ENGINE = "6F81-5844-456A"
_MOST_AT_ONCE = 5000

UNIT_USD: Mapping[str, tuple[str, str]] = {
    "E2 Instance Core": ("0.02181159", "h"),
    "E2 Instance Ram": ("0.00292353", "GiBy.h"),
    "N1 Predefined Instance Core": ("0.031611", "h"),
    "N1 Predefined Instance Ram": ("0.004237", "GiBy.h"),
    "N2 Instance Core": ("0.031611", "h"),
    "N2 Instance Ram": ("0.004237", "GiBy.h"),
    "N2D AMD Instance Core": ("0.027502", "h"),
    "N2D AMD Instance Ram": ("0.003686", "GiBy.h"),
    "G2 Instance Core": ("0.02499", "h"),
    "G2 Instance Ram": ("0.002927", "GiBy.h"),
    "A2 Instance Core": ("0.031611", "h"),
    "A2 Instance Ram": ("0.004237", "GiBy.h"),
    "Nvidia L4 GPU": ("0.56004", "h"),
    "Nvidia Tesla A100 GPU": ("2.933908", "h"),
    "Nvidia Tesla A100 80GB GPU": ("3.92808", "h"),
    "Nvidia Tesla T4 GPU": ("0.35", "h"),
    "Nvidia Tesla P4 GPU": ("0.60", "h"),
    "Nvidia Tesla P100 GPU": ("1.46", "h"),
    "Nvidia Tesla V100 GPU": ("2.48", "h"),
}
"""US dollars and the unit, by "VM instance pricing" and "GPU pricing" (cloud.google.com)."""


def sku(
    description: str,
    usd: str,
    unit: str = "h",
    *regions: str,
    usage: str = "OnDemand",
    currency: str = "USD",
) -> Json:
    """One entry, in force since a while."""
    units, _, rest = usd.partition(".")
    nanos = int(Decimal("0." + (rest or "0")) * 1_000_000_000)
    price = {"currencyCode": currency, "units": units, "nanos": nanos}
    rates = [{"startUsageAmount": 0, "unitPrice": price}]
    return {
        "name": f"services/{_COMPUTE_ENGINE}/skus/0000",
        "description": description,
        "category": {"serviceDisplayName": "Compute Engine", "usageType": usage},
        "serviceRegions": list(regions or AMERICAS),
        "pricingInfo": [{"pricingExpression": {"usageUnit": unit, "tieredRates": rates}}],
    }


def _like(name: str, unit: str) -> list[Json]:
    """Entries that a careless reader takes for the one of a part on demand."""
    spot = (
        f"{name} attached to Spot Preemptible VMs" if "GPU" in name else f"Spot Preemptible {name}"
    )
    where = "running in Americas"
    return [
        sku(f"{spot} {where}", "0.001", unit, usage="Preemptible"),
        sku(f"Spot Preemptible {name} {where}", "0.001", unit),
        sku(f"{name.replace('Instance', 'Custom Instance')} Custom {where}", "0.09", unit),
        sku(f"{name} Sole Tenancy {where}", "0.08", unit),
        sku(f"Sole Tenancy Premium for {name} {where}", "0.07", unit),
        sku(f"Reserved {name} {where}", "0.06", unit),
        sku(f"{name} {where}", "0", unit),
        sku(f"{name} attached to DWS Defined Duration VMs {where}", "0.05", unit),
        sku(f"DWS Calendar Mode {name} {where}", "0.05", unit),
        sku(f"{name} {where} in Calendar Mode", "0.05", unit),
        sku(f"Commitment v1: {name} {where}", "0.04", unit, usage="Commit1Yr"),
        sku(f"{name} running in Frankfurt", "0.99", unit, "europe-west3"),
    ]


def skus() -> list[Json]:
    """The list."""
    right = [sku(f"{name} running in Americas", *each) for name, each in UNIT_USD.items()]
    wrong = [each for name, (_, unit) in UNIT_USD.items() for each in _like(name, unit)]
    return [
        *wrong[::2],
        *right,
        sku("SSD backed Local Storage", "0.08", "GiBy.mo"),
        sku("SSD backed Local Storage attached to Spot Preemptible VMs", "0.03", "GiBy.mo"),
        sku("Spot Preemptible A4 Nvidia B200 (1 gpu slice) running in Americas", "3.1"),
        sku("Storage PD Capacity", "0.04", "GiBy.mo"),
        *wrong[1::2],
    ]


def _list(cloud: GcpCloud, call: Call) -> Json:
    if call.path["service"] != _COMPUTE_ENGINE:
        raise ApiError(404, "notFound", f"services/{call.path['service']} was not found")
    if call.query.get("currencyCode") != "USD":
        raise ApiError(400, "badRequest", "the fake knows US dollars only")
    asked = min(int(call.query.get("pageSize") or _MOST_AT_ONCE), cloud.skus_at_once)
    at = int(call.query.get("pageToken") or 0)
    known = skus() if cloud.skus is None else cloud.skus
    more = str(at + asked) if at + asked < len(known) else ""
    return {"skus": known[at : at + asked], "nextPageToken": more}


METHODS: dict[str, Handler] = {"skus.list": _list}
