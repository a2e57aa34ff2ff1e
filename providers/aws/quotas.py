"""How many virtual CPUs an account may have in a region, by market and family.

Codes: Service Quotas of Amazon EC2 ("On-Demand Instance quotas", "Spot Instance quotas"). New
accounts have 0 for P and often for G.
"""

from __future__ import annotations

from collections.abc import Mapping

from control_plane.core.model import Market
from providers.aws.client import Client

CODES: Mapping[tuple[Market, str], str] = {
    (Market.ON_DEMAND, "g"): "L-DB2E81BA",
    (Market.ON_DEMAND, "p"): "L-417A185B",
    (Market.ON_DEMAND, "standard"): "L-1216C47A",
    (Market.SPOT, "g"): "L-3819A6DF",
    (Market.SPOT, "p"): "L-7212CCBC",
    (Market.SPOT, "p5"): "L-C4BD4855",
    (Market.SPOT, "standard"): "L-34B43A08",
}
"""From market and family to quota. Spot has one of its own for P5; what is newer is in none."""

_STANDARD = frozenset("acdhimrtz")


def code(market: Market, instance_type: str) -> str:
    """The quota that a type counts against on a market; empty when it is not known."""
    return CODES.get((market, _family(market, instance_type)), "")


def _family(market: Market, instance_type: str) -> str:
    name = instance_type.partition(".")[0]
    if name.startswith(("g", "vt")):
        return "g"
    if not name.startswith("p"):
        return "standard" if name[0] in _STANDARD and name[1:2].isdecimal() else ""
    if market is Market.ON_DEMAND or name.startswith(("p2", "p3", "p4")):
        return "p"
    return "p5" if name.startswith("p5") else ""


def limit(quotas: Client, quota_code: str) -> float:
    """The value of a quota, in virtual CPUs."""
    answer = quotas.get_service_quota(ServiceCode="ec2", QuotaCode=quota_code)
    return float(answer["Quota"]["Value"])
