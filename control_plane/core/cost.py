"""What machines cost, and whose cost it is: price intervals and attempts in, charges out.

Amounts are counted in billionths of a US dollar as a running total from the start of each price
interval, and a piece costs the difference of two totals. So pieces always add up to the whole, no
piece is negative, and cutting a span anywhere changes no sum.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise

from control_plane.core.lifecycle import COUNTED
from control_plane.core.model import Attempt, Capacity, Machine, Market, Need, PriceInterval

_NANO = 10**9
_MICROSECOND = timedelta(microseconds=1)
_HOUR_US = 3_600_000_000


class ChargeKind(StrEnum):
    """What a machine's time went into."""

    BOOT = "boot"
    """Paid for, but its agent could not work yet."""
    WORK = "work"
    """Taken by a job."""
    IDLE = "idle"
    """Free while it could have worked, wholly or in part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A piece of one machine's cost: one use, one span of time, one price."""

    machine_id: str
    kind: ChargeKind
    job_id: str = ""
    """Empty for boot and idle, as are `queue` and `owner`."""
    queue: str = ""
    owner: str = ""
    provider: str
    region: str
    market: Market
    pool: str
    instance_type: str
    started_at: datetime
    ended_at: datetime
    machine_hours: Decimal
    """Hours of a whole machine: half a machine for two hours is 1."""
    cost_usd: Decimal
    on_demand_usd: Decimal
    """The same at the on-demand price; equal to `cost_usd` where that price is unknown."""

    @property
    def saved_usd(self) -> Decimal:
        """What not buying on demand saved; negative where spot was dearer."""
        return self.on_demand_usd - self.cost_usd


def interval_cost(interval: PriceInterval, start: datetime, end: datetime) -> Decimal:
    """US dollars that one interval costs within [start, end]; an open interval lasts until `end`.

    Exact to a billionth of a dollar, and additive: the costs of adjoining spans sum to the cost of
    the whole."""
    begin, stop = _clip(interval, start, end)
    return _decimal(_Meter.of(interval.price_usd_hour, interval.started_at).between(begin, stop))


def spend(intervals: Iterable[PriceInterval], start: datetime, now: datetime) -> Decimal:
    """US dollars spent from `start` until `now`."""
    return sum((interval_cost(each, start, now) for each in intervals), Decimal(0))


def hour_rate(machines: Iterable[Machine]) -> Decimal:
    """US dollars per hour of all machines that may exist, what is still being launched included."""
    return sum(
        (each.offer.price_usd_hour for each in machines if each.state in COUNTED), Decimal(0)
    )


def charges(
    intervals: Iterable[PriceInterval],
    attempts: Iterable[Attempt],
    *,
    start: datetime,
    end: datetime,
    now: datetime,
    ready_at: Mapping[str, datetime],
    cuts: Sequence[datetime] = (),
) -> tuple[Charge, ...]:
    """Everything the intervals cost within [start, end], split by use.

    Work is shared by each job's part of the machine; what running jobs leave free is idle, and so
    is time without a job after `ready_at` (when a machine's agent first could work; a machine not
    in it never could). Open intervals and attempts last until `now`. No charge spans one of the
    `cuts`, which come in order. The charges of an interval sum exactly to its `interval_cost`."""
    by_machine: dict[str, list[Attempt]] = {}
    for attempt in sorted(attempts, key=lambda a: (a.leased_at, a.job_id, a.epoch)):
        by_machine.setdefault(attempt.machine_id, []).append(attempt)
    ordered = sorted(intervals, key=lambda i: (i.started_at, i.machine_id))
    return tuple(
        charge
        for interval in ordered
        for charge in _interval_charges(
            interval,
            by_machine.get(interval.machine_id, []),
            _clip(interval, start, min(end, now)),
            now,
            ready_at.get(interval.machine_id),
            cuts,
        )
    )


def part_of(need: Need, total: Capacity) -> Fraction:
    """How much of a machine a job takes, from 0 to 1: the largest of its fractions, because the
    scarcest resource is what keeps others out."""
    pairs = (
        (need.gpus, total.gpus),
        (need.cpus, total.cpus),
        (need.memory_mib, total.memory_mib),
        (need.share_ppm, total.share_ppm),
    )
    fractions = (Fraction(want, have) if have else Fraction(1) for want, have in pairs if want)
    return min(max(fractions, default=Fraction(0)), Fraction(1))


# ------------------------------------------------------------------------------------ pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meter:
    """A running total in billionths, from `zero` on."""

    rate: Fraction
    zero: datetime

    @staticmethod
    def of(per_hour: Decimal, zero: datetime) -> _Meter:
        return _Meter(rate=Fraction(per_hour) * _NANO / _HOUR_US, zero=zero)

    def at(self, moment: datetime) -> int:
        elapsed = (moment - self.zero) // _MICROSECOND
        return self.rate.numerator * elapsed // self.rate.denominator

    def between(self, start: datetime, end: datetime) -> int:
        return self.at(end) - self.at(start)


def _interval_charges(
    interval: PriceInterval,
    attempts: Sequence[Attempt],
    span: tuple[datetime, datetime],
    now: datetime,
    ready: datetime | None,
    cuts: Sequence[datetime],
) -> Iterator[Charge]:
    cost, on_demand, hours = _meters(interval)
    cut = cuts[bisect_right(cuts, span[0]) : bisect_left(cuts, span[1])]
    edges = [*cut, ready] if ready else cut
    for begin, stop, running in _segments(attempts, span, now, edges):
        amounts = [meter.between(begin, stop) for meter in (cost, on_demand, hours)]
        parts = _parts(running, interval.total, booting=ready is None or begin < ready)
        pieces = zip(parts, *(_deal(amount, parts) for amount in amounts), strict=True)
        for (kind, attempt, _), usd, list_usd, machine_hours in pieces:
            yield _charge(
                interval, kind, attempt, (begin, stop), _Amounts(usd, list_usd, machine_hours)
            )


@dataclass(frozen=True, slots=True)
class _Amounts:
    cost: int
    on_demand: int
    hours: int


_Part = tuple[ChargeKind, Attempt | None, Fraction]


def _meters(interval: PriceInterval) -> tuple[_Meter, _Meter, _Meter]:
    zero = interval.started_at
    list_price = interval.on_demand_usd_hour
    return (
        _Meter.of(interval.price_usd_hour, zero),
        _Meter.of(interval.price_usd_hour if list_price is None else list_price, zero),
        _Meter.of(Decimal(1), zero),
    )


def _segments(
    attempts: Sequence[Attempt],
    span: tuple[datetime, datetime],
    now: datetime,
    edges: Iterable[datetime],
) -> Iterator[tuple[datetime, datetime, tuple[Attempt, ...]]]:
    """The span in pieces within which nothing changes, each with the attempts that run in it."""
    start, end = span
    spans = [(max(a.leased_at, start), min(a.ended_at or now, end), a) for a in attempts]
    spans = [each for each in spans if each[0] < each[1]]
    inner = {moment for each in spans for moment in each[:2]} | set(edges)
    points = sorted({start, end} | {moment for moment in inner if start < moment < end})
    running: list[tuple[datetime, Attempt]] = []
    coming = iter([*spans, None])
    upcoming = next(coming)
    for begin, stop in pairwise(points):
        running = [(until, attempt) for until, attempt in running if until > begin]
        while upcoming is not None and upcoming[0] <= begin:
            running.append((upcoming[1], upcoming[2]))
            upcoming = next(coming)
        yield begin, stop, tuple(attempt for _, attempt in running)


def _parts(running: Sequence[Attempt], total: Capacity, *, booting: bool) -> Sequence[_Part]:
    """Who takes how much, summing to 1. What stands last gets the remainder of the division."""
    if not running:
        return [(ChargeKind.BOOT if booting else ChargeKind.IDLE, None, Fraction(1))]
    taken = [part_of(attempt.need, total) for attempt in running]
    whole = max(sum(taken, Fraction(0)), Fraction(1))
    parts: list[_Part] = [
        (ChargeKind.WORK, attempt, part / whole)
        for attempt, part in zip(running, taken, strict=True)
    ]
    free = 1 - sum((part for _, _, part in parts), Fraction(0))
    return [*parts, (ChargeKind.IDLE, None, free)] if free else parts


def _deal(amount: int, parts: Sequence[_Part]) -> Iterator[int]:
    """An amount cut by the parts, without loss: differences of what is dealt so far."""
    if len(parts) == 1:
        yield amount
        return
    share, dealt = Fraction(0), 0
    for _, _, part in parts:
        share += part
        until = amount * share.numerator // share.denominator
        yield until - dealt
        dealt = until


def _charge(
    interval: PriceInterval,
    kind: ChargeKind,
    attempt: Attempt | None,
    span: tuple[datetime, datetime],
    amounts: _Amounts,
) -> Charge:
    return Charge(
        machine_id=interval.machine_id,
        kind=kind,
        job_id=attempt.job_id if attempt else "",
        queue=attempt.queue if attempt else "",
        owner=attempt.owner if attempt else "",
        provider=interval.provider,
        region=interval.region,
        market=interval.market,
        pool=interval.pool,
        instance_type=interval.instance_type,
        started_at=span[0],
        ended_at=span[1],
        machine_hours=_decimal(amounts.hours),
        cost_usd=_decimal(amounts.cost),
        on_demand_usd=_decimal(amounts.on_demand),
    )


def _clip(interval: PriceInterval, start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """The part of a span that an interval covers; both ends equal when there is none."""
    begin = max(start, interval.started_at)
    stop = min(end, interval.ended_at) if interval.ended_at else end
    return begin, max(begin, stop)


def _decimal(nano: int) -> Decimal:
    return Decimal(nano).scaleb(-9)
