"""What to buy: offers ranked by price per job, within the caps, around what is refused and resting.

A launch carries its whole ranked choice, so a capacity error moves on to the next type, zone,
region, market or cloud in the same tick, and the caps were checked for every one of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cache, partial
from itertools import islice

from control_plane.core import reasons
from control_plane.core.budget import Caps
from control_plane.core.choice import Choice
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
from control_plane.core.supply import Rank, less, room_of

Why = Callable[[Offer, int], Reason]
"""What is said of a purchase: told the offer chosen and among how many it was."""

_WHOLE = Need(share_ppm=WHOLE_MACHINE_PPM)
"""What a machine is bought for that nothing waits for: any machine will do."""


@dataclass(slots=True)
class Placement:
    """What is bought, and what is not and why."""

    launches: list[Launch] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    """Equal machines that are bought in this plan; the fallbacks are chosen when all machines
    are."""

    machine_ids: Sequence[str]
    pool: PoolPolicy
    ranked: Choice
    """Everything they could be."""
    reason: Reason

    @property
    def offer(self) -> Offer:
        return self.ranked.offers[0]


DEARER = Decimal("1.2")
"""Times a price that the likelihood to be left a spot machine may cost."""


def interchangeable(offer: Offer, other: Offer) -> bool:
    """Whether one call to the cloud may buy either: the same market in one region, and not much
    dearer. The plan has found both good enough for the jobs and within the caps."""
    same = (offer.provider, offer.region, offer.market)
    cheap = other.price_usd_hour <= offer.price_usd_hour * DEARER
    return cheap and same == (other.provider, other.region, other.market)


class Shop:
    """Buys for one plan: knows what is available, what the caps leave, and which ids are unused."""

    def __init__(self, snapshot: Snapshot, recovery: Recovery, caps: Caps) -> None:
        self._snapshot = snapshot
        self._caps = caps
        self._ids: Iterator[str] = iter(snapshot.new_machine_ids)
        self._closed = _closed_pools(snapshot)
        self._books_wrong = recovery.books_wrong
        self._available: dict[str, tuple[list[Offer], Reason | None]] = {}
        self._shelves: dict[tuple[str, Need], _Shelf] = {}
        self.bought: list[Bought] = []

    def buy(self, pool: PoolPolicy, need: Need, jobs: int, why: Why) -> Bought | Reason:
        """Buy a machine of a pool for up to `jobs` jobs of one need, and with it all machines for
        which nothing but the number of jobs would be different; or say why not."""
        refused = self._refuse_pool(pool) or self._caps.refuse_machine(pool)
        if refused:
            return refused
        shelf = self._shelf(pool, need)
        fitting = shelf.ranked(jobs)
        if not fitting.offers:
            return self._offers(pool)[1] or reasons.nothing_fits(pool, need)
        affordable = self._caps.affordable(pool, fitting)
        if not affordable.offers:
            return self._too_much(pool, fitting)
        best = affordable.offers[0]
        machines = min(shelf.alike(jobs, best), self._caps.alike(pool, affordable))
        machine_ids = tuple(islice(self._ids, machines))
        if not machine_ids:
            return reasons.no_ids(pool)
        self._caps.take(pool, best, len(machine_ids))
        reason = why(best, len(affordable.offers))
        bought = Bought(machine_ids=machine_ids, pool=pool, ranked=affordable, reason=reason)
        self.bought.append(bought)
        return bought

    def _too_much(self, pool: PoolPolicy, fitting: Choice) -> Reason:
        """The cheapest offer came nearest to being bought; its refusal is the one to read."""
        cheapest_first = sorted(fitting.offers, key=_price)
        refusals = (self._caps.refuse_offer(pool, offer) for offer in cheapest_first)
        return next(filter(None, refusals))

    def launches(self) -> list[Launch]:
        """What was bought, each machine with the fallbacks that the caps leave room for. They are
        chosen last: a dear fallback must not take the money of a machine that is surely wanted."""
        return [
            Launch(
                machine_id=machine_id,
                pool=bought.pool.name,
                offers=self._caps.widen(bought.pool, bought.ranked),
                reason=bought.reason,
            )
            for bought in self.bought
            for machine_id in bought.machine_ids
        ]

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

    def _shelf(self, pool: PoolPolicy, need: Need) -> _Shelf:
        if (pool.name, need) not in self._shelves:
            self._shelves[pool.name, need] = _Shelf(self._offers(pool)[0], need)
        return self._shelves[pool.name, need]

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


class _Shelf:
    """The offers of one pool that hold at least one job of one need."""

    def __init__(self, offers: Sequence[Offer], need: Need) -> None:
        counted = ((offer.capacity.count(need), offer) for offer in offers)
        self._rooms = [(count, offer) for count, offer in counted if count > 0]
        self._most = max((count for count, _ in self._rooms), default=0)
        self._need = need
        self._ranks: dict[int, Choice] = {}

    def ranked(self, jobs: int) -> Choice:
        """The best first for a machine that gets up to so many jobs. Kept, because most machines of
        a plan are bought for many equal jobs."""
        at_once = min(jobs, self._most)
        if at_once not in self._ranks:
            best_first = sorted(self._rooms, key=_price_per_job(at_once))
            self._ranks[at_once] = Choice(offer for _, offer in best_first)
        return self._ranks[at_once]

    def alike(self, jobs: int, best: Offer) -> int:
        """How many machines in a row would be ranked alike if each took what the best holds."""
        return max(0, jobs - self._most) // best.capacity.count(self._need) + 1


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
    why = cache(partial(reasons.chosen, reasons.jobs_wait(group, snapshot.now)))
    refused: list[Reason] = []
    pools = snapshot.policy.queues[group.queue].pools
    # Into the room that machines bought for others have left.
    left -= sum(demand.supply.take_coming(pools, group.need, left).values())
    for pool in (snapshot.policy.pools[name] for name in pools):
        while left > 0:
            bought = shop.buy(pool, group.need, left, why)
            if isinstance(bought, Reason):
                refused.append(bought)
                break
            capacity, machine_ids = bought.offer.capacity, bought.machine_ids
            jobs = min(left, capacity.count(group.need))
            rest = less(room_of(capacity), group.need, jobs)
            demand.supply.add(pool.name, Rank.BOOTING, rest, machine_ids)
            left -= jobs * len(machine_ids)
    tally.bought_for += unmet.count - left
    tally.left += left
    if left == 0:
        return []
    return [Refusal(subject=group.queue, wanted=left, reason=no) for no in refused]


def _keep_warm(shop: Shop, snapshot: Snapshot, recovery: Recovery) -> list[Refusal]:
    refusals = []
    there = Counter(machine.pool for machine in recovery.serving)
    for bought in shop.bought:
        there[bought.pool.name] += len(bought.machine_ids)
    for pool in snapshot.policy.pools.values():
        wanted, why = warm_machines(pool, snapshot.now)
        chosen = cache(partial(reasons.chosen, why))
        missing = wanted - there[pool.name]
        while missing > 0:
            more = shop.buy(pool, _WHOLE, missing, chosen)
            if isinstance(more, Reason):
                refusals.append(Refusal(subject=pool.name, wanted=missing, reason=more))
                break
            missing -= len(more.machine_ids)
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
