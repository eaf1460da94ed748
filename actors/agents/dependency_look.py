"""DependencyLook: judges the dependencies of waiting agents at one moment, each once for all agents of an issue.

Used in the Spawner's thread, and made again for each look: a queue may hold a thousand agents, and is looked at with
each spawn, start and end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from ...state.models import AgentState, DependencyState
from ...supervision.dependencies import (
    Dependency,
    Present,
    Standing,
    dependencies,
    newest_state,
    settles_in_s,
    standing,
)
from .agent import Role, SupervisedAgent


class DependencyLook:
    """of_role: the agents of a type in an issue, oldest first."""

    def __init__(self, of_role: Callable[[Role], Iterable[SupervisedAgent]]) -> None:
        self._of_role = of_role
        self._now = time.monotonic()
        self._present: dict[Role, list[Present]] = {}
        self._standings: dict[tuple[Role, Dependency], Standing] = {}

    def may_start(self, agent: SupervisedAgent) -> bool:
        """Whether its dependencies are met, or it runs without those that cannot be met."""
        if not agent.profile.depends_on:
            return True
        runs_anyway = agent.profile.on_dependency_failure == "run"
        enough = {Standing.MET, Standing.LOST} if runs_anyway else {Standing.MET}
        return all(self._standing(agent, each) in enough for each in dependencies(agent.profile.depends_on))

    def lost(self, agent: SupervisedAgent) -> tuple[DependencyState, ...]:
        """The dependencies that can no longer be met, unless someone acts."""
        return self._states(agent, {Standing.LOST})

    def missing(self, agent: SupervisedAgent) -> tuple[DependencyState, ...]:
        """The dependencies that are not met."""
        return self._states(agent, {Standing.OPEN, Standing.LOST})

    def settles_in_s(self, agents: Iterable[SupervisedAgent]) -> float | None:
        """Seconds until a running agent meets the next dependency of these agents; None if none runs."""
        needed = {(_role_of(agent, each), each) for agent in agents for each in dependencies(agent.profile.depends_on)}
        left_s = (settles_in_s(each, self._of(role)) for role, each in needed)
        return min((left for left in left_s if left is not None and left > 0), default=None)

    def _states(self, agent: SupervisedAgent, standings: set[Standing]) -> tuple[DependencyState, ...]:
        return tuple(
            DependencyState(agent_type=each.type, state=self._newest_state(agent, each))
            for each in dependencies(agent.profile.depends_on)
            if self._standing(agent, each) in standings
        )

    def _newest_state(self, agent: SupervisedAgent, dependency: Dependency) -> AgentState | None:
        return newest_state(dependency.type, self._of(_role_of(agent, dependency)))

    def _standing(self, agent: SupervisedAgent, dependency: Dependency) -> Standing:
        key = (_role_of(agent, dependency), dependency)
        known = self._standings.get(key)
        if known is None:
            known = self._standings[key] = standing(dependency, self._of(key[0]))
        return known

    def _of(self, role: Role) -> list[Present]:
        known = self._present.get(role)
        if known is None:
            known = self._present[role] = [
                Present(role[2], other.record.state, max(0.0, self._now - other.record.started_monotonic))
                for other in self._of_role(role)
            ]
        return known


def _role_of(agent: SupervisedAgent, dependency: Dependency) -> Role:
    project_id, issue_id, _ = agent.role
    return project_id, issue_id, dependency.type
