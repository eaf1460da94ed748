"""Decides whether an agent's dependencies are met, and whether they still can be. Pure.

`depends_on` of a profile names agent types; the agents of these types in the same project and issue count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Literal

import msgspec

from ..state.models import AgentState
from .restart import SETTLED_AFTER_S


class Dependency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A dependency. on: "start" if an agent of the type must have run for a second or completed; "success" if it must
    have completed."""

    type: str
    on: Literal["start", "success"] = "success"


DependsOn = tuple[str | Dependency, ...]  # a plain string is on "start"


class Present(msgspec.Struct, frozen=True):
    """An agent of the same issue. ran_for_s: of its running incarnation; 0 if none runs."""

    agent_type: str
    state: AgentState
    ran_for_s: float = 0.0


class Standing(Enum):
    """Whether a dependency is met, and whether it still can be."""

    MET = "it is met"
    OPEN = "it may still be met"
    LOST = "it can no longer be met, unless someone acts"


# Such an agent does not continue by itself.
_STANDS_STILL = frozenset({AgentState.FAILED, AgentState.STOPPED, AgentState.BLOCKED})


def dependencies(depends_on: DependsOn) -> tuple[Dependency, ...]:
    return tuple(each if isinstance(each, Dependency) else Dependency(each, on="start") for each in depends_on)


def standing(dependency: Dependency, present: Iterable[Present]) -> Standing:
    """Whether a dependency is met by the agents of the issue.

    A running agent counts when it has run for a second: one that fails at its start has met nothing.
    """
    of_type = [agent for agent in present if agent.agent_type == dependency.type]
    if any(_meets(agent, dependency) for agent in of_type):
        return Standing.MET
    if of_type and all(agent.state in _STANDS_STILL for agent in of_type):
        return Standing.LOST
    return Standing.OPEN


def settles_in_s(dependency: Dependency, present: Iterable[Present]) -> float | None:
    """Seconds until a running agent meets the dependency, if it goes on running; None if none could."""
    if dependency.on == "success":
        return None
    left_s = [
        SETTLED_AFTER_S - agent.ran_for_s
        for agent in present
        if agent.agent_type == dependency.type and agent.state is AgentState.RUNNING
    ]
    return min(left_s, default=None)


def newest_state(agent_type: str, present: Sequence[Present]) -> AgentState | None:
    """The state of the youngest agent of a type. present: oldest first."""
    return next((agent.state for agent in reversed(present) if agent.agent_type == agent_type), None)


def _meets(agent: Present, dependency: Dependency) -> bool:
    if agent.state is AgentState.COMPLETED:
        return True
    return dependency.on == "start" and agent.state is AgentState.RUNNING and agent.ran_for_s >= SETTLED_AFTER_S
