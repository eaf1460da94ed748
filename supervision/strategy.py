"""Decides which members of a group are restarted when a member dies, and in which order. Pure; terms as in OTP.

A group of the configuration names agent types. Its members live together: those of the same project and issue.

See docs/supervision.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from ..state.models import AgentId, AgentState
from .restart import RestartIntensity

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]

# The states that a restart of the group concerns. Completed agents stay completed (OTP would start them again, which
# would do finished work twice), and so do stopped and failed ones.
_CONCERNED = frozenset({AgentState.STARTING, AgentState.RUNNING, AgentState.STOPPING, AgentState.BACKING_OFF})


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[groups.NAME]`. agents: types, in the order in which they start; they stop in reverse.

    More than `max_restarts` of the group within the window, and all of it is given up.
    """

    agents: tuple[str, ...]
    strategy: Strategy = "one_for_one"
    max_restarts: int = 10
    restart_window_seconds: float = 60.0

    @property
    def intensity(self) -> RestartIntensity:
        return RestartIntensity(max_restarts=self.max_restarts, within_s=self.restart_window_seconds)


class GroupMember(msgspec.Struct, frozen=True):
    """An agent that lives in a group. age: rises; of two agents of one type the older starts first."""

    agent_id: AgentId
    agent_type: str
    age: int
    state: AgentState


def affected(group: Group, dead: GroupMember, others: Iterable[GroupMember]) -> tuple[AgentId, ...]:
    """The other members that the death of `dead` concerns, in the order in which they start."""
    if group.strategy == "one_for_one":
        return ()
    concerned = [
        member
        for member in others
        if member.agent_type in group.agents and member.agent_id != dead.agent_id and member.state in _CONCERNED
    ]
    if group.strategy == "rest_for_one":
        concerned = [member for member in concerned if _place(group, member) > _place(group, dead)]
    return in_order(group, concerned)


def in_order(group: Group, members: Iterable[GroupMember]) -> tuple[AgentId, ...]:
    """The members in the order in which they start."""
    return tuple(member.agent_id for member in sorted(members, key=lambda member: _place(group, member)))


def _place(group: Group, member: GroupMember) -> tuple[int, int]:
    return group.agents.index(member.agent_type), member.age
