"""What was paid for, and when, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from control_plane.core.model import PriceInterval
from control_plane.ports import PriceKey
from control_plane.stores import transitions
from control_plane.stores.memory.tables import Tables, atomic


class Ledger(Tables):
    """`ports.LedgerStore`."""

    @atomic
    def price_open(self, interval: PriceInterval) -> None:
        prices = self._prices.setdefault(interval.machine_id, {})
        stored = prices.get(interval.started_at)
        if stored is not None and transitions.same_interval(stored, interval):
            return
        self._close(interval.machine_id, interval.started_at)
        prices[interval.started_at] = interval

    @atomic
    def price_close(self, machine_id: str, *, at: datetime) -> None:
        self._close(machine_id, at)

    @atomic
    def prices_between(self, start: datetime, end: datetime) -> Sequence[PriceInterval]:
        found = [
            interval
            for prices in self._prices.values()
            for interval in prices.values()
            if interval.started_at < end
            and (interval.ended_at is None or interval.ended_at > start)
        ]
        return tuple(sorted(found, key=lambda each: (each.started_at, each.machine_id)))

    @atomic
    def prices_begun(self, since: datetime) -> Sequence[PriceInterval]:
        return tuple(
            interval
            for prices in self._prices.values()
            for interval in prices.values()
            if interval.ended_at is None or interval.started_at >= since
        )

    @atomic
    def prices_get(self, keys: Sequence[PriceKey]) -> Sequence[PriceInterval]:
        found = (self._prices.get(machine_id, {}).get(began) for machine_id, began in keys)
        return tuple(interval for interval in found if interval is not None)

    def _close(self, machine_id: str, at: datetime) -> None:
        prices = self._prices.get(machine_id, {})
        for start, interval in prices.items():
            if interval.ended_at is None:
                prices[start] = replace(interval, ended_at=max(at, start))
