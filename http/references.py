"""Checks the agent types that settings name: with an unknown type, a dependency or trigger would silently do nothing.

Pure; raises ConfigError naming the setting and the nearest type.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..state.errors import ConfigError
from ..supervision.dependencies import dependencies
from ..supervision.fleet import refuse_chain_cut
from ..supervision.profile import Profile
from .config import Config
from .tables import nearest


def check_references(config: Config) -> None:
    """For `serve` and `doctor`; other commands work with such a configuration.

    Raises ConfigError for a type that is unknown or has no command, and for dependencies in a circle.
    """
    try:
        _check(config)
    except ConfigError as error:
        if config.source is None:
            raise
        raise ConfigError(f"{config.source}: {error.message}", **error.details) from None


def _check(config: Config) -> None:
    known = {profile.agent_type: profile for profile in config.profiles.configured()}
    for profile in known.values():
        for dependency in dependencies(profile.depends_on):
            _require_runnable(dependency.type, f"profiles.{profile.agent_type}.depends_on", known)
    for number, trigger in enumerate(config.triggers):
        _require_runnable(trigger.spawn, f"triggers[{number}].spawn", known)
        refuse_chain_cut(trigger, f"triggers[{number}]")
    for agent_type in known:
        _refuse_circle((agent_type,), known)


def _require_runnable(agent_type: str, setting: str, known: Mapping[str, Profile]) -> None:
    profile = known.get(agent_type)
    if profile is None:
        meant = nearest(agent_type, tuple(known))
        hint = f": did you mean {meant}?" if meant is not None else ""
        raise ConfigError(
            f"setting {setting} names {agent_type}, which has no profile with a command{hint}",
            field=setting,
            expected=f"a type with a `command` in [profiles.{agent_type}]",
        )
    if not profile.command:
        raise ConfigError(
            f"setting {setting} names {agent_type}, whose profile has no command",
            field=setting,
            expected=f"a `command` in [profiles.{agent_type}]",
        )


def _refuse_circle(path: tuple[str, ...], known: Mapping[str, Profile]) -> None:
    for dependency in dependencies(known[path[-1]].depends_on):
        if dependency.type == path[0]:
            circle = " → ".join((*path, dependency.type))
            setting = f"profiles.{path[0]}.depends_on"
            raise ConfigError(
                f"setting {setting} leads back to itself, so that none of them ever starts: {circle}",
                field=setting,
                expected="dependencies without a circle",
            )
        if dependency.type not in path:
            _refuse_circle((*path, dependency.type), known)
