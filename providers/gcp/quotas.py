"""What a region allows: its zones, and quotas of 0, which no repeat of a request overcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from control_plane.core.model import Offer
from providers.gcp.client import Client

METRICS: Mapping[str, str] = {
    "L4": "NVIDIA_L4_GPUS",
    "A100": "NVIDIA_A100_GPUS",
    "A100-80GB": "NVIDIA_A100_80GB_GPUS",
    "H100": "NVIDIA_H100_GPUS",
    "T4": "NVIDIA_T4_GPUS",
    "P4": "NVIDIA_P4_GPUS",
    "P100": "NVIDIA_P100_GPUS",
    "V100": "NVIDIA_V100_GPUS",
}
ALL_GPUS = "GPUS_ALL_REGIONS"


@dataclass(frozen=True, slots=True)
class Region:
    """What the cloud says of one region."""

    zones: Sequence[str]
    limits: Mapping[str, float]
    """By metric, those of the whole project among them."""

    def bars(self, offer: Offer) -> bool:
        """Whether a limit of 0 forbids an offer. A machine that the cloud deletes within a week may
        use the preemptible quota or the usual one, on either market, so both must be 0; GPUs that
        have no metric of their own are never barred."""
        if not offer.capacity.gpus:
            return False
        metric = METRICS.get(offer.capacity.gpu_name, "")
        names = (metric, f"PREEMPTIBLE_{metric}")
        found = [self.limits[name] for name in names if name in self.limits]
        return self.limits.get(ALL_GPUS) == 0 or (bool(found) and not any(found))


def region(client: Client, project: str, name: str) -> Region:
    """Ask for one region. Raises `ProviderError`."""
    there = client.call("Regions", "get", project=project, region=name)
    everywhere = client.call("Projects", "get", project=project)
    quotas = (*everywhere.quotas, *there.quotas)
    return Region(
        [zone.rpartition("/")[2] for zone in there.zones],
        {str(getattr(quota.metric, "name", quota.metric)): quota.limit for quota in quotas},
    )
