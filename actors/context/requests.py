"""Which contexts were asked for lately, by agent: what operators see when an agent seems to know too little."""

from __future__ import annotations

from collections import OrderedDict, deque
from datetime import datetime

from ..replies import ContextRequested, ContextRequests

KEPT_OF_AN_AGENT = 50
KEPT_AGENTS = 1000  # the least recently heard of goes first; each request takes some hundred bytes

_Holder = tuple[str, str]


class RequestsSeen:
    """In memory alone: it is empty after a restart of its actor. since: when that was."""

    def __init__(self, *, since: datetime) -> None:
        self._since = since
        self._of: OrderedDict[_Holder, deque[ContextRequested]] = OrderedDict()

    def add(self, project_id: str, agent_id: str, request: ContextRequested) -> None:
        holder = (project_id, agent_id)
        kept = self._of.setdefault(holder, deque(maxlen=KEPT_OF_AN_AGENT))
        kept.append(request)
        self._of.move_to_end(holder)
        while len(self._of) > KEPT_AGENTS:
            self._of.popitem(last=False)

    def of(self, agent_id: str, project_id: str | None) -> ContextRequests:
        """An agent's, newest first. project_id None: in whatever project it has this id."""
        found = [
            request
            for (project, agent), kept in self._of.items()
            if agent == agent_id and project_id in (None, project)
            for request in kept
        ]
        return ContextRequests(tuple(sorted(found, key=lambda request: request.at, reverse=True)), self._since)
