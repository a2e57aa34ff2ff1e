"""What people declare: an autoscaler's queues, pools, budget and alerts, parsed and frozen.

Written only by `control_plane/config`, read by the planner. Every cap has a finite default, so a
forgotten line costs a known amount at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from control_plane.core.model import Capacity, Market, Offer


class MarketPolicy(StrEnum):
    """Which market a pool buys from."""

    SPOT = "spot"
    ON_DEMAND = "on-demand"
    SPOT_FIRST = "spot-first"
    """Spot where it can be had, on-demand of the same choice when no spot offer is left."""


class AtLimit(StrEnum):
    """What happens when a budget is used up."""

    HOLD = "hold"
    """Buy nothing more; what runs may finish."""
    DRAIN = "drain"
    """Buy nothing more, take no new jobs on what runs, end machines as their jobs end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A whole-number range with both ends included."""

    low: int = 0
    high: int | None = None

    def holds(self, value: int) -> bool:
        return self.low <= value and (self.high is None or value <= self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRange:
    """The GPUs a pool's machines have: model, memory on each card, cards per machine."""

    name: str = ""
    """Catalogue name; empty = any NVIDIA GPU."""
    count: Range = field(default_factory=lambda: Range(low=1, high=1))
    memory_gib: Range = field(default_factory=Range)


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudPolicy:
    """Where in one cloud a pool may buy."""

    provider: str
    regions: tuple[str, ...] = ()
    """Empty = the provider has only one place."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The provider's own settings, such as `project` or `resource_group`."""


def merged(clouds: Iterable[CloudPolicy]) -> tuple[CloudPolicy, ...]:
    """The same places with each cloud and account once, in a fixed order; no regions = all."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], list[CloudPolicy]] = {}
    for cloud in clouds:
        account = cloud.provider, tuple(sorted(cloud.options.items()))
        found.setdefault(account, []).append(cloud)
    return tuple(_united(found[account]) for account in sorted(found))


def _united(same: Sequence[CloudPolicy]) -> CloudPolicy:
    everywhere = any(not cloud.regions for cloud in same)
    regions = {region for cloud in same for region in cloud.regions}
    return replace(same[0], regions=() if everywhere else tuple(sorted(regions)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A time that repeats: from each moment the cron line fires, for a while."""

    cron: str
    """Five fields, read in `timezone`."""
    duration_s: int
    timezone: str = "UTC"
    machines: int = 0
    """Machines to keep while the window is open; 0 in a `closed` window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPolicy:
    """A kind of machine an autoscaler may keep."""

    name: str
    gpu: GpuRange | None = None
    cpus: Range = field(default_factory=Range)
    memory_mib: Range = field(default_factory=Range)
    disk_gib: int = 100
    """Size of the root disk to ask for where the provider lets us choose."""
    clouds: tuple[CloudPolicy, ...]
    market: MarketPolicy = MarketPolicy.SPOT_FIRST
    max_price_usd_hour: Decimal | None = None
    machines: Range = field(default_factory=lambda: Range(low=0, high=4))
    gpus_max: int = 64
    idle_timeout_s: int = 300
    boot_timeout_s: int = 600
    max_lifetime_s: int = 86_400
    warm: tuple[Window, ...] = ()
    closed: tuple[Window, ...] = ()

    @property
    def machines_max(self) -> int:
        return self.machines.high if self.machines.high is not None else self.machines.low

    def accepts(self, offer: Offer) -> bool:
        """Whether an offer is of this pool's kind: place, market, price and size."""
        return (
            self._size_accepts(offer.capacity)
            and self._market_accepts(offer.market)
            and (self.max_price_usd_hour is None or offer.price_usd_hour <= self.max_price_usd_hour)
            and any(
                cloud.provider == offer.provider
                and (not cloud.regions or offer.region in cloud.regions)
                for cloud in self.clouds
            )
        )

    def matching(self, offers: Iterable[Offer]) -> list[Offer]:
        """The offers this pool accepts, in their order. Where the disk is ours to choose (the offer
        says nothing of it), they come with the disk that this pool asks for."""
        return [
            offer
            if offer.capacity.disk_gib
            else replace(offer, capacity=replace(offer.capacity, disk_gib=self.disk_gib))
            for offer in offers
            if self.accepts(offer)
        ]

    def _market_accepts(self, market: Market) -> bool:
        return self.market is MarketPolicy.SPOT_FIRST or self.market.value == market.value

    def _size_accepts(self, capacity: Capacity) -> bool:
        if not (self.cpus.holds(capacity.cpus) and self.memory_mib.holds(capacity.memory_mib)):
            return False
        if self.gpu is None:
            return capacity.gpus == 0
        low, high = self.gpu.memory_gib.low, self.gpu.memory_gib.high
        return (
            self.gpu.name in ("", capacity.gpu_name)
            and self.gpu.count.holds(capacity.gpus)
            # The tolerance of `Capacity.fits`: nominal and reported memory differ by up to 10 %.
            and low * 9 <= capacity.gpu_memory_gib * 10
            and (high is None or capacity.gpu_memory_gib * 9 <= high * 10)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePolicy:
    """How one queue is served."""

    name: str
    pools: tuple[str, ...]
    """Pools that may serve it, the preferred one first."""
    priority: int = 0
    """Between queues: higher first."""
    launch_after_s: int = 0
    """A job waits this long for a running machine before one is bought for it."""
    jobs_per_machine: int | None = None
    """How many of its jobs one machine may run at once; None = what the stated resources allow."""
    ageing_s: int = 3600
    """A waiting job gains one step of priority each time it has waited this long."""
    max_running: int | None = None
    """Jobs of it that machines may have at a time; None = as many as there is room for."""
    max_running_per_owner: int | None = None
    """The same for the jobs of any one owner."""

    def aged_priority(self, oldest_at: datetime | None, now: datetime) -> int:
        """Its priority, one step higher each time its longest waiter has waited `ageing_s`."""
        if oldest_at is None:
            return self.priority
        return self.priority + int((now - oldest_at).total_seconds() // self.ageing_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Caps on money, in US dollars."""

    hour_usd: Decimal = Decimal(20)
    """What all machines together may cost per hour, counting what is still booting."""
    day_usd: Decimal = Decimal(200)
    month_usd: Decimal = Decimal(3000)
    at_limit: AtLimit = AtLimit.HOLD


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Whom to tell about what."""

    channel: str
    """`slack` or `webhook`."""
    target: str
    """A secret reference (`secret://…`), never the secret."""
    on: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscaler:
    """One declared document: queues, pools, budget."""

    name: str
    queues: Mapping[str, QueuePolicy]
    pools: Mapping[str, PoolPolicy]
    budget: Budget = field(default_factory=Budget)
    alerts: tuple[Alert, ...] = ()

    @property
    def clouds(self) -> tuple[CloudPolicy, ...]:
        """Where its pools may buy, as they say it."""
        return tuple(cloud for pool in self.pools.values() for cloud in pool.clouds)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalerRecord:
    """One version of an applied document, as the store keeps it."""

    name: str
    version: int
    """Grows with each apply; the ETag of the API."""
    document: str
    """The YAML text as it was applied, comments and all."""
    policy: Autoscaler
    applied_at: datetime
    applied_by: str = ""
    paused: bool = False
    """No launches; running jobs finish; machines still end when idle."""
    deleting: bool = False
    """Drains, then goes."""
