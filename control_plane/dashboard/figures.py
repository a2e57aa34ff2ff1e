"""The figures that pages share: money of the month, waits of the queues. Pure sums over what was
read before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from control_plane.core.cost import spend
from control_plane.core.model import Attempt, Job
from control_plane.core.policy import AutoscalerRecord
from control_plane.reports.costs import CostReport, Ledger, summarise

WAIT_WINDOW = timedelta(hours=48)
"""Waits older than this say nothing about today."""

TREND_WINDOW = timedelta(days=7)
"""A projection continues the mean of this time: a whole week holds its quiet weekend too."""

_SPARK_BUCKETS = 24
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """Money of the month so far, in US dollars."""

    today_usd: Decimal
    yesterday_usd: Decimal
    projected_usd: Decimal
    """At the month's end, if the rest goes like the last week."""
    budget_usd: Decimal
    """Sum of the autoscalers' budgets; 0 = none is declared."""
    report: CostReport
    """By queue and day."""

    @property
    def spent_usd(self) -> Decimal:
        return self.report.totals.cost_usd

    @property
    def within_budget(self) -> bool:
        return not self.budget_usd or self.projected_usd <= self.budget_usd


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long a queue's jobs waited for their first machine, in seconds."""

    p50_s: float | None = None
    p95_s: float | None = None
    trend: Sequence[float | None] = ()
    """Means over time, oldest first; None where no job got a machine."""


def day_start(now: datetime) -> datetime:
    """Midnight UTC: where a day of a budget begins."""
    return now.replace(hour=0, minute=0, second=0, microsecond=0)


def month_start(now: datetime) -> datetime:
    """The first of the month, midnight UTC."""
    return day_start(now).replace(day=1)


def month_end(now: datetime) -> datetime:
    """The first of the next month."""
    return (month_start(now) + timedelta(days=32)).replace(day=1)


def month_of(ledger: Ledger, autoscalers: Iterable[AutoscalerRecord]) -> Month:
    """The month's figures; the ledger must reach back to its start, and a week."""
    now, today = ledger.now, day_start(ledger.now)
    report = summarise(ledger, by=("queue",), since=month_start(now), until=now, step="day")
    left_h = Decimal((month_end(now) - now).total_seconds()) / 3600
    return Month(
        today_usd=spend(ledger.intervals, today, now),
        yesterday_usd=spend(ledger.intervals, today - _DAY, today),
        projected_usd=report.totals.cost_usd + hourly_trend(ledger) * left_h,
        budget_usd=sum((each.policy.budget.month_usd for each in autoscalers), Decimal(0)),
        report=report,
    )


def hourly_trend(ledger: Ledger) -> Decimal:
    """US dollars per hour in the last week, or since the first machine when that is later."""
    now = ledger.now
    first = min((each.started_at for each in ledger.intervals), default=now)
    start = max(first, now - TREND_WINDOW)
    # Under an hour of history the price of one boot would be taken for a habit.
    hours = max(Decimal(1), Decimal((now - start).total_seconds()) / 3600)
    return spend(ledger.intervals, start, now) / hours


def running_total(report: CostReport) -> Sequence[tuple[float, float]]:
    """Days since the report's start and what was spent until then, at the end of each day."""
    by_day: dict[datetime, Decimal] = {}
    for point in report.series:
        by_day[point.at] = by_day.get(point.at, Decimal(0)) + point.cost_usd
    walk, total = [], Decimal(0)
    day = report.since
    while day < report.until:
        total += by_day.get(day, Decimal(0))
        end = min(day + _DAY, report.until)
        walk.append(((end - report.since) / _DAY, float(total)))
        day += _DAY
    return walk


def waits_by_queue(jobs: Iterable[Job], now: datetime) -> Mapping[str, Waits]:
    """Waits of jobs that got their first machine within the last two days. A job on a later attempt
    does not count: its store row no longer knows when the first one began."""
    found: dict[str, list[tuple[datetime, float]]] = {}
    for job in jobs:
        if job.attempt == 1 and job.leased_at and job.leased_at > now - WAIT_WINDOW:
            waited = (job.leased_at - job.queued_at).total_seconds()
            found.setdefault(job.queue, []).append((job.leased_at, waited))
    return {queue: _waits(rows, now) for queue, rows in found.items()}


def interruptions(attempts: Iterable[Attempt], since: datetime) -> Sequence[Attempt]:
    """Attempts that ended since then because their machine went away."""
    return [
        each
        for each in attempts
        if each.outcome in ("interrupted", "lost") and each.ended_at and each.ended_at >= since
    ]


def _waits(rows: Sequence[tuple[datetime, float]], now: datetime) -> Waits:
    waited = sorted(seconds for _, seconds in rows)
    buckets: list[list[float]] = [[] for _ in range(_SPARK_BUCKETS)]
    for at, seconds in rows:
        age = (now - at) / WAIT_WINDOW
        buckets[min(_SPARK_BUCKETS - 1, int((1 - age) * _SPARK_BUCKETS))].append(seconds)
    return Waits(
        p50_s=_rank(waited, 50),
        p95_s=_rank(waited, 95),
        trend=[sum(each) / len(each) if each else None for each in buckets],
    )


def _rank(ordered: Sequence[float], percent: int) -> float:
    """The nearest-rank percentile."""
    return ordered[-(-len(ordered) * percent // 100) - 1]
