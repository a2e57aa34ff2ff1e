"""Supply and price of one instance type in one zone on one market, as they move through time.

Each market draws from a stream of its own, seeded by the cloud's seed and its own name, and is
moved on only when somebody looks. So its path is the same whoever asks, and however often.
"""

from __future__ import annotations

import bisect
import itertools
import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from control_plane.core.model import Market
from providers.simulated.spec import CloudSpec, InstanceType

_CENT_OF_A_CENT = Decimal("0.0001")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What holds from a time on."""

    at: datetime
    capacity: int
    """How many machines the market can hold in all."""
    price_usd_hour: Decimal


class MarketPath:
    """The past and present of one market."""

    def __init__(
        self, seed: str, spec: CloudSpec, kind: InstanceType, market: Market, start: datetime
    ) -> None:
        self._random = random.Random(seed)
        self._spec = spec
        self._kind = kind
        self._market = market
        self._fixed_capacity: int | None = None
        self._fixed_price: Decimal | None = None
        self._own = self._drawn(start)
        self._points = [self._own]

    def at(self, when: datetime) -> Point:
        """What held at a time; times before the cloud began count as its beginning."""
        self._move_to(when)
        index = bisect.bisect_right(self._points, when, key=lambda point: point.at)
        return self._points[max(0, index - 1)]

    def fix_capacity(self, when: datetime, capacity: int | None) -> None:
        """Hold the capacity from `when` on; None gives it back to the market."""
        self._fixed_capacity = capacity
        self._hold(when)

    def fix_price(self, when: datetime, price_usd_hour: Decimal | None) -> None:
        """Hold the price from `when` on; None gives it back to the market."""
        self._fixed_price = price_usd_hour
        self._hold(when)

    def cost(self, start: datetime, end: datetime) -> Decimal:
        """US dollars of one machine from `start` to `end` at the prices of the market."""
        self._move_to(end)
        times = [start, *(point.at for point in self._points if start < point.at < end), end]
        spans = itertools.pairwise(times)
        return sum((self.at(a).price_usd_hour * hours(a, b) for a, b in spans), Decimal(0))

    def _move_to(self, when: datetime) -> None:
        step = timedelta(seconds=self._spec.market_step_s)
        while self._moves and self._own.at + step <= when:
            self._own = self._drawn(self._own.at + step)
            self._points.append(self._held(self._own))

    @property
    def _moves(self) -> bool:
        return self._spec.scarcity > 0 or self._spec.price_swing > 0

    def _hold(self, when: datetime) -> None:
        self._move_to(when)
        self._points.append(self._held(replace(self._own, at=when)))

    def _held(self, own: Point) -> Point:
        """What holds when the market itself would be at `own`."""
        capacity, price = self._fixed_capacity, self._fixed_price
        return Point(
            at=own.at,
            capacity=own.capacity if capacity is None else capacity,
            price_usd_hour=own.price_usd_hour if price is None else price,
        )

    def _drawn(self, when: datetime) -> Point:
        return Point(at=when, capacity=self._draw_capacity(), price_usd_hour=self._draw_price())

    def _draw_capacity(self) -> int:
        spec = self._spec
        scarcity = spec.scarcity if self._market is Market.SPOT else spec.scarcity / 4
        if self._random.random() < scarcity:
            return 0
        # A market that is scarce at times is never deep in between.
        return self._random.randint(1, spec.depth) if spec.scarcity else spec.depth

    def _draw_price(self) -> Decimal:
        listed = self._kind.on_demand_usd_hour
        if self._market is Market.ON_DEMAND or self._kind.spot_share is None:
            return listed
        swing = Decimal(str(1 + self._spec.price_swing * self._random.uniform(-1, 1)))
        price = (listed * self._kind.spot_share * swing).quantize(_CENT_OF_A_CENT)
        return min(max(price, _CENT_OF_A_CENT), listed)


def hours(start: datetime, end: datetime) -> Decimal:
    """A span of time in hours, exact to the microsecond; 0 when it ends before it starts."""
    span = max(end - start, timedelta(0))
    return Decimal(span // timedelta(microseconds=1)) / Decimal(3_600_000_000)
