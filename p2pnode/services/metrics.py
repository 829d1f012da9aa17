"""What a tracker counts, as Prometheus reads it and as `/stats` shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from p2pnode.services.request_log import RequestLog
from p2pnode.services.tracker import Tracker

__all__ = ["METRICS_CONTENT_TYPE", "Metrics"]

METRICS_CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_GAUGES: Final = frozenset(("torrents", "peers"))  # all else of a tracker only grows


class Metrics(Collector):
    """Reads the counters of a tracker and of a request log whenever it is asked; it keeps none itself."""

    def __init__(self, tracker: Tracker, request_log: RequestLog) -> None:
        self._tracker = tracker
        self._request_log = request_log
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def exposition(self) -> bytes:
        """All of them, and those of the process, in Prometheus's text format."""
        return generate_latest(self._registry)

    def statistics(self) -> dict[str, Any]:
        """The same without those of the process, to be shown as JSON."""
        return {
            "tracker": self._tracker.statistics,
            "requests": [
                {**key._asdict(), "count": tally.count, "seconds": round(tally.seconds, 6)}
                for key, tally in self._request_log.tallies.items()
            ],
        }

    def collect(self) -> Iterator[Metric]:
        """What `CollectorRegistry` asks for."""
        for name, value in self._tracker.statistics.items():
            family = GaugeMetricFamily if name in _GAUGES else CounterMetricFamily
            yield family(f"p2pnode_tracker_{name}", f"tracker: {name}", value=value)
        requests = SummaryMetricFamily(
            "p2pnode_request_seconds",
            "requests answered, and how long that took",
            labels=("language", "kind", "outcome"),
        )
        for key, tally in self._request_log.tallies.items():
            requests.add_metric(key, count_value=tally.count, sum_value=tally.seconds)
        yield requests
