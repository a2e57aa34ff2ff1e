"""The figures that Prometheus scrapes, computed from the store at each scrape.

Nothing is counted in memory: every process of a control plane, and a function that lives for one
request, say the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from control_plane.ports import Store
from control_plane.reports.costs import cost_report

_SHORTEST = timedelta(seconds=1)


def metrics_text(store: Store, now: datetime) -> bytes:
    """All figures in the Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(store, now))
    return generate_latest(registry)


class _Figures(Collector):
    """One reading of the store."""

    def __init__(self, store: Store, now: datetime) -> None:
        self._store = store
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """What a registry asks for."""
        yield from self._queues()
        yield self._machines()
        yield from self._money()

    def describe(self) -> Iterator[Metric]:
        """Nothing ahead of time: a registry would read the store only to learn names."""
        return iter(())

    def _queues(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily("orchctl_queue_depth", "Waiting jobs.", labels=["queue"])
        running = GaugeMetricFamily(
            "orchctl_queue_running", "Leased or running jobs.", labels=["queue"]
        )
        wait = GaugeMetricFamily(
            "orchctl_queue_wait_seconds", "Wait of the longest waiter so far.", labels=["queue"]
        )
        for name, stats in sorted(self._store.queue_stats().items()):
            depth.add_metric([name], stats.waiting)
            running.add_metric([name], stats.running)
            waited = self._now - stats.oldest_at if stats.oldest_at else timedelta(0)
            wait.add_metric([name], max(0.0, waited.total_seconds()))
        yield from (depth, running, wait)

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
