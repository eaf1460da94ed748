"""Profiles: how to run each agent type, and how to keep it running. `[profiles.NAME]` overrides the built-in ones.

The built-in profiles say which agent types follow each other, and which topics concern each; none has a command.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import msgspec

from ..state.identity import AgentClass, class_of
from ..state.models import ResultStatus
from .dependencies import DependsOn
from .request_environment import ALLOWED_BY_DEFAULT
from .restart import Backoff, RestartIntensity, RestartPolicy, RestartType


class Follower(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An agent type to suggest when a result of status `on` is stored. on "any": of whatever status."""

    agent_type: str
    priority: Literal["high", "medium", "low"] = "medium"
    on: ResultStatus | Literal["any"] = "success"


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """How agents of one type run.

    command: argv with the placeholders {agent_id} {agent_type} {issue_id} {project_id} {project_root} {task}
    {context_url}; each is put in as one argument or part of one, no shell ever sees it. request_env: names of
    environment variables that a spawn request may set, with * for any characters. Zero means no limit for
    the two timeouts, the memory limit and the number of processes. no_restart_exit_codes: not tried again (64 and
    78 are EX_USAGE and EX_CONFIG of sysexits.h; 1 and 2 are what any program may end with). probe_after_seconds: 0,
    or after max_restarts try again that often instead of failing. depends_on: agent types of the same issue that
    must run or have completed first. on_dependency_failure: what an agent does when that can no longer be.
    subscribes_to: topics of the protocol.
    """

    agent_type: str
    agent_class: AgentClass
    command: tuple[str, ...] = ()
    cwd: str = "{project_root}"
    env: dict[str, str] = {}
    request_env: tuple[str, ...] = ALLOWED_BY_DEFAULT
    user: str | None = None
    restart: RestartType = "on-failure"
    max_restarts: int = 5
    restart_window_seconds: float = 60.0
    backoff_initial_seconds: float = 0.5
    backoff_max_seconds: float = 30.0
    no_restart_exit_codes: tuple[int, ...] = (64, 78)
    probe_after_seconds: float = 0.0
    stop_timeout_seconds: float = 10.0
    run_timeout_seconds: float = 0.0
    heartbeat_timeout_seconds: float = 0.0
    memory_limit_mb: float = 0.0
    max_processes: int = 512
    depends_on: DependsOn = ()
    on_dependency_failure: Literal["wait", "fail", "run"] = "wait"
    subscribes_to: tuple[str, ...] = ("coordination", "error")
    next_agents: tuple[Follower, ...] = ()

    @property
    def restart_policy(self) -> RestartPolicy:
        return RestartPolicy(
            restart=self.restart,
            intensity=RestartIntensity(max_restarts=self.max_restarts, within_s=self.restart_window_seconds),
            backoff=Backoff(initial_s=self.backoff_initial_seconds, max_s=self.backoff_max_seconds),
            no_restart_exit_codes=frozenset(self.no_restart_exit_codes),
            probe_after_s=self.probe_after_seconds,
        )


_TESTING = Follower(agent_type="test-engineer", priority="high")
_AUDIT = Follower(agent_type="security-auditor", priority="medium")
_DOCS = Follower(agent_type="documentation-expert", priority="low")
_DEPLOY = Follower(agent_type="devops-engineer", priority="medium")
_REVIEW_OF_FAILURE = Follower(agent_type="chief-architect", priority="high", on="failed")

_NEXT_OF_CLASS: dict[AgentClass, tuple[Follower, ...]] = {
    AgentClass.ARCHITECT: (),
    AgentClass.CODING: (_TESTING, _AUDIT, _REVIEW_OF_FAILURE),
    AgentClass.QA: (_DOCS, _DEPLOY, _REVIEW_OF_FAILURE),
    AgentClass.DEVOPS: (_DOCS, _REVIEW_OF_FAILURE),
    AgentClass.DOCUMENTATION: (),
    AgentClass.SUPPORT: (),
    AgentClass.OPERATOR: (),
}

# Source: the guide's table of topics, read by subscriber.
_TOPICS_OF_CLASS: dict[AgentClass, tuple[str, ...]] = {
    AgentClass.ARCHITECT: ("testing", "security", "deployment", "documentation", "error", "coordination"),
    AgentClass.CODING: ("architecture", "deployment", "coordination", "error"),
    AgentClass.QA: ("implementation", "deployment", "coordination", "error"),
    AgentClass.DEVOPS: ("implementation", "testing", "security", "deployment", "coordination", "error"),
    AgentClass.DOCUMENTATION: ("implementation", "deployment", "documentation", "coordination"),
    AgentClass.SUPPORT: ("deployment", "coordination"),
    AgentClass.OPERATOR: (),
}


@lru_cache(maxsize=1024)  # looked up for every request of an agent
def built_in(agent_type: str, agent_class: AgentClass | None = None) -> Profile:
    """The profile of a type that the configuration says nothing about."""
    agent_class = agent_class or class_of(agent_type)
    return Profile(
        agent_type=agent_type,
        agent_class=agent_class,
        subscribes_to=_TOPICS_OF_CLASS[agent_class],
        next_agents=_NEXT_OF_CLASS[agent_class],
    )


class Profiles:
    """Every agent type's profile: the configured one, else the built-in."""

    def __init__(self, configured: dict[str, Profile]) -> None:
        self._configured = dict(configured)

    def of(self, agent_type: str) -> Profile:
        return self._configured.get(agent_type) or built_in(agent_type)

    def configured(self) -> tuple[Profile, ...]:
        return tuple(self._configured.values())
