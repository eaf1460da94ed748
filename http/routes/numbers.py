"""Asks all four actors for their numbers at once, for /status and /metrics."""

from __future__ import annotations

from typing import Any

import msgspec

from ...actors.messages import CountAgents, CountContexts, CountEvents, CountResults
from ...actors.replies import AgentNumbers, ContextNumbers, EventNumbers, ResultNumbers
from ...actors.runtime.asking import Later, Recipient, all_done
from ...state.errors import SidecarError, Unavailable
from ..routing import Actors


class SidecarNumbers(msgspec.Struct, frozen=True):
    """Each actor's numbers, or the error it answered with."""

    agents: AgentNumbers | SidecarError
    events: EventNumbers | SidecarError
    results: ResultNumbers | SidecarError
    contexts: ContextNumbers | SidecarError


def ask_numbers(actors: Actors, *, project_id: str | None, timeout_s: float) -> SidecarNumbers:
    """Ask all four, then wait once, up to `timeout_s`. project_id None: of every project."""
    agents = actors.spawner.request(CountAgents(project_id=project_id))
    events = actors.bus.request(CountEvents(project_id=project_id))
    results = actors.results.request(CountResults(project_id=project_id))
    contexts = actors.contexts.request(CountContexts(project_id=project_id))
    all_done((agents, events, results, contexts)).wait(timeout_s)
    return SidecarNumbers(
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
