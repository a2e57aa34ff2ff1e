"""The clouds of the scenarios: calm, small, with a few real instance types at list prices."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from control_plane.core.model import Capacity
from providers.simulated.spec import CloudSpec, InstanceType


def _type(name: str, usd_hour: str, gpus: str, cpus: int, memory_gib: int) -> InstanceType:
    """`gpus` as `1 x L4 24`, or empty."""
    count, model, gpu_gib = gpus.replace(" x", "").split() if gpus else ("0", "", "0")
    return InstanceType(
        name=name,
        capacity=Capacity(
            gpus=int(count),
            gpu_name=model,
            gpu_memory_gib=int(gpu_gib),
            cpus=cpus,
            memory_mib=memory_gib * 1024,
            disk_gib=100,
        ),
        on_demand_usd_hour=Decimal(usd_hour),
    )


_BOOT_S = (40, 40)
"""Every machine takes the same time, so that a transcript is about decisions."""

CLOUDS: Mapping[str, CloudSpec] = {
    "aws": CloudSpec(
        regions={
            "us-east-1": ("us-east-1a", "us-east-1b"),
            "eu-west-1": ("eu-west-1a", "eu-west-1b"),
        },
        types=(
            _type("c6i.xlarge", "0.17", "", 4, 8),
            _type("g4dn.xlarge", "0.526", "1 x T4 16", 4, 16),
            _type("g6.xlarge", "0.8048", "1 x L4 24", 4, 16),
            _type("g6.12xlarge", "4.6016", "4 x L4 24", 48, 192),
        ),
        boot_s=_BOOT_S,
    ),
    "gcp": CloudSpec(
        regions={"us-central1": ("us-central1-a", "us-central1-b")},
        types=(
            _type("n2-standard-4", "0.1942", "", 4, 16),
            _type("g2-standard-4", "0.7068", "1 x L4 24", 4, 16),
            _type("a2-highgpu-1g", "3.6731", "1 x A100 40", 12, 85),
        ),
        boot_s=_BOOT_S,
    ),
    "azure": CloudSpec(
        regions={"eastus": ("eastus-1", "eastus-2")},
        types=(_type("Standard_NC4as_T4_v3", "0.526", "1 x T4 16", 4, 28),),
        boot_s=_BOOT_S,
    ),
}
