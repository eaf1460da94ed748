"""Finds the class of an agent type, and prints a note if the type is unknown, since it may be misspelt."""

from __future__ import annotations

import os

from ...state.errors import ConfigError
from ...state.identity import AgentClass, class_of, types_like
from ..config import Flags, load
from ..tables import nearest
from .here import project_root_above, working_dir
from .stderr import tell


def class_here(agent_type: str, *, what: str) -> str:
    """The class of the type in the configuration here, else the built-in one. what: the thing with that class."""
    try:
        profiles = load(Flags(), os.environ, working_dir=project_root_above(working_dir())).profiles
        known = {profile.agent_type: profile.agent_class for profile in profiles.configured()}
    except ConfigError:  # reported by the commands that need it
        known = {}
    if agent_type in known:
        return str(known[agent_type])
    built_in = class_of(agent_type)
    if built_in is AgentClass.SUPPORT:
        meant = nearest(agent_type, sorted({*known, *types_like(agent_type)}))
        hint = f"; did you mean {meant}?" if meant is not None else ""
        tell(f"note: agent type {agent_type} is not known here, so {what} is that of class {built_in}{hint}")
    return str(built_in)
