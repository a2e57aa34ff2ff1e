"""What is odd about a valid document, given what the clouds sell: before it is applied, not after.

What a document says by itself is checked when it is loaded (`load.py`); here stands what needs
offers, or is allowed but seldom meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from cronsim import CronSim

from control_plane.config.diff import price_text
from control_plane.config.errors import did_you_mean
from control_plane.config.units import gpu_text, memory_text, range_text, usd_text
from control_plane.core.model import Offer
from control_plane.core.policy import (
    Autoscaler,
    CloudPolicy,
    GpuRange,
    MarketPolicy,
    PoolPolicy,
    Range,
    Window,
)

ERROR = "error"
"""It cannot do what it says."""
WARNING = "warning"
"""It can, but is probably not meant."""

_YEAR_BEGINS = datetime(2024, 1, 1)  # noqa: DTZ001 - cron lines are compared on one wall clock
_OPENINGS_MAX = 1500
"""Openings of a window that are looked at: four years of weekdays, a day of every minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that whoever applies a document should know."""

    severity: str
    """`error` or `warning`."""
    code: str
    """Stable word for programs."""
    path: str
    """Where in the document."""
    sentence: str
    """For people: what, and what to do."""


def findings(policy: Autoscaler, offers: Sequence[Offer]) -> tuple[Finding, ...]:
    """All findings, pool by pool. Clouds that no offer names are not judged: no price list."""
    return tuple(
        finding
        for pool in policy.pools.values()
        for finding in (
            *_unused(policy, pool),
            *_unknown_regions(pool, offers),
            *_useless_clouds(pool, offers),
            *_purchase(policy, pool, offers),
            *_window_overlaps(pool),
        )
    )


def _unused(policy: Autoscaler, pool: PoolPolicy) -> Iterator[Finding]:
    if not any(pool.name in queue.pools for queue in policy.queues.values()):
        sentence = (
            f"no queue uses pool `{pool.name}`: it only ever keeps its minimum; "
            "name it in a queue's `pools`, or delete it"
        )
        yield _pool_finding(WARNING, "pool-unused", pool, sentence)


def _unknown_regions(pool: PoolPolicy, offers: Sequence[Offer]) -> Iterator[Finding]:
    for cloud in pool.clouds:
        known = {offer.region for offer in offers if offer.provider == cloud.provider}
        for region in cloud.regions:
            if known and region not in known:
                hint = did_you_mean(region, known) or f"it has {', '.join(sorted(known)[:8])}, …"
                sentence = f"`{cloud.provider}` sells nothing in a region `{region}`; {hint}"
                yield Finding(
                    severity=ERROR,
                    code="region-unknown",
                    path=f"pools.{pool.name}.clouds.{cloud.provider}",
                    sentence=sentence,
                )


def _useless_clouds(pool: PoolPolicy, offers: Sequence[Offer]) -> Iterator[Finding]:
    """Clouds that bring a pool nothing while others do."""
    alone = [replace(pool, clouds=(cloud,)) for cloud in pool.clouds if _is_listed(cloud, offers)]
    useless = [part for part in alone if not any(part.accepts(offer) for offer in offers)]
    for part in useless if len(useless) < len(pool.clouds) else ():
        cloud = part.clouds[0].provider
        yield Finding(
            severity=WARNING,
            code="cloud-dead",
            path=f"pools.{pool.name}.clouds.{cloud}",
            sentence=f"pool `{pool.name}` can buy nothing in {cloud}: no offer fits it; "
            f"{_near(part, offers)}",
        )


def _purchase(policy: Autoscaler, pool: PoolPolicy, offers: Sequence[Offer]) -> Iterator[Finding]:
    if any(not _is_listed(cloud, offers) for cloud in pool.clouds):
        return
    bought = [offer for offer in offers if pool.accepts(offer)]
    if not bought:
        sentence = f"pool `{pool.name}` can buy nothing: no offer fits it; {_near(pool, offers)}"
        yield _pool_finding(ERROR, "pool-dead", pool, sentence)
        return
    cheapest = min(bought, key=lambda offer: offer.price_usd_hour)
    if cheapest.price_usd_hour > policy.budget.hour_usd:
        sentence = (
            f"pool `{pool.name}` can never buy: its cheapest offer is {_offer_text(cheapest)}, "
            f"and `budget.hour` is {usd_text(policy.budget.hour_usd)}"
        )
        yield _pool_finding(ERROR, "budget-below-machine", pool, sentence)
    if min(offer.capacity.gpus for offer in bought) > pool.gpus_max:
        sentence = (
            f"pool `{pool.name}` can never buy: every offer that fits has more GPUs than "
            f"its `gpus_max` of {pool.gpus_max}"
        )
        yield _pool_finding(ERROR, "gpus-max-below-machine", pool, sentence)


def _is_listed(cloud: CloudPolicy, offers: Sequence[Offer]) -> bool:
    return any(offer.provider == cloud.provider for offer in offers)


def _pool_finding(severity: str, code: str, pool: PoolPolicy, sentence: str) -> Finding:
    return Finding(severity=severity, code=code, path=f"pools.{pool.name}", sentence=sentence)


# ------------------------------------------------------------------------- nearest misses


def _near(pool: PoolPolicy, offers: Sequence[Offer]) -> str:
    """What one change would make of it, or else which GPUs these clouds sell at all."""
    misses = [miss for miss in (_miss(pool, offers, *each) for each in _RELAXED) if miss]
    return "; ".join(misses) or _models(pool, offers)


def _miss(
    pool: PoolPolicy,
    offers: Sequence[Offer],
    limit: Callable[[PoolPolicy], str],
    relax: Callable[[PoolPolicy], PoolPolicy],
) -> str:
    fits = [offer for offer in offers if limit(pool) and relax(pool).accepts(offer)]
    if not fits:
        return ""
    best = min(fits, key=lambda offer: offer.price_usd_hour)
    count = "1 offer fits" if len(fits) == 1 else f"{len(fits)} offers fit"
    return f"without {limit(pool)} {count}, the cheapest is {_offer_text(best)}"


def _models(pool: PoolPolicy, offers: Sequence[Offer]) -> str:
    clouds = {cloud.provider for cloud in pool.clouds}
    models = {offer.capacity.gpu_name for offer in offers if offer.provider in clouds} - {""}
    name = pool.gpu.name if pool.gpu else ""
    if name and name not in models:
        # Short model names all look alike: a T4 is nothing like an L4.
        hint = did_you_mean(name, models) if len(name) > 3 else ""
        sold = f"they sell {', '.join(sorted(models)) or 'none'}"
        return f"its clouds sell no GPU `{name}`; {hint or sold}"
    return "more than one of its limits would have to be wider"


def _offer_text(offer: Offer) -> str:
    gpu = f" ({offer.capacity.gpus} x {offer.capacity.gpu_name})" if offer.capacity.gpus else ""
    where = f"{offer.provider} {offer.zone or offer.region}"
    return (
        f"{offer.instance_type}{gpu} {offer.market} in {where} "
        f"at {price_text(offer.price_usd_hour)} USD/hour"
    )


def _price_limit(pool: PoolPolicy) -> str:
    price = pool.max_price_usd_hour
    return "" if price is None else f"`max_price: {usd_text(price, per='hour')}`"


def _market_limit(pool: PoolPolicy) -> str:
    return "" if pool.market is MarketPolicy.SPOT_FIRST else f"`market: {pool.market}`"


def _region_limit(pool: PoolPolicy) -> str:
    regions = [region for cloud in pool.clouds for region in cloud.regions]
    return f"the limit to {', '.join(regions)}" if regions else ""


def _gpu_limit(pool: PoolPolicy) -> str:
    gpu = pool.gpu
    sized = gpu and (gpu.count != Range() or gpu.memory_gib != Range())
    return f"the count and memory of `gpu: {gpu_text(gpu)}`" if gpu and sized else ""


def _cpu_limit(pool: PoolPolicy) -> str:
    return "" if pool.cpus == Range() else f"`cpu: {range_text(pool.cpus)}`"


def _memory_limit(pool: PoolPolicy) -> str:
    if pool.memory_mib == Range():
        return ""
    return f"`memory: {range_text(pool.memory_mib, memory_text)}`"


def _any_size(pool: PoolPolicy) -> PoolPolicy:
    name = pool.gpu.name if pool.gpu else ""
    return replace(pool, gpu=GpuRange(name=name, count=Range(low=1)))


def _anywhere(pool: PoolPolicy) -> PoolPolicy:
    return replace(pool, clouds=tuple(replace(cloud, regions=()) for cloud in pool.clouds))


_RELAXED: tuple[tuple[Callable[[PoolPolicy], str], Callable[[PoolPolicy], PoolPolicy]], ...] = (
    (_price_limit, lambda pool: replace(pool, max_price_usd_hour=None)),
    (_market_limit, lambda pool: replace(pool, market=MarketPolicy.SPOT_FIRST)),
    (_region_limit, _anywhere),
    (_gpu_limit, _any_size),
    (_cpu_limit, lambda pool: replace(pool, cpus=Range())),
    (_memory_limit, lambda pool: replace(pool, memory_mib=Range())),
)
"""Each limit in the document's words, empty where the pool has none, and the pool without it."""


# ------------------------------------------------------------------------------- windows


def _window_overlaps(pool: PoolPolicy) -> Iterator[Finding]:
    for warm_at, warm in enumerate(pool.warm):
        for closed_at, closed in enumerate(pool.closed):
            if moment := _first_overlap(warm, closed):
                sentence = (
                    f"pool `{pool.name}` is to be warm and closed at once, such as on "
                    f"{moment:%A at %H:%M} ({warm.timezone}): closed wins, nothing is launched "
                    f"then; keep warm[{warm_at}] and closed[{closed_at}] apart"
                )
                yield _pool_finding(WARNING, "warm-while-closed", pool, sentence)


def _first_overlap(one: Window, other: Window) -> datetime | None:
    """When both are first open within a sample year, on the wall clock of `one`; None if never.

    Windows of two time zones are not compared: daylight saving would move them against each other,
    and a warning that comes and goes with the date helps nobody.
    """
    if one.timezone != other.timezone:
        return None
    ones, others = _openings(one), _openings(other)
    a, b = next(ones, None), next(others, None)
    while a and b:
        if a[0] < b[1] and b[0] < a[1]:
            return max(a[0], b[0])
        if a[1] <= b[1]:
            a = next(ones, None)
        else:
            b = next(others, None)
    return None


def _openings(window: Window) -> Iterator[tuple[datetime, datetime]]:
    open_for = timedelta(seconds=window.duration_s)
    for begins in islice(CronSim(window.cron, _YEAR_BEGINS), _OPENINGS_MAX):
        yield begins, begins + open_for
