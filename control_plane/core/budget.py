"""Caps on machines, GPUs and money, counting everything that exists or may exist.

A machine counts from its durable intent to the proof that it is gone, at the dearest price its
launch may still fall back to. So the caps hold at every moment, not only when all answers are in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from control_plane.core import reasons
from control_plane.core.lifecycle import COUNTED, IN_FLIGHT
from control_plane.core.model import Machine, MachineState, Offer, Reason
from control_plane.core.policy import PoolPolicy
from control_plane.core.snapshot import Snapshot

LOOKAHEAD_HOURS = Decimal(1)
"""A machine is bought only if all machines together could run on for this long within the day's
and the month's budget. Shorter would buy machines that must be ended before they have booted;
longer would leave money unspent that jobs of minutes could have used."""


class Caps:
    """What may still be bought; `take` counts a purchase."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._budget = snapshot.policy.budget
        self._spend = snapshot.spend
        counted = [machine for machine in snapshot.machines if machine.state in COUNTED]
        self._machines = Counter(machine.pool for machine in counted)
        self._gpus: Counter[str] = Counter()
        self._rate = Decimal(0)
        for machine in counted:
            offers = possible_offers(machine)
            self._gpus[machine.pool] += max(offer.capacity.gpus for offer in offers)
            self._rate += max(offer.price_usd_hour for offer in offers)

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

    def refuse_offer(self, pool: PoolPolicy, offer: Offer) -> Reason | None:
        """Why this offer may not be bought for this pool now."""
        gpus = self._gpus[pool.name] + offer.capacity.gpus
        if gpus > pool.gpus_max:
            return reasons.cap_gpus(pool, self._gpus[pool.name], offer)
        rate = self._rate + offer.price_usd_hour
        if rate > self._budget.hour_usd:
            return reasons.cap_hour(self._rate, offer, self._budget.hour_usd)
        ahead = rate * LOOKAHEAD_HOURS
        if self._spend.day_usd + ahead > self._budget.day_usd:
            return reasons.cap_period("day", self._spend.day_usd, rate, self._budget.day_usd)
        if self._spend.month_usd + ahead > self._budget.month_usd:
            return reasons.cap_period("month", self._spend.month_usd, rate, self._budget.month_usd)
        return None

    def take(self, pool: PoolPolicy, offer: Offer) -> None:
        """Count a machine that is bought as this offer."""
        self._machines[pool.name] += 1
        self._gpus[pool.name] += offer.capacity.gpus
        self._rate += offer.price_usd_hour

    def widen(self, pool: PoolPolicy, offers: Sequence[Offer], more: Offer) -> bool:
        """Let a machine that may become any of `offers` become `more` as well, and count what that
        adds at worst; False = the caps leave no room for it."""
        gpus = max(0, more.capacity.gpus - max(offer.capacity.gpus for offer in offers))
        usd_hour = max(
            Decimal(0), more.price_usd_hour - max(offer.price_usd_hour for offer in offers)
        )
        if self._gpus[pool.name] + gpus > pool.gpus_max or self._rate + usd_hour > self._most():
            return False
        self._gpus[pool.name] += gpus
        self._rate += usd_hour
        return True

    def _most(self) -> Decimal:
        """The highest hourly rate that all money caps allow."""
        budget, spend = self._budget, self._spend
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
