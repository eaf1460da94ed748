"""Asks all four actors for their numbers at once, for /health, /status and /metrics."""

from __future__ import annotations

from typing import Any

import msgspec

from ...actors.messages import CountAgents, CountContexts, CountEvents, CountResults
from ...actors.replies import AgentNumbers, ContextNumbers, EventNumbers, ResultNumbers
from ...actors.runtime.asking import Later, Recipient
from ...state.errors import SidecarError, Unavailable
from ..routing import Actors


class Census(msgspec.Struct, frozen=True):
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
        """The numbers that have arrived by now; the rest is not waited for."""
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
