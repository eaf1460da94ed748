"""What the four actors count, asked of all at once; for /health, /status and /metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ...actors.asking import Later, Recipient
from ...actors.messages import CountAgents, CountContexts, CountEvents, CountResults
from ...actors.replies import AgentNumbers, ContextNumbers, EventNumbers, ResultNumbers
from ...state.durations import SYNCS, Durations
from ...state.errors import SidecarError, Unavailable
from ..routing import Actors, Server

SCRAPE_S = 5.0


@dataclass(frozen=True, slots=True)
class Census:
    """Each actor's numbers, or the error it answered with."""

    agents: AgentNumbers | SidecarError
    events: EventNumbers | SidecarError
    results: ResultNumbers | SidecarError
    contexts: ContextNumbers | SidecarError


class CensusTaking:
    """All four are asked; `done` is answered when all have answered. project_id None: of every project."""

    def __init__(self, actors: Actors, *, project_id: str | None) -> None:
        self.done: Later[None] = Later()
        self._actors = actors
        self._agents = actors.spawner.request(CountAgents(project_id=project_id))
        self._events = actors.bus.request(CountEvents(project_id=project_id))
        self._results = actors.results.request(CountResults(project_id=project_id))
        self._contexts = actors.contexts.request(CountContexts(project_id=project_id))
        everyone: tuple[Later[Any], ...] = (self._agents, self._events, self._results, self._contexts)

        def look(_: Later[Any]) -> None:
            if all(later.done() for later in everyone):
                self.done.answer(None)

        for later in everyone:
            later.add_done_callback(look)

    def census(self) -> Census:
        """As far as it is known now; whoever has not answered is not waited for any more."""
        return Census(
            agents=_counted(self._agents, self._actors.spawner),
            events=_counted(self._events, self._actors.bus),
            results=_counted(self._results, self._actors.results),
            contexts=_counted(self._contexts, self._actors.contexts),
        )


def take_census(actors: Actors, *, project_id: str | None, timeout_s: float) -> Census:
    """Ask all four, then wait once, up to `timeout_s`. project_id None: of every project."""
    taking = CensusTaking(actors, project_id=project_id)
    taking.done.wait(timeout_s)
    return taking.census()


def _counted(later: Later[Any], recipient: Recipient) -> Any:
    if not later.done():
        later.cancel()
        return Unavailable(f"{recipient.name} has not counted in time")
    error = later.exception()
    if error is None:
        return later.result()
    if isinstance(error, SidecarError):
        return error
    raise error


class FleetCollector(Collector):
    """Numbers of the fleet, taken at each scrape. What an actor could not count is left out of that scrape."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def describe(self) -> list[Metric]:
        """Nothing: without this, registering would take a census before the actors run."""
        return []

    def collect(self) -> Iterator[Metric]:
        census = take_census(self._server.actors, project_id=None, timeout_s=SCRAPE_S)
        yield from _agents(census.agents)
        yield from _events(census.events)
        yield from _stores(census.results, census.contexts)
        yield from self._actors()
        yield from self._audit()
        yield _durations(
            "sidecar_journal_sync_duration_seconds",
            "Time to get what was written onto the disk (fdatasync).",
            "journal",
            SYNCS.snapshot(),
        )

    def _actors(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily("sidecar_actor_mailbox_depth", "Messages that wait for an actor.", labels=["actor"])
        handled = CounterMetricFamily("sidecar_actor_messages", "Messages an actor has handled.", labels=["actor"])
        failed = CounterMetricFamily("sidecar_actor_failures", "Messages that failed unexpectedly.", labels=["actor"])
        restarted = CounterMetricFamily("sidecar_actor_restarts", "Times an actor was restarted.", labels=["actor"])
        busy = CounterMetricFamily("sidecar_actor_busy_seconds", "Time an actor spent on messages.", labels=["actor"])
        for status in self._server.actor_statuses():
            depth.add_metric([status.name], status.mailbox_depth)
            handled.add_metric([status.name], status.processed)
            failed.add_metric([status.name], status.failures)
            restarted.add_metric([status.name], status.restarts)
            busy.add_metric([status.name], status.busy_ms / 1000)
        yield from (depth, handled, failed, restarted, busy)
        yield _durations(
            "sidecar_actor_handling_duration_seconds",
            "Time an actor took for a message.",
            "actor",
            self._server.actor_handling(),
        )

    def _audit(self) -> Iterator[Metric]:
        auditor = self._server.auditor
        yield CounterMetricFamily("sidecar_audit_records", "Records of the audit trail.", auditor.head.seq)
        yield CounterMetricFamily("sidecar_audit_lost", "Acts that could not be put on record.", auditor.lost)


def _durations(name: str, text: str, label: str, of: Mapping[str, Durations]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=[label])
    for value, durations in of.items():
        buckets = [("+Inf" if bound == inf else repr(bound), float(count)) for bound, count in durations.cumulative()]
        family.add_metric([value], buckets=buckets, sum_value=durations.total_s)
    return family


def _agents(numbers: AgentNumbers | SidecarError) -> Iterator[Metric]:
    if isinstance(numbers, SidecarError):
        return
    states = GaugeMetricFamily("sidecar_agents", "Agents by state; also those that ended long ago.", labels=["state"])
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
    yield GaugeMetricFamily("sidecar_event_waits", "Requests that wait for events.", numbers.active_subscriptions)
    yield GaugeMetricFamily("sidecar_event_queue_depth", "Events no mailbox has taken yet.", numbers.queue_depth)
    yield GaugeMetricFamily("sidecar_event_dead_letters", "Events that a mailbox gave up on.", numbers.dead_letters)
    yield GaugeMetricFamily("sidecar_mailboxes", "Places in the log that are kept.", numbers.mailboxes)
    yield GaugeMetricFamily(
        "sidecar_mailbox_lag_max_events", "Events not yet taken by the mailbox furthest behind.", numbers.max_lag
    )


def _stores(results: ResultNumbers | SidecarError, contexts: ContextNumbers | SidecarError) -> Iterator[Metric]:
    if not isinstance(results, SidecarError):
        yield GaugeMetricFamily("sidecar_results", "Results kept.", results.results_stored)
        yield GaugeMetricFamily("sidecar_result_bytes", "Size of the results' JSON.", results.total_bytes)
    if not isinstance(contexts, SidecarError):
        yield GaugeMetricFamily("sidecar_context_cache_entries", "Contexts kept ready.", contexts.cache_entries)
        yield GaugeMetricFamily("sidecar_context_cache_bytes", "Size of the contexts kept ready.", contexts.cache_bytes)
