"""What a subscription may start in a region: sizes that are sold to it, and cores left to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from control_plane.core.model import Market, Offer
from providers.azure.client import Clients
from providers.azure.errors import told

if TYPE_CHECKING:
    from azure.mgmt.compute.models import ResourceSku

_SPOT_CORES = "lowprioritycores"
_ALL_CORES = "cores"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What may be started; sizes and families lower-case."""

    families: Mapping[str, str]
    """By size that is sold to this subscription: its quota family."""
    limits: Mapping[str, int]
    """Cores by family; all spot machines of a region share `lowPriorityCores`."""

    def allows(self, offer: Offer) -> bool:
        """Whether one such machine can be started, if nothing else ran. A quota that is used up
        just now is not looked at: it is a matter of minutes, and the launch says so."""
        family = self.families.get(offer.instance_type.lower())
        if family is None:
            return False
        spot = offer.market is Market.SPOT
        asked = (_SPOT_CORES,) if spot else (family, _ALL_CORES)
        return all(
            self.limits.get(name, offer.capacity.cpus) >= offer.capacity.cpus for name in asked
        )


def allowed(clients: Clients, subscription: str, region: str) -> Allowed:
    """What a subscription may start in a region. Raises `ProviderError`."""
    compute = clients.compute(subscription)
    with told():
        skus = list(compute.resource_skus.list(filter=f"location eq '{region}'"))
        usages = list(compute.usage.list(region))
    return Allowed(
        families={
            (sku.name or "").lower(): (sku.family or "").lower()
            for sku in skus
            if sku.resource_type == "virtualMachines" and not _withheld(sku)
        },
        limits={(each.name.value or "").lower(): each.limit for each in usages},
    )


def _withheld(sku: ResourceSku) -> bool:
    """Whether a size is not for this subscription in the whole region."""
    return any(each.type == "Location" for each in sku.restrictions or ())
