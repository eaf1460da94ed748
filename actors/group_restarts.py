"""GroupRestarts: restarts agents together: the others are stopped in reverse order, then all start in order.

Used in the Spawner's thread, driven by what happens to the members; `supervision.strategy` decides whom it concerns.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping

import msgspec

from ..state.models import AgentId, AgentState
from ..supervision.restart import Verdict
from ..supervision.strategy import Group, Member, affected
from .agent import RUNS, Agent, Then

log = logging.getLogger(__name__)


class Together(msgspec.Struct, frozen=True):
    """Where a group lives."""

    group: str
    project_id: str
    issue_id: str


class _Restart(msgspec.Struct):
    """to_stop: last one first, done when they run no longer. to_start: in order."""

    to_stop: list[AgentId]
    to_start: list[AgentId] = msgspec.field(default_factory=list)


class GroupRestarts:
    """end: ends an agent's tree so that `then` follows. start: starts one that is backing off."""

    def __init__(
        self,
        groups: Mapping[str, Group],
        agents: Mapping[AgentId, Agent],
        *,
        end: Callable[[Agent, Then, str], None],
        start: Callable[[Agent], None],
    ) -> None:
        self._groups = groups
        self._agents = agents
        self._end = end
        self._start = start
        self._restarts: dict[Together, _Restart] = {}
        self._deaths: dict[Together, tuple[float, ...]] = {}

    def restarts_alone(self, agent: Agent) -> bool:
        """Whether its death concerns no other agent."""
        return next(self._of(agent), None) is None

    def holds(self, agent: Agent) -> bool:
        """Whether it is to start together with others, not when its own delay is over."""
        return any(agent.id in restart.to_start for restart in self._restarts.values())

    def died(self, agent: Agent) -> bool:
        """One that is to be restarted has died: restart the others with it. False: its whole group is given up."""
        for where, group in self._of(agent):
            members = {a.id: _member(a) for a in self._agents.values() if _lives(a, where, group)}
            concerned = affected(group, members[agent.id], members.values())
            running = self._restarts.get(where)
            if not concerned and running is None:
                continue
            # As in OTP, those that die while the group is being stopped count for nothing.
            if running is None and not self._may_restart(where, group):
                log.error("group given up group=%s issue_id=%s", where.group, where.issue_id)
                for agent_id in reversed(concerned):
                    self._end(self._agents[agent_id], Then.GIVEN_UP, f"its group {where.group} was given up")
                return False
            restart = self._restarts.setdefault(where, _Restart([]))
            restart.to_stop = [*reversed(concerned)]
            restart.to_start = [a for a in members if a in {agent.id, *concerned, *restart.to_start}]
            restart.to_start.sort(key=lambda a: (group.agents.index(members[a].agent_type), members[a].age))
            log.info("group restarts group=%s issue_id=%s agents=%d", where.group, where.issue_id, len(concerned) + 1)
            self.advance()
        return True

    def advance(self) -> None:
        """Go on as far as the members' states allow."""
        for where, restart in tuple(self._restarts.items()):
            if self._all_stopped(restart, where) and self._is_time(restart):
                del self._restarts[where]
                for agent in self._waiting(restart):
                    self._start(agent)

    def _may_restart(self, where: Together, group: Group) -> bool:
        verdict, self._deaths[where] = group.intensity.decide(self._deaths.get(where, ()), now=time.monotonic())
        return verdict is Verdict.RESTART

    def _all_stopped(self, restart: _Restart, where: Together) -> bool:
        while restart.to_stop:
            agent = self._agents.get(restart.to_stop[0])
            if agent is not None and agent.record.state in RUNS:
                if agent.record.state is AgentState.RUNNING:
                    self._end(agent, Then.TOGETHER, f"it is restarted with its group {where.group}")
                return False
            restart.to_stop.pop(0)
        return True

    def _is_time(self, restart: _Restart) -> bool:
        now = time.monotonic()
        return all(agent.record.resume_at <= now for agent in self._waiting(restart))

    def _waiting(self, restart: _Restart) -> list[Agent]:
        found = (self._agents.get(agent_id) for agent_id in restart.to_start)
        return [agent for agent in found if agent is not None and agent.record.state is AgentState.BACKING_OFF]

    def _of(self, agent: Agent) -> Iterator[tuple[Together, Group]]:
        spec = agent.record.spec
        for name, group in self._groups.items():
            if spec.agent_type in group.agents and group.strategy != "one_for_one":
                yield Together(name, spec.project_id, spec.issue_id), group


def _lives(agent: Agent, where: Together, group: Group) -> bool:
    spec = agent.record.spec
    return spec.agent_type in group.agents and (spec.project_id, spec.issue_id) == (where.project_id, where.issue_id)


def _member(agent: Agent) -> Member:
    return Member(agent.id, agent.record.spec.agent_type, agent.record.serial, agent.record.state)
