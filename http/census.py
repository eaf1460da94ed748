"""What the four actors count, asked of all at once; for /health, /status and /metrics."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..actors.asking import Later, Recipient
from ..actors.messages import (
    AgentNumbers,
    ContextNumbers,
    CountAgents,
    CountContexts,
    CountEvents,
    CountResults,
    EventNumbers,
    ResultNumbers,
)
from ..state.errors import SidecarError, Unavailable
from .routing import Actors, Server

SCRAPE_S = 5.0


@dataclass(frozen=True, slots=True)
class Census:
    """Each actor's numbers, or the error it answered with."""

    agents: AgentNumbers | SidecarError
    events: EventNumbers | SidecarError
    results: ResultNumbers | SidecarError
    contexts: ContextNumbers | SidecarError


def take_census(actors: Actors, *, project_id: str | None, timeout_s: float) -> Census:
    """Ask all four, then wait once, up to `timeout_s`. project_id None: of every project."""
    agents = actors.spawner.request(CountAgents(project_id=project_id))
    events = actors.bus.request(CountEvents(project_id=project_id))
    results = actors.results.request(CountResults(project_id=project_id))
    contexts = actors.contexts.request(CountContexts(project_id=project_id))
    everyone: tuple[Later[Any], ...] = (agents, events, results, contexts)
    wait(everyone, timeout=timeout_s)
    return Census(
        agents=_counted(agents, actors.spawner),
        events=_counted(events, actors.bus),
        results=_counted(results, actors.results),
        contexts=_counted(contexts, actors.contexts),
    )


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


def _agents(numbers: AgentNumbers | SidecarError) -> Iterator[Metric]:
    if isinstance(numbers, SidecarError):
        return
    states = GaugeMetricFamily("sidecar_agents", "Agents by what has become of them.", labels=["state"])
    for state in ("active", "queued", "completed", "failed"):
        states.add_metric([state], getattr(numbers, state))
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


def _stores(results: ResultNumbers | SidecarError, contexts: ContextNumbers | SidecarError) -> Iterator[Metric]:
    if not isinstance(results, SidecarError):
        yield GaugeMetricFamily("sidecar_results", "Results kept.", results.results_stored)
        yield GaugeMetricFamily("sidecar_result_bytes", "Size of the results' JSON.", results.total_bytes)
    if not isinstance(contexts, SidecarError):
        yield GaugeMetricFamily("sidecar_context_cache_entries", "Contexts kept ready.", contexts.cache_entries)
        yield GaugeMetricFamily("sidecar_context_cache_bytes", "Size of the contexts kept ready.", contexts.cache_bytes)
