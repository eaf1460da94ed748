"""Supervised agents as the event bus knows them: the topics of their profiles, and which incarnation runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from datetime import datetime

import msgspec

from ..models import AgentId, Event
from .mailbox import MailboxKey


class SubscribedAgent(msgspec.Struct, frozen=True, kw_only=True, tag="agent"):
    """An agent that is supervised. since: when it was first spawned. incarnation: the one that runs."""

    agent_id: AgentId
    project_id: str
    topics: frozenset[str]
    since: datetime
    incarnation: int
    ended_at: datetime | None = None


class SubscribedAgents:
    """The agents by their ids, and those that run by project and topic: thousands may have ended."""

    def __init__(self) -> None:
        self._agents: dict[AgentId, SubscribedAgent] = {}
        self._running: defaultdict[tuple[str, str], set[AgentId]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._agents)

    def __iter__(self) -> Iterator[SubscribedAgent]:
        return iter(self._agents.values())

    def put(self, agent: SubscribedAgent) -> None:
        before, self._agents[agent.agent_id] = self._agents.get(agent.agent_id), agent
        if before is not None:
            for topic in before.topics:
                self._running[before.project_id, topic].discard(before.agent_id)
        if agent.ended_at is None:
            for topic in agent.topics:
                self._running[agent.project_id, topic].add(agent.agent_id)

    def get(self, agent_id: AgentId) -> SubscribedAgent | None:
        return self._agents.get(agent_id)

    def has_ended(self, key: MailboxKey) -> bool:
        """Whether the mailbox's agent was supervised and has ended."""
        agent = self._agents.get(key.agent_id)
        return agent is not None and agent.project_id == key.project_id and agent.ended_at is not None

    def incarnation(self, agent_id: AgentId) -> int:
        """Which incarnation of the agent runs; 0 for one that nobody supervises."""
        agent = self._agents.get(agent_id)
        return agent.incarnation if agent is not None else 0

    def subscribers(self, event: Event, waiting: Collection[AgentId]) -> tuple[AgentId, ...]:
        """Agents of the project that wait for the event or whose profile subscribes to its topic, sorted."""
        running = self._running.get((event.project_id, event.topic))
        return tuple(sorted({*waiting, *(running or ())})) if waiting or running else ()

    def forget(self, *, before: datetime) -> None:
        """Forget those that ended before that time."""
        self._agents = {
            agent_id: agent
            for agent_id, agent in self._agents.items()
            if agent.ended_at is None or agent.ended_at >= before
        }
