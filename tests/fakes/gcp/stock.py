"""What the fake sells where, taken from the catalogue that ships with orchctl; and its quotas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from control_plane.core.model import Market, Offer
from providers.catalog.loader import load_offers

ACCELERATORS: Mapping[str, str] = {
    "L4": "nvidia-l4",
    "A100": "nvidia-tesla-a100",
    "A100-80GB": "nvidia-a100-80gb",
    "H100": "nvidia-h100-80gb",
    "H200": "nvidia-h200-141gb",
    "B200": "nvidia-b200",
    "RTX-PRO-6000": "nvidia-rtx-pro-6000",
    "T4": "nvidia-tesla-t4",
    "P4": "nvidia-tesla-p4",
    "P100": "nvidia-tesla-p100",
    "V100": "nvidia-tesla-v100",
}
"""Catalogue names of GPUs and the cloud's own."""

QUOTA_NAMES: Mapping[str, str] = {
    "nvidia-l4": "NVIDIA_L4_GPUS",
    "nvidia-tesla-a100": "NVIDIA_A100_GPUS",
    "nvidia-a100-80gb": "NVIDIA_A100_80GB_GPUS",
    "nvidia-h100-80gb": "NVIDIA_H100_GPUS",
    "nvidia-tesla-t4": "NVIDIA_T4_GPUS",
    "nvidia-tesla-p4": "NVIDIA_P4_GPUS",
    "nvidia-tesla-p100": "NVIDIA_P100_GPUS",
    "nvidia-tesla-v100": "NVIDIA_V100_GPUS",
}
"""The metric of each GPU; newer GPUs have none among a region's quotas."""

SPOT_ONLY = ("a3-highgpu-1g", "a3-highgpu-2g", "a3-highgpu-4g", "a3-ultragpu-8g", "a4-", "a4x-")
HYPERDISK_ONLY = ("n4-", "g4-", "a4-", "a4x-", "a3-ultragpu-")
"""Machine types that start from no other boot disk."""


_LETTERS: Mapping[str, str] = {"us-central1": "abcf", "us-east1": "bcd", "europe-west1": "bcd"}
"""Of the zones of these regions; all others have a, b and c."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One machine type, with the GPUs that come with it."""

    name: str
    cpus: int
    memory_mb: int
    accelerator: str = ""
    accelerators: int = 0


@dataclass(frozen=True, slots=True)
class Stock:
    """All zones, what each sells, and the spot prices."""

    kinds: Mapping[str, Mapping[str, Kind]]
    """By zone, then by machine type."""
    attachable: Mapping[str, frozenset[str]]
    """GPUs that can be added to an N1, by zone."""
    spot_usd: Mapping[tuple[str, str], str]
    """By zone and machine type, for whole machines."""

    def regions(self) -> Mapping[str, tuple[str, ...]]:
        """The zones of each region."""
        found: dict[str, tuple[str, ...]] = {}
        for zone in sorted(self.kinds):
            found[region_of(zone)] = (*found.get(region_of(zone), ()), zone)
        return found


def region_of(zone: str) -> str:
    """`us-central1` for `us-central1-a`."""
    return zone.rpartition("-")[0]


def _placed(offers: Sequence[Offer]) -> Iterator[Offer]:
    """Offers of a whole region are sold in all of its zones."""
    for offer in offers:
        everywhere = [f"{offer.region}-{letter}" for letter in _LETTERS.get(offer.region, "abc")]
        for zone in [offer.zone] if offer.zone else everywhere:
            yield replace(offer, zone=zone)


@cache
def stock() -> Stock:
    """The catalogue, seen from the cloud's side."""
    kinds: dict[str, dict[str, Kind]] = {}
    attachable: dict[str, set[str]] = {}
    spot: dict[tuple[str, str], str] = {}
    for offer in _placed(load_offers(["gcp"])):
        gpu, added = offer.capacity.gpu_name, offer.instance_type.startswith("n1-")
        accelerator = ACCELERATORS[gpu] if gpu and not added else ""
        if gpu and added:
            attachable.setdefault(offer.zone, set()).add(ACCELERATORS[gpu])
        name = offer.instance_type.partition("+")[0]
        kinds.setdefault(offer.zone, {})[name] = Kind(
            name,
            offer.capacity.cpus,
            offer.capacity.memory_mib,
            accelerator,
            offer.capacity.gpus if accelerator else 0,
        )
        if offer.market is Market.SPOT and not added:
            spot[offer.zone, offer.instance_type] = str(offer.price_usd_hour)
    return Stock(kinds, {zone: frozenset(each) for zone, each in attachable.items()}, spot)
