"""GroupRestarts: restarts agents together: stops the other agents in reverse order, then starts all in order.

Used in the Spawner's thread. `supervision/strategy.py` decides which agents a death concerns. The restart is returned
as steps; the caller carries out each before it takes the next. The registry keeps restarts that are under way, so that
the next sidecar continues them, and the deaths that count for the limit of each group.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping

import msgspec

from ...state.agent_entries import GroupDeaths, GroupRestart, Together
from ...state.agent_registry import AgentRegistry
from ...state.models import AgentId, AgentState
from ...supervision.after_exit import end_with_group
from ...supervision.lifecycle import Occurrence
from ...supervision.process_identity import boot_id
from ...supervision.steps import AfterStop, CountGroupRestart, GroupStanding, Start, Step
from ...supervision.strategy import Group, GroupMember, affected, in_order
from .agent import HOLDS_SLOT, RUNS, SupervisedAgent

log = logging.getLogger(__name__)


class GroupRestarts:
    """The restarts of groups that are under way, and the deaths that count for each group."""

    def __init__(
        self, groups: Mapping[str, Group], agents: Mapping[AgentId, SupervisedAgent], registry: AgentRegistry
    ) -> None:
        self._groups = groups
        self._agents = agents
        self._registry = registry

    def restarts_alone(self, agent: SupervisedAgent) -> bool:
        """Whether the agent's death restarts no other agent."""
        return all(group.strategy == "one_for_one" for _, group in self._of(agent))

    def holds(self, agent: SupervisedAgent) -> bool:
        """Whether the agent starts together with other agents, and not when its own delay is over."""
        return any(agent.id in restart.to_start for restart in self._registry.group_restarts.values())

    def standings(self, agent: SupervisedAgent) -> tuple[GroupStanding, ...]:
        """The groups of the agent, as they are now."""
        known, now = self._registry.group_deaths, time.monotonic()
        return tuple(
            GroupStanding(
                where,
                group,
                known[where].deaths if where in known and self._still_counts(known[where], now) else (),
                is_restarting=where in self._registry.group_restarts,
            )
            for where, group in self._of(agent)
        )

    def record_restart(self, counted: CountGroupRestart) -> None:
        """Record the deaths of a group, and forget deaths that no longer count."""
        known, now = self._registry.group_deaths, time.monotonic()
        for old in [each.where for each in known.values() if not self._still_counts(each, now)]:
            self._registry.put(GroupDeaths(where=old))
        self._registry.put(GroupDeaths(where=counted.where, boot_id=boot_id(), deaths=counted.deaths))

    def give_up(self, where: Together) -> Iterator[Step]:
        """Stop all agents of the group, the last one first."""
        log.error("group given up group=%s issue_id=%s", where.group, where.issue_id)
        group = self._groups[where.group]
        living = [_member(a) for a in self._members(where, group) if a.record.state in HOLDS_SLOT]
        for agent_id in reversed(in_order(group, living)):
            yield from self._end(agent_id, AfterStop.GIVEN_UP, f"its group {where.group} was given up")

    def _end(self, agent_id: AgentId, after: AfterStop, note: str) -> tuple[Step, ...]:
        agent = self._agents[agent_id]
        return end_with_group(agent.record, agent.profile.restart, after, note)

    def restart_with(self, agent: SupervisedAgent) -> Iterator[Step]:
        """Restart the members of its groups that the agent's death concerns. The agent itself is backing off."""
        for where, group in self._of(agent):
            members = [_member(a) for a in self._members(where, group)]
            concerned = affected(group, _member(agent), members)
            under_way = self._registry.group_restarts.get(where)
            if not concerned and under_way is None:
                continue
            waiting, stopping = (under_way.to_start, under_way.to_stop) if under_way is not None else ((), ())
            to_stop = [member for member in members if member.agent_id in {*concerned, *stopping}]
            together = [member for member in members if member.agent_id in {agent.id, *concerned, *waiting}]
            log.info("group restarts group=%s issue_id=%s agents=%d", where.group, where.issue_id, len(together))
            restart = GroupRestart(where, to_stop=in_order(group, to_stop)[::-1], to_start=in_order(group, together))
            self._registry.put(restart)
            yield from self._stop_next(restart)  # the members start when the agent's delay is over, or later

    def advance(self) -> Iterator[Step]:
        """Continue each restart as far as the states of its members allow."""
        for where in tuple(self._registry.group_restarts):
            restart = self._registry.group_restarts.get(where)  # the start of one group may have ended it
            if restart is None:
                continue
            yield from self._stop_next(restart)
            if not self._running(restart) and self._is_time(restart):
                self._registry.put(GroupRestart(where))
                yield from self._start_in_order(restart)

    def _start_in_order(self, restart: GroupRestart) -> Iterator[Step]:
        for agent_id in restart.to_start:
            agent = self._agents.get(agent_id)
            if agent is not None and agent.record.state is AgentState.BACKING_OFF:
                yield Start(agent.id, Occurrence.BACKED_OFF)
            if restart.where in self._registry.group_restarts:
                return  # this agent could not be started: it and the agents after it wait for the next try

    def _stop_next(self, restart: GroupRestart) -> Iterator[Step]:
        """Stop the next member, if the member before it has stopped."""
        running = self._running(restart)
        if len(running) < len(restart.to_stop):
            to_stop = tuple(agent.id for agent in running)
            self._registry.put(msgspec.structs.replace(restart, to_stop=to_stop))
        if running and running[0].record.state is AgentState.RUNNING:
            yield from self._end(running[0].id, AfterStop.TOGETHER, f"its group {restart.where.group} restarts")

    def _running(self, restart: GroupRestart) -> list[SupervisedAgent]:
        found = (self._agents.get(agent_id) for agent_id in restart.to_stop)
        return [agent for agent in found if agent is not None and agent.record.state in RUNS]

    def _still_counts(self, known: GroupDeaths, now: float) -> bool:
        group = self._groups.get(known.where.group)  # it may have left the configuration
        return group is not None and known.boot_id == boot_id() and now - known.deaths[-1] <= group.intensity.within_s

    def _is_time(self, restart: GroupRestart) -> bool:
        now = time.monotonic()
        found = (self._agents.get(agent_id) for agent_id in restart.to_start)
        waiting = (agent for agent in found if agent is not None and agent.record.state is AgentState.BACKING_OFF)
        return all(agent.record.resume_at <= now for agent in waiting)

    def _members(self, where: Together, group: Group) -> Iterator[SupervisedAgent]:
        for agent in self._agents.values():
            spec = agent.record.spec
            if spec.agent_type in group.agents and Together(where.group, spec.project_id, spec.issue_id) == where:
                yield agent

    def _of(self, agent: SupervisedAgent) -> Iterator[tuple[Together, Group]]:
        spec = agent.record.spec
        for name, group in self._groups.items():
            if spec.agent_type in group.agents:
                yield Together(name, spec.project_id, spec.issue_id), group


def _member(agent: SupervisedAgent) -> GroupMember:
    return GroupMember(agent.id, agent.record.spec.agent_type, agent.record.serial, agent.record.state)
