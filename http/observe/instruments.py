"""Instruments: what is counted as it happens, for /metrics. What actors count themselves is in census.py.

Labels are bounded: routes, codes, causes and tools, never an id, a path or a text that a client chose.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ...actors.replies import ContextBundle, EventBatch, SpawnedAgent
from ...actors.runtime.asking import Later
from .series import Counters, Histograms, Measured

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BYTES = tuple(float(4**power) for power in range(5, 13))  # 1 KiB to 16 MiB


class Instruments:
    """Used by every thread. measured: where everything can be read."""

    def __init__(self) -> None:
        self._spawn_s = Histograms(
            "sidecar_agent_spawn_duration_seconds",
            "From a spawn request to the agent's process, its context included; without the time in the queue.",
            _SECONDS,
        )
        self._exits = Counters("sidecar_agent_exits", "Processes of agents that ended, by why.", "cause")
        self._context_s = Histograms(
            "sidecar_context_duration_seconds", "From a request for a context to its answer.", _SECONDS, "cache"
        )
        self._context_bytes = Histograms("sidecar_context_size_bytes", "Size of the contexts sent.", _BYTES)
        self._redeliveries = Counters(
            "sidecar_event_redeliveries", "Events handed out once more, their first answer being lost."
        )
        self._gaps = Counters("sidecar_event_gaps", "Answers with a gap: events were dropped before they were read.")
        self._tools = Counters("sidecar_mcp_tool_calls", "Calls of MCP tools, by how they ended.", "tool", "outcome")
        self.measured: Measured = (
            self._spawn_s,
            self._exits,
            self._context_s,
            self._context_bytes,
            self._redeliveries,
            self._gaps,
            self._tools,
        )

    def watch_spawn(self, later: Later[SpawnedAgent]) -> None:
        """Time a spawn, unless it is queued or refused."""
        started = time.monotonic()

        def spawned(agent: SpawnedAgent) -> None:
            if agent.status.process_id is not None:
                self._spawn_s.of().observe(time.monotonic() - started)

        _when_good(later, spawned)

    def watch_context(self, later: Later[ContextBundle]) -> None:
        """Time a context and weigh it."""
        started = time.monotonic()

        def built(bundle: ContextBundle) -> None:
            self._context_s.of("hit" if bundle.cache_hit else "miss").observe(time.monotonic() - started)
            if bundle.body is not None:
                self._context_bytes.of().observe(len(bundle.body))

        _when_good(later, built)

    def handed_out(self, batch: EventBatch) -> None:
        again = sum(delivery.redelivered for delivery in batch.deliveries)
        if again:
            self._redeliveries.of().add(again)
        if batch.gap is not None:
            self._gaps.of().add()

    def lifecycle(self, event_type: str, _project_id: str, about: Mapping[str, Any]) -> None:
        """Count a lifecycle event of an agent."""
        if event_type == "agent_exited":
            self._exits.of(str(about.get("cause"))).add()

    def called_tool(self, tool: str, outcome: str) -> None:
        """outcome: "ok", or the code of the error."""
        self._tools.of(tool, outcome).add()


def _when_good(later: Later[Any], then: Callable[[Any], None]) -> None:
    def done(future: Later[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            then(future.result())

    later.add_done_callback(done)
