"""The figures that Prometheus scrapes.

Most are read from the store at each scrape: every process of a control plane, and a function that
lives for one request, say the same. Only what the store's calls and the loop come to is counted in
memory, by each process for itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from control_plane.core.model import QueueStats
from control_plane.loop_figures import BOUNDS_S, LoopFigures
from control_plane.ports import OperationFigures, Store
from control_plane.reports.costs import cost_report
from control_plane.reports.quantiles import quantile

_SHORTEST = timedelta(seconds=1)
_SHARES = (0.5, 0.9, 0.99)


def metrics_text(store: Store, now: datetime, loop: LoopFigures | None = None) -> bytes:
    """All figures in the Prometheus text format; `loop` counts for this process's own loop."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(store, now, loop or LoopFigures()))
    return generate_latest(registry)


class _Figures(Collector):
    """One reading of the store."""

    def __init__(self, store: Store, now: datetime, loop: LoopFigures) -> None:
        self._store = store
        self._now = now
        self._loop = loop

    def collect(self) -> Iterator[Metric]:
        """What a registry asks for."""
        stats = self._store.queue_stats()
        yield from self._depths(stats)
        yield self._waits(stats)
        yield self._machines()
        yield from self._money()
        yield from self._operations()
        yield from self._looks()

    def describe(self) -> Iterator[Metric]:
        """Nothing ahead of time: a registry would read the store only to learn names."""
        return iter(())

    def _depths(self, stats: Mapping[str, QueueStats]) -> Iterator[Metric]:
        for name, what, figure in _DEPTHS:
            metric = GaugeMetricFamily(f"orchctl_queue_{name}", what, labels=["queue"])
            for queue, each in sorted(stats.items()):
                metric.add_metric([queue], figure(each))
            yield metric
        wait = GaugeMetricFamily(
            "orchctl_queue_wait_seconds", "Wait of the longest waiter so far.", labels=["queue"]
        )
        for queue, each in sorted(stats.items()):
            waited = self._now - each.oldest_at if each.oldest_at else timedelta(0)
            wait.add_metric([queue], max(0.0, waited.total_seconds()))
        yield wait

    def _waits(self, queues: Iterable[str]) -> Metric:
        metric = GaugeMetricFamily(
            "orchctl_queue_waited_seconds",
            "How long the jobs claimed last had waited.",
            labels=["queue", "quantile"],
        )
        for queue in sorted(queues):
            waits = self._store.queue_waits(queue)
            for share in _SHARES:
                waited_s = quantile(waits, share)
                if waited_s is not None:
                    metric.add_metric([queue, f"{share:g}"], waited_s)
        return metric

    def _machines(self) -> Metric:
        metric = GaugeMetricFamily(
            "orchctl_machines", "Machines that may exist.", labels=["state", "market", "cloud"]
        )
        counts = Counter(
            (each.state.value, each.offer.market.value, each.offer.provider)
            for each in self._store.machine_list()
        )
        for labels, count in sorted(counts.items()):
            metric.add_metric(labels, count)
        return metric

    def _money(self) -> Iterator[Metric]:
        """Since midnight, UTC: a counter may begin anew, and a day is cheap to read."""
        labels = ["cloud", "market"]
        spend = CounterMetricFamily(
            "orchctl_spend_usd", "US dollars spent since midnight UTC.", labels=labels
        )
        idle = CounterMetricFamily(
            "orchctl_idle_usd", "Of these, for machines that had no work.", labels=labels
        )
        midnight = self._now.replace(hour=0, minute=0, second=0, microsecond=0)
        report = cost_report(
            self._store,
            by=("cloud", "market"),
            since=midnight,
            until=max(self._now, midnight + _SHORTEST),
            step="day",
            now=self._now,
        )
        for row in report.rows:
            values = [row.group[name] for name in labels]
            spend.add_metric(values, float(row.cost_usd))
            idle.add_metric(values, float(row.idle_usd))
        yield from (spend, idle)

    def _operations(self) -> Iterator[Metric]:
        figures = sorted(self._store.figures().items())
        for name, what, figure in _OPERATIONS:
            metric = CounterMetricFamily(f"orchctl_store_{name}", what, labels=["operation"])
            for operation, each in figures:
                metric.add_metric([operation], figure(each))
            yield metric

    def _looks(self) -> Iterator[Metric]:
        figures = self._loop.read()
        launches = CounterMetricFamily(
            "orchctl_launches", "What launches have come to.", labels=["result"]
        )
        for result, count in sorted(figures.launches.items()):
            launches.add_metric([result], count)
        yield launches
        yield CounterMetricFamily(
            "orchctl_interruptions",
            "Machines that their cloud took back.",
            value=figures.interruptions,
        )
        bounds = [*(str(bound) for bound in BOUNDS_S), "+Inf"]
        yield HistogramMetricFamily(
            "orchctl_reconcile_duration_seconds",
            "Looks at all autoscalers.",
            buckets=list(zip(bounds, accumulate(figures.looks), strict=True)),
            sum_value=figures.looks_s,
        )


_DEPTHS: Sequence[tuple[str, str, Callable[[QueueStats], float]]] = (
    ("depth", "Waiting jobs.", lambda stats: stats.waiting),
    ("delayed", "Of these, jobs whose time has not come.", lambda stats: stats.delayed),
    ("blocked", "Jobs that wait for other jobs.", lambda stats: stats.blocked),
    ("running", "Leased or running jobs.", lambda stats: stats.running),
)

_OPERATIONS: Sequence[tuple[str, str, Callable[[OperationFigures], float]]] = (
    ("calls", "Calls of the store.", lambda figures: figures.calls),
    ("seconds", "Time they took.", lambda figures: figures.seconds),
    ("conflicts", "Writes that somebody else was faster than.", lambda figures: figures.conflicts),
    ("throttles", "Answers that asked for fewer calls.", lambda figures: figures.throttles),
    ("retries", "Calls made again.", lambda figures: figures.retries),
    ("read_units", "Consumed read capacity.", lambda figures: figures.read_units),
    ("write_units", "Consumed write capacity.", lambda figures: figures.write_units),
)
