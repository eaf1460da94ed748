"""Judges an agent's process tree: processes that should not be there, and the limit that it breaks. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..state.models import AgentState, ExitCause
from .process_tree import TreeProcess
from .profile import Profile

_MAY_HAVE_PROCESSES = frozenset({AgentState.STARTING, AgentState.RUNNING, AgentState.STOPPING})


class Broken(msgspec.Struct, frozen=True):
    """A limit that a tree breaks. is_urgent: kill at once."""

    cause: ExitCause
    note: str
    is_urgent: bool


def is_left_over(process: TreeProcess, *, state: AgentState, incarnation: int) -> bool:
    """Whether a process outlived the incarnation that it belongs to.

    A newer incarnation than the agent's known one is just being started.
    """
    if state in _MAY_HAVE_PROCESSES:
        return process.incarnation < incarnation
    return process.incarnation <= incarnation


def broken_limit(profile: Profile, tree: Sequence[TreeProcess]) -> Broken | None:
    """The limit of the profile that the tree breaks, if it does."""
    if 0 < profile.max_processes < len(tree):
        note = f"it had {len(tree)} processes, its profile allows {profile.max_processes}"
        return Broken(ExitCause.KILLED, note, True)
    used_mb = sum(process.rss_bytes for process in tree) / 2**20
    if 0 < profile.memory_limit_mb < used_mb:
        note = f"its processes used {used_mb:.0f} MB, its profile allows {profile.memory_limit_mb:g} MB"
        return Broken(ExitCause.MEMORY, note, False)
    return None
