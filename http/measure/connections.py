"""Connections by what they do just now, above all those whose request is parked: they hold no thread while they wait.

Counted when somebody asks, from another thread than the I/O loop's: one that comes or goes meanwhile may be missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..loop.connection import Stage
from ..loop.io_loop import Server


class ConnectionCollector(Collector):
    def __init__(self, server: Server) -> None:
        self._server = server

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        stages = Counter(connection.stage for connection in list(self._server.active_channels.values()))
        family = GaugeMetricFamily("sidecar_http_connections", "Open connections, by what they do.", labels=["state"])
        for stage in Stage:
            family.add_metric([stage.name.lower()], stages[stage])
        yield family
