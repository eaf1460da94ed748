"""Facts between the Spawner and the EventBus: which agents listen, and which events spawn some."""

from __future__ import annotations

from datetime import datetime

from ..state.models import AgentId, Event, EventId
from .runtime.asking import Fact


class AgentSubscribed(Fact, frozen=True, kw_only=True):
    """An agent runs whose profile subscribes to these topics; `since` is when it was first spawned."""

    agent_id: AgentId
    project_id: str
    topics: frozenset[str]
    since: datetime
    incarnation: int


class AgentEnded(Fact, frozen=True, kw_only=True):
    """The agent ended for good; its subscriptions count no longer."""

    agent_id: AgentId


class TellTriggered(Fact, frozen=True, kw_only=True):
    """The Spawner was restarted: send it again every event after `since` whose type a trigger names."""

    since: EventId


class LogEndsAt(Fact, frozen=True, kw_only=True):
    """Told by the EventBus before any TriggerEventPublished: which event is the newest as yet."""

    event_id: EventId


class TriggerEventPublished(Fact, frozen=True, kw_only=True):
    """Told by the EventBus for each event whose type a trigger names, in log order; again when the bus restarts."""

    event: Event
