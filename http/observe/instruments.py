"""Instruments: numbers counted as things happen, for /metrics. Numbers that actors count are in routes/numbers.py.

Labels have a fixed set of values: routes, codes, causes and tools, never an id, a path or a text from a client.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ...actors.agents.announcer import LifecycleEvent
from ...actors.replies import ContextBundle, EventBatch, SpawnedAgent
from .observer import ObservedRequest, Observer
from .series import Counters, Histograms, Measured

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BYTES = tuple(float(4**power) for power in range(5, 13))  # 1 KiB to 16 MiB


class Instruments(Observer):
    """Counts and times events in the sidecar, for /metrics. Used by every thread. measured: all counters and
    histograms.
    """

    def __init__(self) -> None:
        self._spawn_s = Histograms(
            "sidecar_agent_spawn_duration_seconds",
            "Time from a spawn request to the agent's process, including its context, without time in the queue.",
            _SECONDS,
        )
        self._exits = Counters("sidecar_agent_exits", "Exits of agents' processes, by cause.", "cause")
        self._context_s = Histograms(
            "sidecar_context_duration_seconds", "Time from a request for a context to its answer.", _SECONDS, "cache"
        )
        self._context_bytes = Histograms("sidecar_context_size_bytes", "Sizes of the contexts sent.", _BYTES)
        self._redeliveries = Counters(
            "sidecar_event_redeliveries", "Events delivered again because their first answer was lost."
        )
        self._gaps = Counters(
            "sidecar_event_gaps", "Answers with a gap, because events were dropped before they were read."
        )
        self._tools = Counters("sidecar_mcp_tool_calls", "Calls of MCP tools, by outcome.", "tool", "outcome")
        self.measured: Measured = (
            self._spawn_s,
            self._exits,
            self._context_s,
            self._context_bytes,
            self._redeliveries,
            self._gaps,
            self._tools,
        )
        self._of_reply: dict[type, Callable[[Any, float], None]] = {
            SpawnedAgent: self._spawned,
            ContextBundle: self._built,
            EventBatch: self._handed_out,
        }

    def replied(self, request: ObservedRequest, reply: object) -> None:
        """Measure the replies of routes: started agents, contexts, events."""
        measure = self._of_reply.get(type(reply))
        if measure is not None:
            measure(reply, time.monotonic() - request.started_at)

    def _spawned(self, agent: SpawnedAgent, took_s: float) -> None:
        if agent.status.process_id is not None:  # None while it is queued
            self._spawn_s.of().observe(took_s)

    def _built(self, bundle: ContextBundle, took_s: float) -> None:
        self._context_s.of("hit" if bundle.cache_hit else "miss").observe(took_s)
        if bundle.body is not None:
            self._context_bytes.of().observe(len(bundle.body))

    def _handed_out(self, batch: EventBatch, took_s: float) -> None:  # noqa: ARG002
        again = sum(delivery.redelivered for delivery in batch.deliveries)
        if again:
            self._redeliveries.of().add(again)
        if batch.gap is not None:
            self._gaps.of().add()

    def changed(self, events: tuple[LifecycleEvent, ...]) -> None:
        """Count exits of agents' processes."""
        for event in events:
            if event.event_type == "agent_exited":
                self._exits.of(str(event.agent.cause)).add()

    def called_tool(self, tool: str, outcome: str) -> None:
        """Count a call of an MCP tool."""
        self._tools.of(tool, outcome).add()
