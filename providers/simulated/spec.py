"""What a simulated cloud is like: what it sells, how scarce that is, and how much goes wrong.

The default is a calm cloud in which nothing fails, so a test adds only the trouble it is about;
`CloudSpec.stormy()` has all of it at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from control_plane.core.model import Capacity, Market


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceType:
    """One kind of machine, at one on-demand price in all regions."""

    name: str
    capacity: Capacity
    on_demand_usd_hour: Decimal
    spot_share: Decimal | None = Decimal("0.40")
    """Usual spot price as a share of the on-demand one; None = not sold on spot."""


def _gpu(
    name: str, price: str, gpus: int, gpu: str, gpu_gib: int, cpus: int, ram_gib: int
) -> InstanceType:
    return InstanceType(
        name=name,
        capacity=Capacity(
            gpus=gpus,
            gpu_name=gpu,
            gpu_memory_gib=gpu_gib,
            cpus=cpus,
            memory_mib=ram_gib * 1024,
            disk_gib=100,
        ),
        on_demand_usd_hour=Decimal(price),
    )


INSTANCE_TYPES = (
    _gpu("c6i.xlarge", "0.17", 0, "", 0, 4, 8),
    _gpu("g4dn.xlarge", "0.526", 1, "T4", 16, 4, 16),
    _gpu("g6.xlarge", "0.8048", 1, "L4", 24, 4, 16),
    _gpu("g5.xlarge", "1.006", 1, "A10G", 24, 4, 16),
    _gpu("g6.12xlarge", "4.6016", 4, "L4", 24, 48, 192),
    _gpu("p4d.24xlarge", "21.9576", 8, "A100", 40, 96, 1152),
    _gpu("p5.48xlarge", "55.04", 8, "H100", 80, 192, 2048),
)
"""A few real instance types with their list prices, from a CPU machine to eight H100."""

REGIONS: Mapping[str, tuple[str, ...]] = {
    "us-east-1": ("us-east-1a", "us-east-1b"),
    "eu-west-1": ("eu-west-1a", "eu-west-1b"),
}
"""Regions and their zones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudSpec:
    """A cloud's goods and manners. Rates are probabilities from 0 to 1 unless said otherwise."""

    regions: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict(REGIONS))
    types: tuple[InstanceType, ...] = INSTANCE_TYPES

    depth: int = 1000
    """Most machines one type, zone and market can hold."""
    scarcity: float = 0.0
    """Share of the time a spot market is empty; on-demand ones a quarter of that."""
    price_swing: float = 0.0
    """How far a spot price strays from its usual level, as a share of it."""
    market_step_s: int = 600
    """Between two moves of a market's capacity and price."""
    price_locked: bool = True
    """A machine keeps the price it was launched at; else its bill follows the market."""

    start_s: int = 15
    """From launch to running."""
    boot_s: tuple[int, int] = (30, 60)
    """From launch until the start-up text has come to its end: shortest, longest."""
    slow_boot_rate: float = 0.0
    """Boots that take five times as long."""
    never_boot_rate: float = 0.0
    """Machines that run and cost money, and whose start-up text never works."""
    stop_s: int = 20
    """From terminate to gone; it costs money until then."""
    remembered_s: int = 3600
    """How long a machine that is gone is still shown."""

    interruptions_per_hour: float = 0.0
    """Of one spot machine, on average; not a probability."""
    notice_s: int = 120
    """Between an interruption notice and the end."""
    life_limit: bool = False
    """Whether the cloud itself ends machines at their deadline."""

    listing_lag_s: int = 0
    """How long a new machine is missing from listings."""
    unreadable_region_rate: float = 0.0
    """Of each region in each listing."""
    calls_per_minute: int | None = None
    """More calls than this are throttled; None = never."""
    quota_machines: int | None = None
    """Machines per region and market; None = no limit."""
    error_rate: float = 0.0
    """Calls that fail before they act."""
    lost_answer_rate: float = 0.0
    """Calls that act and whose answer never arrives."""
    slow_launch_rate: float = 0.0
    """Launches that answer with an operation."""
    slow_launch_s: int = 90
    """How long such an operation goes on."""
    late_refusal_rate: float = 0.0
    """Operations that end in a capacity error."""

    def __post_init__(self) -> None:
        if not (self.regions and self.types and all(self.regions.values())):
            raise ValueError("a cloud needs at least one region with a zone, and one type")

    @classmethod
    def stormy(cls) -> CloudSpec:
        """Everything that goes wrong in real clouds, often."""
        return cls(
            depth=4,
            scarcity=0.3,
            price_swing=0.4,
            slow_boot_rate=0.1,
            never_boot_rate=0.05,
            interruptions_per_hour=0.5,
            listing_lag_s=20,
            unreadable_region_rate=0.05,
            calls_per_minute=120,
            error_rate=0.05,
            lost_answer_rate=0.05,
            slow_launch_rate=0.2,
            late_refusal_rate=0.3,
        )

    def but(self, **changes: object) -> CloudSpec:
        """The same cloud with some settings changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def places(self) -> Iterator[tuple[str, str]]:
        """All (region, zone) pairs, in order."""
        for region, zones in self.regions.items():
            for zone in zones:
                yield region, zone

    def markets(self, kind: InstanceType) -> tuple[Market, ...]:
        """Where a type is sold."""
        sold_on_spot = kind.spot_share is not None
        return (Market.SPOT, Market.ON_DEMAND) if sold_on_spot else (Market.ON_DEMAND,)
