"""What autoscalers have spent, without reading all that was paid for at every look."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from control_plane.core.cost import spend
from control_plane.core.model import PriceInterval
from control_plane.core.snapshot import Spend
from control_plane.ports import LedgerStore, PriceKey

LATE = timedelta(hours=1)
"""So much later than a machine began to cost money that may be written down: its launch was found
out of, or the clocks of two control planes differ. What is later still is counted from the next day
on, when all of the month is read again."""


@dataclass(slots=True)
class _Known:
    """What was paid for since the first of the month, as of one look."""

    day: datetime
    """Midnight UTC before that look."""
    looked_at: datetime
    open: dict[PriceKey, PriceInterval] = field(default_factory=dict)
    """What is not over."""
    over: set[PriceKey] = field(default_factory=set)
    day_usd: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    """By autoscaler: what was paid today for what is over."""
    month_usd: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))

    @property
    def month(self) -> datetime:
        return self.day.replace(day=1)

    def take(self, intervals: Iterable[PriceInterval], now: datetime) -> None:
        """Learn of intervals, of each any number of times."""
        for each in intervals:
            key = each.machine_id, each.started_at
            if key in self.over:
                continue
            if each.ended_at is None or each.ended_at > now:
                self.open[key] = each
                continue
            self.open.pop(key, None)
            self.over.add(key)
            self.day_usd[each.autoscaler] += spend([each], self.day, now)
            self.month_usd[each.autoscaler] += spend([each], self.month, now)


class Spending:
    """What the ledger comes to. All of the month is read once a day; a look reads what is open,
    what began since the last look, and what is over since then."""

    def __init__(self, ledger: LedgerStore) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._known: _Known | None = None

    def of(self, autoscaler: str, now: datetime) -> Spend:
        """What one autoscaler has spent until now."""
        with self._lock:
            known = self._look(now)
            mine = [each for each in known.open.values() if each.autoscaler == autoscaler]
            return Spend(
                day_usd=known.day_usd[autoscaler] + spend(mine, known.day, now),
                month_usd=known.month_usd[autoscaler] + spend(mine, known.month, now),
            )

    def _look(self, now: datetime) -> _Known:
        known = self._known
        day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if known is None or known.day != day or now < known.looked_at:
            known = _Known(day=day, looked_at=now)
            known.take(self._ledger.prices_between(known.month, now), now)
        else:
            self._look_again(known, now)
        self._known = known
        return known

    def _look_again(self, known: _Known, now: datetime) -> None:
        begun = self._ledger.prices_begun(known.looked_at - LATE)
        shown = {(each.machine_id, each.started_at) for each in begun}
        missing = [key for key in known.open if key not in shown]
        for key in missing:
            # It is over, or was corrected and stands no longer there.
            del known.open[key]
        known.take(begun, now)
        if missing:
            known.take(self._ledger.prices_get(missing), now)
        known.looked_at = now
