"""AgentIndex: the agents by id, state and role, and the memory that their spawn requests take.

Used in the Spawner's thread.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...state.agent_entries import AgentRecord
from ...state.models import AgentId, AgentState
from .agent import WAITS, Role, SupervisedAgent


class AgentIndex:
    """agents: all of them by id, in the order in which they were spawned. waiting_bytes, ended_bytes: memory for the
    spawn requests of agents that wait for their start, and of agents that have ended."""

    def __init__(self) -> None:
        self.agents: dict[AgentId, SupervisedAgent] = {}
        self.waiting_bytes = 0
        self.ended_bytes = 0
        self._by_state: dict[AgentState, dict[AgentId, SupervisedAgent]] = {state: {} for state in AgentState}
        self._by_role: dict[Role, dict[AgentId, SupervisedAgent]] = {}

    def add(self, agent: SupervisedAgent) -> None:
        self.agents[agent.id] = agent
        self._by_state[agent.record.state][agent.id] = agent
        self._by_role.setdefault(agent.role, {})[agent.id] = agent
        self._count_bytes(agent, +1)

    def replace(self, agent: SupervisedAgent, record: AgentRecord) -> None:
        """Give the agent its new record."""
        if record.state is agent.record.state:
            agent.record = record
            return
        self._count_bytes(agent, -1)
        del self._by_state[agent.record.state][agent.id]
        agent.record = record
        self._by_state[record.state][agent.id] = agent
        self._count_bytes(agent, +1)

    def remove(self, agent: SupervisedAgent) -> None:
        self._count_bytes(agent, -1)
        del self.agents[agent.id]
        del self._by_state[agent.record.state][agent.id]
        of_role = self._by_role[agent.role]
        del of_role[agent.id]
        if not of_role:
            del self._by_role[agent.role]

    def of_role(self, role: Role) -> Iterator[SupervisedAgent]:
        """The agents of a type in an issue, oldest first."""
        return iter(self._by_role.get(role, {}).values())

    def in_state(self, *states: AgentState) -> Iterator[SupervisedAgent]:
        """The agents that are in one of the states now. They may change while the caller goes through them."""
        return iter([agent for state in states for agent in self._by_state[state].values()])

    def count(self, *states: AgentState) -> int:
        return sum(len(self._by_state[state]) for state in states)

    def _count_bytes(self, agent: SupervisedAgent, sign: int) -> None:
        if agent.record.state in WAITS:
            self.waiting_bytes += sign * agent.request_bytes
        elif agent.record.state.has_ended:
            self.ended_bytes += sign * agent.request_bytes
