"""What to buy: offers ranked by price per job, within the caps, around what is refused and resting.

A launch carries its whole ranked choice, so a capacity error moves on to the next type, zone,
region, market or cloud in the same tick, and the caps were checked for every one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter

from control_plane.core import reasons
from control_plane.core.budget import Caps
from control_plane.core.cooldowns import rests
from control_plane.core.demand import Demand, Unmet
from control_plane.core.model import (
    WHOLE_MACHINE_PPM,
    Cooldown,
    Market,
    Need,
    Offer,
    Reason,
    breaker_key,
)
from control_plane.core.plan import Launch, Refusal
from control_plane.core.policy import PoolPolicy
from control_plane.core.recovery import Recovery, unknown_places
from control_plane.core.schedule import open_windows
from control_plane.core.snapshot import Snapshot
from control_plane.core.supply import Rank

FALLBACKS_MAX = 12
"""Offers tried in one tick for one machine. Every one that is refused costs a cloud call, and what
twelve places refuse the thirteenth seldom has; the next tick starts with fresh cool-downs."""


_WHOLE = Need(share_ppm=WHOLE_MACHINE_PPM)
"""What a machine is bought for that nothing waits for: any machine will do."""


@dataclass(slots=True)
class Placement:
    """What is bought, and what is not and why."""

    launches: list[Launch] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    """A machine that is bought in this plan; its fallbacks are chosen when all machines are."""

    machine_id: str
    pool: PoolPolicy
    ranked: tuple[Offer, ...]
    """Everything it could be, the best first."""
    reason: Reason

    @property
    def offer(self) -> Offer:
        return self.ranked[0]


class Shop:
    """Buys for one plan: knows what is available, what the caps leave, and which ids are unused."""

    def __init__(self, snapshot: Snapshot, recovery: Recovery, caps: Caps) -> None:
        self._snapshot = snapshot
        self._caps = caps
        self._ids: Iterator[str] = iter(snapshot.new_machine_ids)
        self._closed = _closed_pools(snapshot)
        self._books_wrong = recovery.books_wrong
        self._available: dict[str, tuple[list[Offer], Reason | None]] = {}
        self._rooms: dict[tuple[str, Need], list[tuple[int, Offer]]] = {}
        self._ranks: dict[tuple[str, Need, int], list[Offer]] = {}
        self.bought: list[Bought] = []

    def buy(self, pool: PoolPolicy, need: Need, jobs: int, why: Reason) -> Bought | Reason:
        """Buy one machine of a pool for up to `jobs` jobs of one need, or say why not."""
        refused = self._refuse_pool(pool) or self._caps.refuse_machine(pool)
        if refused:
            return refused
        offers, nothing = self._offers(pool)
        fitting = self._ranked(pool, offers, need, jobs)
        if not fitting:
            return nothing or reasons.nothing_fits(pool, need)
        affordable, too_much = [], []
        for offer in fitting:
            refusal = self._caps.refuse_offer(pool, offer)
            if refusal:
                too_much.append((_price(offer), refusal))
            else:
                affordable.append(offer)
        if not affordable:
            # The cheapest offer came nearest to being bought; its refusal is the one to read.
            return min(too_much, key=itemgetter(0))[1]
        machine_id = next(self._ids, None)
        if machine_id is None:
            return reasons.no_ids(pool)
        self._caps.take(pool, affordable[0])
        bought = Bought(
            machine_id=machine_id,
            pool=pool,
            ranked=tuple(affordable),
            reason=reasons.chosen(why, affordable[0], len(affordable)),
        )
        self.bought.append(bought)
        return bought

    def launches(self) -> list[Launch]:
        """What was bought, each machine with the fallbacks that the caps leave room for. They are
        chosen last: a dear fallback must not take the money of a machine that is surely wanted."""
        return [self._launch(bought) for bought in self.bought]

    def _launch(self, bought: Bought) -> Launch:
        offers = [bought.offer]
        for offer in bought.ranked[1:]:
            if len(offers) < FALLBACKS_MAX and self._caps.widen(bought.pool, offers, offer):
                offers.append(offer)
        return Launch(
            machine_id=bought.machine_id,
            pool=bought.pool.name,
            offers=tuple(offers),
            reason=bought.reason,
        )

    def _refuse_pool(self, pool: PoolPolicy) -> Reason | None:
        if self._snapshot.deleting:
            return reasons.deleting(self._snapshot.policy.name)
        if self._snapshot.paused:
            return reasons.paused(self._snapshot.policy.name)
        return self._books_wrong or self._caps.used_up() or self._closed.get(pool.name)

    def _offers(self, pool: PoolPolicy) -> tuple[list[Offer], Reason | None]:
        """A pool's offers that can be tried now, and if there are none, why."""
        if pool.name not in self._available:
            accepted = pool.matching(self._snapshot.offers)
            if not accepted:
                self._available[pool.name] = ([], reasons.dead_pool(pool))
            else:
                self._available[pool.name] = self._not_resting(pool, accepted)
        return self._available[pool.name]

    def _ranked(
        self, pool: PoolPolicy, offers: Sequence[Offer], need: Need, jobs: int
    ) -> Sequence[Offer]:
        """The offers that hold at least one job, the best first. Kept, because most machines of a
        plan are bought for many equal jobs."""
        rooms = self._rooms.get((pool.name, need))
        if rooms is None:
            counted = ((offer.capacity.count(need), offer) for offer in offers)
            rooms = self._rooms[pool.name, need] = [room for room in counted if room[0] > 0]
        at_once = min(jobs, max((count for count, _ in rooms), default=0))
        ranked = self._ranks.get((pool.name, need, at_once))
        if ranked is None:
            best_first = sorted(rooms, key=_price_per_job(at_once))
            ranked = self._ranks[pool.name, need, at_once] = [offer for _, offer in best_first]
        return ranked

    def _not_resting(
        self, pool: PoolPolicy, accepted: Sequence[Offer]
    ) -> tuple[list[Offer], Reason | None]:
        unknown = unknown_places(self._snapshot)
        answering = [
            offer
            for offer in accepted
            if not {"*", offer.region, offer.zone} & unknown.get(offer.provider, frozenset())
        ]
        if not answering:
            return [], reasons.places_unknown(pool, self._problems(accepted))
        resting = _Resting(self._snapshot)
        available = [offer for offer in answering if resting.until(pool, offer) is None]
        if available:
            return available, None
        return [], resting.reason(pool, answering)

    def _problems(self, offers: Sequence[Offer]) -> list[str]:
        providers = {offer.provider for offer in offers}
        seen = (s for s in self._snapshot.observations if s.provider in providers)
        return sorted({observation.problem for observation in seen if observation.problem})


class _Resting:
    """Which offers rest after a refusal or a boot failure."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._now = snapshot.now
        self._limit = snapshot.timing.breaker_failures
        self._cooldowns = {rest.key: rest for rest in snapshot.cooldowns}

    def until(self, pool: PoolPolicy, offer: Offer) -> datetime | None:
        """When this offer may be tried again; None = now."""
        found = [rest.until for rest in self._rests(pool, offer)]
        return max(found, default=None)

    def reason(self, pool: PoolPolicy, offers: Sequence[Offer]) -> Reason:
        """Why every one of these offers rests, told by the one that is back first."""
        soonest = min(
            (max(self._rests(pool, offer), key=lambda rest: rest.until) for offer in offers),
            key=lambda rest: (rest.until, rest.key),
        )
        return reasons.all_resting(pool, len(offers), soonest, self._now)

    def _rests(self, pool: PoolPolicy, offer: Offer) -> list[Cooldown]:
        found = rests(offer, self._cooldowns, self._now)
        broken = self._cooldowns.get(breaker_key(pool.name, offer))
        if broken is not None and broken.until > self._now and broken.count >= self._limit:
            found.append(broken)
        return found


def place(snapshot: Snapshot, recovery: Recovery, demand: Demand, caps: Caps) -> Placement:
    """Buy for what is unmet, then for the machines that are to be kept warm."""
    shop = Shop(snapshot, recovery, caps)
    refusals = [
        refusal for unmet in demand.unmet for refusal in _buy_for(shop, snapshot, demand, unmet)
    ]
    refusals += _keep_warm(shop, snapshot, recovery)
    return Placement(launches=shop.launches(), refusals=refusals)


def _buy_for(shop: Shop, snapshot: Snapshot, demand: Demand, unmet: Unmet) -> list[Refusal]:
    group, left = unmet.group, unmet.count
    tally = demand.tallies[group.queue]
    why = reasons.jobs_wait(group, snapshot.now)
    refused: list[Reason] = []
    pools = snapshot.policy.queues[group.queue].pools
    left -= _on_new(demand, pools, group.need, left)
    for pool in (snapshot.policy.pools[name] for name in pools):
        while left > 0:
            bought = shop.buy(pool, group.need, left, why)
            if isinstance(bought, Reason):
                refused.append(bought)
                break
            room = bought.offer.capacity
            jobs = min(left, room.count(group.need))
            demand.supply.add(
                pool.name, Rank.BOOTING, bought.machine_id, room.less(group.need, jobs)
            )
            left -= jobs
    tally.bought_for += unmet.count - left
    tally.left += left
    if left == 0:
        return []
    return [Refusal(subject=group.queue, wanted=left, reason=no) for no in refused]


def _on_new(demand: Demand, pools: Sequence[str], need: Need, jobs: int) -> int:
    """Put jobs into the room that machines bought for others have left."""
    taken = demand.supply.take(pools, need, jobs)
    return sum(sum(machines.values()) for machines in taken.values())


def _keep_warm(shop: Shop, snapshot: Snapshot, recovery: Recovery) -> list[Refusal]:
    refusals = []
    for pool in snapshot.policy.pools.values():
        wanted, why = warm_machines(pool, snapshot.now)
        there = sum(machine.pool == pool.name for machine in recovery.serving)
        there += sum(bought.pool.name == pool.name for bought in shop.bought)
        for missing in range(wanted - there, 0, -1):
            bought = shop.buy(pool, _WHOLE, 1, why)
            if isinstance(bought, Reason):
                refusals.append(Refusal(subject=pool.name, wanted=missing, reason=bought))
                break
    return refusals


def warm_machines(pool: PoolPolicy, now: datetime) -> tuple[int, Reason]:
    """How many machines a pool keeps whatever waits, and why."""
    best, why = pool.machines.low, reasons.minimum(pool)
    for opened in open_windows(pool.warm, now):
        if opened.window.machines > best:
            best, why = opened.window.machines, reasons.warm(pool, opened.window, opened.until)
    return best, why


def _closed_pools(snapshot: Snapshot) -> dict[str, Reason]:
    closed = {}
    for pool in snapshot.policy.pools.values():
        for opened in open_windows(pool.closed, snapshot.now):
            closed[pool.name] = reasons.closed(pool, opened.until)
    return closed


def _price(offer: Offer) -> tuple[object, ...]:
    return (offer.price_usd_hour, offer.key)


def _price_per_job(jobs: int) -> Callable[[tuple[int, Offer]], tuple[object, ...]]:
    """The rank of an offer that holds so many jobs: spot before on-demand (a pool that may buy both
    is spot-first), then the price for each job it would run at once, then the smaller bill."""

    def rank(room: tuple[int, Offer]) -> tuple[object, ...]:
        count, offer = room
        each_usd_hour = offer.price_usd_hour / min(jobs, count)
        return (offer.market is Market.ON_DEMAND, each_usd_hour, *_price(offer))

    return rank
