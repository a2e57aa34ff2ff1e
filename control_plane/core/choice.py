"""Offers ranked for one purpose, asked again and again how many of them the caps still allow."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from control_plane.core.model import Offer

FALLBACKS_MAX = 12
"""Offers tried in one tick for one machine. Every one that is refused costs a cloud call, and what
twelve places refuse the thirteenth seldom has; the next tick starts with fresh cool-downs."""


class Choice:
    """Offers, the best first, and what they come to at worst. Its answers are kept, because most
    machines of a plan are bought from the same choice under the same caps."""

    __slots__ = ("_head", "_within", "gpus", "offers", "usd_hour")

    def __init__(self, offers: Iterable[Offer]) -> None:
        self.offers = tuple(offers)
        self.gpus = max((offer.capacity.gpus for offer in self.offers), default=0)
        self.usd_hour = max((offer.price_usd_hour for offer in self.offers), default=Decimal(0))
        self._within: dict[tuple[int, Decimal], Choice] = {}
        self._head: Choice | None = None

    def within(self, gpus: int, usd_hour: Decimal) -> Choice:
        """Those with so many GPUs and such a price at most."""
        if self.gpus <= gpus and self.usd_hour <= usd_hour:
            return self
        limits = min(gpus, self.gpus), min(usd_hour, self.usd_hour)
        if limits not in self._within:
            self._within[limits] = Choice(
                offer
                for offer in self.offers
                if offer.capacity.gpus <= gpus and offer.price_usd_hour <= usd_hour
            )
        return self._within[limits]

    def head(self) -> Choice:
        """The first ones: as many as are tried for one machine."""
        if len(self.offers) <= FALLBACKS_MAX:
            return self
        if self._head is None:
            self._head = Choice(self.offers[:FALLBACKS_MAX])
        return self._head
