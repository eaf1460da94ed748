"""Answers `/metrics`: passes every measurement to the Prometheus client.

This is its one door, and only the route of `/metrics` imports it, when it is first asked: agents wait for a start, and
the client brings servers of its own along. Nothing is kept between scrapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ...actors.replies import AgentNumbers, ContextNumbers, EventNumbers, ResultNumbers
from ...state.durations import SYNCS, Durations
from ...state.errors import SidecarError
from ..loop.stages import Stage
from ..observe.connections import Connections
from ..observe.series import Counters, Histograms
from ..routing import Server
from .numbers import ask_numbers

SCRAPE_S = 5.0

_PROCESS = ProcessCollector(registry=None)


def text_of(server: Server) -> bytes:
    """Everything that is measured, as text in Prometheus's format 0.0.4."""
    return generate_latest(_Everything(server))


class _Everything(Collector):
    """One scrape. What an actor could not count is left out of it."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def collect(self) -> Iterator[Metric]:
        server = self._server
        yield from map(family_of, (*server.observers.instruments.measured, *server.observers.meter.measured))
        numbers = ask_numbers(server.actors, project_id=None, timeout_s=SCRAPE_S)
        yield from _agents(numbers.agents)
        yield from _events(numbers.events)
        yield from _stores(numbers.results, numbers.contexts)
        yield from self._actors()
        yield from self._audit()
        yield _durations(
            "sidecar_journal_sync_duration_seconds",
            "Time to sync written data to disk (fdatasync).",
            "journal",
            SYNCS.snapshot(),
        )
        yield from _PROCESS.collect()
        yield _connections(server.connections)

    def _actors(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily("sidecar_actor_mailbox_depth", "Messages waiting for an actor.", labels=["actor"])
        handled = CounterMetricFamily("sidecar_actor_messages", "Messages handled by an actor.", labels=["actor"])
        failed = CounterMetricFamily("sidecar_actor_failures", "Messages that failed unexpectedly.", labels=["actor"])
        restarted = CounterMetricFamily("sidecar_actor_restarts", "Restarts of an actor.", labels=["actor"])
        busy = CounterMetricFamily(
            "sidecar_actor_busy_seconds", "Total time an actor spent on messages.", labels=["actor"]
        )
        for status in self._server.actor_statuses():
            depth.add_metric([status.name], status.mailbox_depth)
            handled.add_metric([status.name], status.processed)
            failed.add_metric([status.name], status.failures)
            restarted.add_metric([status.name], status.restarts)
            busy.add_metric([status.name], status.busy_ms / 1000)
        yield from (depth, handled, failed, restarted, busy)
        yield _durations(
            "sidecar_actor_handling_duration_seconds",
            "Time an actor spent on a message.",
            "actor",
            self._server.actor_handling(),
        )

    def _audit(self) -> Iterator[Metric]:
        auditor = self._server.observers.auditor
        yield CounterMetricFamily("sidecar_audit_records", "Records of the audit trail.", auditor.head.seq)
        yield CounterMetricFamily("sidecar_audit_lost", "Acts that could not be recorded.", auditor.lost)


def family_of(measured: Counters | Histograms) -> Metric:
    """Our own family as the client's."""
    if isinstance(measured, Counters):
        counters = CounterMetricFamily(measured.name, measured.text, labels=measured.labels)
        for values, counter in measured.series().items():
            counters.add_metric(values, counter.total)
        return counters
    histograms = HistogramMetricFamily(measured.name, measured.text, labels=measured.labels)
    for values, histogram in measured.series().items():
        cumulative, total = histogram.cumulative()
        histograms.add_metric(values, buckets=_buckets(cumulative), sum_value=total)
    return histograms


def _durations(name: str, text: str, label: str, of: Mapping[str, Durations]) -> Metric:
    made = HistogramMetricFamily(name, text, labels=[label])
    for value, durations in of.items():
        made.add_metric([value], buckets=_buckets(durations.cumulative()), sum_value=durations.total_s)
    return made


def _buckets(cumulative: Iterable[tuple[float, int]]) -> list[tuple[str, float]]:
    return [(floatToGoString(bound), float(count)) for bound, count in cumulative]  # type: ignore[no-untyped-call]


def _agents(numbers: AgentNumbers | SidecarError) -> Iterator[Metric]:
    if isinstance(numbers, SidecarError):
        return
    states = GaugeMetricFamily(
        "sidecar_agents", "Agents by state, including those that ended long ago.", labels=["state"]
    )
    for state, count in numbers.by_state.items():
        states.add_metric([state], count)
    yield states
    yield CounterMetricFamily("sidecar_agents_spawned", "Agents spawned.", numbers.spawned_total)
    yield CounterMetricFamily("sidecar_agent_restarts", "Restarts of agents.", numbers.restarts_total)


def _events(numbers: EventNumbers | SidecarError) -> Iterator[Metric]:
    if isinstance(numbers, SidecarError):
        return
    yield CounterMetricFamily("sidecar_events_published", "Events published.", numbers.total_published)
    yield CounterMetricFamily("sidecar_events_delivered", "Events handed out.", numbers.total_delivered)
    yield GaugeMetricFamily("sidecar_event_waits", "Parked requests waiting for events.", numbers.active_subscriptions)
    yield GaugeMetricFamily(
        "sidecar_event_queue_depth", "Events not yet taken, over all mailboxes.", numbers.queue_depth
    )
    yield GaugeMetricFamily("sidecar_event_dead_letters", "Events that a mailbox gave up on.", numbers.dead_letters)
    yield GaugeMetricFamily("sidecar_mailboxes", "Mailboxes.", numbers.mailboxes)
    yield GaugeMetricFamily(
        "sidecar_mailbox_lag_max_events",
        "Matching events not yet taken in the mailbox that is furthest behind.",
        numbers.max_lag,
    )


def _stores(results: ResultNumbers | SidecarError, contexts: ContextNumbers | SidecarError) -> Iterator[Metric]:
    if not isinstance(results, SidecarError):
        yield GaugeMetricFamily("sidecar_results", "Results kept.", results.results_stored)
        yield GaugeMetricFamily("sidecar_result_bytes", "Size of the JSON of stored results.", results.total_bytes)
    if not isinstance(contexts, SidecarError):
        yield GaugeMetricFamily("sidecar_context_cache_entries", "Contexts kept ready.", contexts.cache_entries)
        yield GaugeMetricFamily("sidecar_context_cache_bytes", "Size of the cached contexts.", contexts.cache_bytes)


def _connections(connections: Connections) -> Metric:
    by_stage = connections.by_stage()
    family = GaugeMetricFamily("sidecar_http_connections", "Open connections by state.", labels=["state"])
    for stage in Stage:
        family.add_metric([stage.name.lower()], by_stage[stage])
    return family
