"""Chains: records which agent caused which, by a spawn or a trigger's event, and ends loops.

Used in the Spawner's thread. A chain is a tuple of agent ids, oldest first; each was caused by the one before it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta

import msgspec

from ...state.clock import utc_now
from ...state.errors import ChainTooLong, TooManySpawns
from ...state.models import AgentId, AgentSpec, Event
from ...state.typed import decode
from ...supervision.fleet import SpawnerOptions
from .agent import SupervisedAgent
from .announcer import PUBLISHER, Announcer

log = logging.getLogger(__name__)

Chain = tuple[AgentId, ...]

_SPAWNS_WITHIN = timedelta(days=1)


class Cause(msgspec.Struct, frozen=True):
    """The cause of an event. agent_type: of the agent that caused it; "" if no agent did."""

    chain: Chain
    agent_type: str


class Chains:
    """agents: all that are known, by id."""

    def __init__(
        self, agents: Mapping[AgentId, SupervisedAgent], options: SpawnerOptions, announcer: Announcer
    ) -> None:
        self._agents = agents
        self._max_depth = options.max_chain_depth
        self._max_of_issue = options.max_spawns_per_issue
        self._announcer = announcer

    def of_agent(self, agent_id: AgentId) -> Chain:
        """The chain of anything this agent causes; empty for a caller that is no agent of this sidecar."""
        agent = self._agents.get(agent_id)
        return (*agent.record.spec.chain, agent.id) if agent is not None else ()

    def of_event(self, event: Event) -> Cause:
        """The agent that published the event, or that the event is about."""
        if event.publisher == PUBLISHER:
            told = _told(event)
            return Cause((*told.chain, told.agent_id) if told.agent_id else (), told.agent_type)
        chain = self.of_agent(AgentId(event.publisher))
        if not chain and event.publisher == event.publisher_type:  # it published in its type's name
            chain = max((self.of_agent(a.id) for a in self._possible_publishers(event)), key=len, default=())
        return Cause(chain, event.publisher_type)

    def check(self, spec: AgentSpec) -> None:
        """Refuse an agent whose chain is too long, or whose issue has had too many.

        A chain that is cut is announced with an event. Raises ChainTooLong, TooManySpawns.
        """
        if 0 < self._max_depth < len(spec.chain) + 1:
            self._tell(spec)
            raise ChainTooLong(
                f"no {spec.agent_type} was spawned: {len(spec.chain)} agents in a row have caused one another,"
                f" agents.max_chain_depth is {self._max_depth}",
                path=list(spec.chain),
                setting="agents.max_chain_depth",
            )
        if 0 < self._max_of_issue <= len(self._agents) and self._of_issue(spec) >= self._max_of_issue:
            raise TooManySpawns(
                f"issue {spec.issue_id} has had {self._max_of_issue} agents within a day, which is"
                " agents.max_spawns_per_issue",
                field="issue_id",
                setting="agents.max_spawns_per_issue",
            )

    def _of_issue(self, spec: AgentSpec) -> int:
        """How many agents the issue has had within a day, of those still in the list."""
        since = utc_now() - _SPAWNS_WITHIN
        where = (spec.project_id, spec.issue_id)
        return sum(agent.role[:2] == where and agent.record.created_at > since for agent in self._agents.values())

    def _tell(self, spec: AgentSpec) -> None:
        log.warning(
            "chain cut agent_type=%s issue_id=%s max_chain_depth=%d path=%s",
            spec.agent_type,
            spec.issue_id,
            self._max_depth,
            ",".join(spec.chain),
        )
        self._announcer.announce_about(
            spec, "chain_cut", topic="error", agent_type=spec.agent_type, issue_id=spec.issue_id, path=spec.chain
        )

    def _possible_publishers(self, event: Event) -> list[SupervisedAgent]:
        """Agents of the type that ran when the event was published."""
        return [
            agent
            for agent in self._agents.values()
            if agent.role[0] == event.project_id
            and agent.role[2] == event.publisher_type
            and agent.record.started_at is not None
            and (agent.record.ended_at is None or agent.record.ended_at >= event.published_at)
        ]


class _Told(msgspec.Struct):
    agent_id: AgentId = AgentId("")
    agent_type: str = ""
    chain: Chain = ()


def _told(event: Event) -> _Told:
    """The fields of a lifecycle event that name agents."""
    try:
        return decode(event.data, _Told)
    except msgspec.DecodeError:
        return _Told()
