"""Caps on machines, GPUs and money, counting everything that exists or may exist.

A machine counts from its durable intent to the proof that it is gone, at the dearest price its
launch may still fall back to. So the caps hold at every moment, not only when all answers are in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal

from control_plane.core import reasons
from control_plane.core.choice import Choice
from control_plane.core.lifecycle import COUNTED, IN_FLIGHT
from control_plane.core.model import Machine, MachineState, Offer, Reason
from control_plane.core.policy import Budget, PoolPolicy
from control_plane.core.snapshot import Snapshot, Spend

LOOKAHEAD_HOURS = Decimal(1)
"""A machine is bought only if all machines together could run on for this long within the day's
and the month's budget. Shorter would buy machines that must be ended before they have booted;
longer would leave money unspent that jobs of minutes could have used."""


class Caps:
    """What may still be bought; `take` counts a purchase."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._budget = snapshot.policy.budget
        self._spend = snapshot.spend
        self._most_usd_hour = _most_usd_hour(self._budget, self._spend)
        self._machines: dict[str, int] = defaultdict(int)
        self._gpus: dict[str, int] = defaultdict(int)
        self._rate = Decimal(0)
        self._count(snapshot.machines)

    @property
    def rate_usd_hour(self) -> Decimal:
        """What everything that exists costs per hour at worst."""
        return self._rate

    def used_up(self) -> Reason | None:
        """The money cap that is reached already, if any: `at_limit` acts on it."""
        budget, spend = self._budget, self._spend
        if spend.day_usd >= budget.day_usd:
            return reasons.budget_used_up("day", spend.day_usd, budget.day_usd)
        if spend.month_usd >= budget.month_usd:
            return reasons.budget_used_up("month", spend.month_usd, budget.month_usd)
        return None

    def refuse_machine(self, pool: PoolPolicy) -> Reason | None:
        """Why no further machine of this pool may be bought, whatever it is."""
        if self._machines[pool.name] >= pool.machines_max:
            return reasons.cap_machines(pool, self._machines[pool.name])
        return None

    def affordable(self, pool: PoolPolicy, choice: Choice) -> Choice:
        """The offers that may be bought for this pool now."""
        return choice.within(*self._left(pool))

    def refuse_offer(self, pool: PoolPolicy, offer: Offer) -> Reason | None:
        """Why this offer may not be bought for this pool now."""
        gpus, usd_hour = self._left(pool)
        if offer.capacity.gpus > gpus:
            return reasons.cap_gpus(pool, self._gpus[pool.name], offer)
        if offer.price_usd_hour <= usd_hour:
            return None
        rate = self._rate + offer.price_usd_hour
        if rate > self._budget.hour_usd:
            return reasons.cap_hour(self._rate, offer, self._budget.hour_usd)
        if self._spend.day_usd + rate * LOOKAHEAD_HOURS > self._budget.day_usd:
            return reasons.cap_period("day", self._spend.day_usd, rate, self._budget.day_usd)
        return reasons.cap_period("month", self._spend.month_usd, rate, self._budget.month_usd)

    def alike(self, pool: PoolPolicy, choice: Choice) -> int:
        """How many machines in a row may be bought as the first of these offers, all affordable
        now, before a cap takes one of them away."""
        first, (gpus, usd_hour) = choice.offers[0], self._left(pool)
        limits = [pool.machines_max - self._machines[pool.name]]
        if first.capacity.gpus > 0:
            limits.append((gpus - choice.gpus) // first.capacity.gpus + 1)
        if first.price_usd_hour > 0:
            limits.append(int((usd_hour - choice.usd_hour) // first.price_usd_hour) + 1)
        return min(limits)

    def take(self, pool: PoolPolicy, offer: Offer, machines: int = 1) -> None:
        """Count machines that are bought as this offer."""
        self._machines[pool.name] += machines
        self._gpus[pool.name] += offer.capacity.gpus * machines
        self._rate += offer.price_usd_hour * machines

    def widen(self, pool: PoolPolicy, choice: Choice) -> tuple[Offer, ...]:
        """The offers that a machine bought as the first one of a choice may become within the caps,
        the first one among them; what they add at worst is counted."""
        first = choice.offers[0]
        gpus, usd_hour = self._left(pool)
        worst = choice.within(gpus + first.capacity.gpus, usd_hour + first.price_usd_hour).head()
        self._gpus[pool.name] += worst.gpus - first.capacity.gpus
        self._rate += worst.usd_hour - first.price_usd_hour
        return worst.offers

    def _count(self, machines: Iterable[Machine]) -> None:
        """Those whose launch is over by their offers, since many share one."""
        settled: dict[tuple[str, int], list[Machine]] = defaultdict(list)
        for machine in machines:
            if machine.state in IN_FLIGHT:
                self._add(machine.pool, possible_offers(machine), 1)
            elif machine.state in COUNTED:
                settled[machine.pool, id(machine.offer)].append(machine)
        for (pool, _), alike in settled.items():
            self._add(pool, (alike[0].offer,), len(alike))

    def _add(self, pool: str, offers: Sequence[Offer], machines: int) -> None:
        """Count machines by the worst that each may still become."""
        self._machines[pool] += machines
        self._gpus[pool] += max(offer.capacity.gpus for offer in offers) * machines
        self._rate += max(offer.price_usd_hour for offer in offers) * machines

    def _left(self, pool: PoolPolicy) -> tuple[int, Decimal]:
        """The GPUs and the hourly price that one more machine of a pool may have."""
        return pool.gpus_max - self._gpus[pool.name], self._most_usd_hour - self._rate


def _most_usd_hour(budget: Budget, spend: Spend) -> Decimal:
    """The highest hourly rate that all money caps allow."""
    return min(
        budget.hour_usd,
        (budget.day_usd - spend.day_usd) / LOOKAHEAD_HOURS,
        (budget.month_usd - spend.month_usd) / LOOKAHEAD_HOURS,
    )


def possible_offers(machine: Machine) -> tuple[Offer, ...]:
    """What a machine is, or while its launch is open may still become."""
    if machine.state in IN_FLIGHT and machine.state is not MachineState.BOOTING:
        return (machine.offer, *machine.offers[machine.attempt :])
    return (machine.offer,)
