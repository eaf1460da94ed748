"""GroupRestarts: restarts agents together: the others are stopped in reverse order, then all start in order.

Used in the Spawner's thread, driven by what happens to the members; `supervision.strategy` decides whom it concerns.
A restart that is under way is kept in the registry, so that the next sidecar goes on with it, and so are deaths, which
count for the group's limit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping

import msgspec

from ...state.agent_entries import GroupDeaths, GroupRestart, Together
from ...state.agent_registry import AgentRegistry
from ...state.models import AgentId, AgentState
from ...supervision.process_identity import boot_id
from ...supervision.restart import RestartVerdict
from ...supervision.strategy import Group, GroupMember, affected, in_order
from .agent import HOLDS_SLOT, RUNS, AfterStop, SupervisedAgent

log = logging.getLogger(__name__)


class GroupRestarts:
    """end: ends an agent's tree so that `then` follows. start: starts one that is backing off."""

    def __init__(
        self,
        groups: Mapping[str, Group],
        agents: Mapping[AgentId, SupervisedAgent],
        registry: AgentRegistry,
        *,
        end: Callable[[SupervisedAgent, AfterStop, str], None],
        start: Callable[[SupervisedAgent], None],
    ) -> None:
        self._groups = groups
        self._agents = agents
        self._registry = registry
        self._end = end
        self._start = start

    def restarts_alone(self, agent: SupervisedAgent) -> bool:
        """Whether its death restarts no other agent."""
        return all(group.strategy == "one_for_one" for _, group in self._of(agent))

    def holds(self, agent: SupervisedAgent) -> bool:
        """Whether it is to start together with others, not when its own delay is over."""
        return any(agent.id in restart.to_start for restart in self._registry.group_restarts.values())

    def count(self, agent: SupervisedAgent) -> Together | None:
        """Count the restart of one that has died. Returns the group that has had too many of them, if one has."""
        if agent.record.cause is None:
            return None  # it ended unseen, with the sidecar and all others: nothing is wrong with the group
        for where, group in self._of(agent):
            # As in OTP, those that die while the group is being stopped count for nothing.
            if where not in self._registry.group_restarts and not self._may_restart(where, group):
                return where
        return None

    def give_up(self, where: Together) -> None:
        """End all of the group, last one first."""
        log.error("group given up group=%s issue_id=%s", where.group, where.issue_id)
        group = self._groups[where.group]
        living = [_member(a) for a in self._members(where, group) if a.record.state in HOLDS_SLOT]
        for agent_id in reversed(in_order(group, living)):
            self._end(self._agents[agent_id], AfterStop.GIVEN_UP, f"its group {where.group} was given up")

    def restart_with(self, agent: SupervisedAgent) -> None:
        """One that backs off has died: restart with it whom its death concerns."""
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
            self._all_stopped(restart)  # the first is told; who starts waits for its own delay at least

    def advance(self) -> None:
        """Go on as far as the members' states allow."""
        for where in tuple(self._registry.group_restarts):
            restart = self._registry.group_restarts.get(where)  # starting those of one may have ended another
            if restart is not None and self._all_stopped(restart) and self._is_time(restart):
                self._registry.put(GroupRestart(where))
                self._start_in_order(restart)

    def _start_in_order(self, restart: GroupRestart) -> None:
        for agent_id in restart.to_start:
            agent = self._agents.get(agent_id)
            if agent is not None and agent.record.state is AgentState.BACKING_OFF:
                self._start(agent)
            if restart.where in self._registry.group_restarts:
                return  # that one could not be started, and those after it wait with it for another try

    def _may_restart(self, where: Together, group: Group) -> bool:
        now = time.monotonic()
        known = self._registry.group_deaths
        for old in [each.where for each in known.values() if not self._still_counts(each, now)]:
            self._registry.put(GroupDeaths(where=old))
        before = known[where].deaths if where in known else ()
        verdict, deaths = group.intensity.decide(before, now=now)
        self._registry.put(GroupDeaths(where=where, boot_id=boot_id(), deaths=deaths))
        return verdict is RestartVerdict.RESTART

    def _still_counts(self, known: GroupDeaths, now: float) -> bool:
        group = self._groups.get(known.where.group)  # it may have left the configuration
        return group is not None and known.boot_id == boot_id() and now - known.deaths[-1] <= group.intensity.within_s

    def _all_stopped(self, restart: GroupRestart) -> bool:
        running = [agent for agent_id in restart.to_stop if (agent := self._agents.get(agent_id)) and _runs(agent)]
        if len(running) < len(restart.to_stop):
            restart = msgspec.structs.replace(restart, to_stop=tuple(agent.id for agent in running))
            self._registry.put(restart)
        if running and running[0].record.state is AgentState.RUNNING:
            self._end(running[0], AfterStop.TOGETHER, f"its group {restart.where.group} restarts")
        return not running

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


def _runs(agent: SupervisedAgent) -> bool:
    return agent.record.state in RUNS


def _member(agent: SupervisedAgent) -> GroupMember:
    return GroupMember(agent.id, agent.record.spec.agent_type, agent.record.serial, agent.record.state)
