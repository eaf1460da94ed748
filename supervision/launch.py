"""Decides the argv, environment and folder of an agent, from its profile and its spec. Pure.

Text of a request becomes one argument, or part of one, or the value of a variable; it never names the program.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ..state.models import AgentSpec
from ..state.trace import VARIABLE
from .profile import Profile
from .request_environment import AGENT_ID, INCARNATION, INSTANCE, SET_BY_SIDECAR, TOKEN

# Variables that a process of another user must not inherit: those of its account replace them.
# Source: systemd.exec(5), User=.
OF_THE_ACCOUNT = ("HOME", "USER", "LOGNAME", "SHELL")

# The GIT_* variables for the committer, the access to servers and the output. All others say where and how git works
# for one command; hooks and aliases of git inherit them.
_OF_THE_USERS_GIT = (
    *("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "GIT_TERMINAL_PROMPT"),
    *("GIT_ASKPASS", "GIT_SSH", "GIT_SSL_", "GIT_HTTP_", "GIT_PROXY", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"),
    *("GIT_CONFIG_NOSYSTEM", "GIT_EDITOR", "GIT_SEQUENCE_EDITOR", "GIT_PAGER", "GIT_TRACE"),
)

_PLACEHOLDER = re.compile(r"\{(agent_id|agent_type|issue_id|project_id|project_root|task|context_url)\}")


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """One process to start. env: without the account's own variables. user: None for the sidecar's user."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    user: str | None = None


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of the sidecar's own environment that agents get.

    Left out: its secrets and settings, the identity of an outer agent, and the repository of a git hook that started
    the sidecar.
    """
    return {name: value for name, value in environ.items() if _is_inherited(name)}


def _is_inherited(name: str) -> bool:
    if name.startswith("GIT_"):
        return name.startswith(_OF_THE_USERS_GIT)
    return name not in SET_BY_SIDECAR and not name.startswith("SIDECAR_")


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace the placeholders by their values, once: the values are not searched again. Other braces stay."""
    return _PLACEHOLDER.sub(lambda match: values[match.group(1)], template)


def launch_of(
    spec: AgentSpec,
    profile: Profile,
    *,
    incarnation: int,
    instance_id: str,
    base: Mapping[str, str],
    token: str,
    api_url: str,
    project_root: Path,
) -> Launch:
    """The process of one incarnation.

    base: from `inherited`. api_url: with `/api`.
    """
    values = {
        "agent_id": spec.agent_id,
        "agent_type": spec.agent_type,
        "issue_id": spec.issue_id,
        "project_id": spec.project_id,
        "project_root": str(project_root),
        "task": spec.task,
        "context_url": f"{api_url}/context/{spec.issue_id}/{spec.agent_type}",
    }
    if profile.user is not None:
        base = {name: value for name, value in base.items() if name not in OF_THE_ACCOUNT}
    return Launch(
        argv=tuple(fill(argument, values) for argument in profile.command),
        env={
            **base,
            **{name: fill(value, values) for name, value in profile.env.items()},
            **spec.environment,
            AGENT_ID: spec.agent_id,
            "AGENT_TYPE": spec.agent_type,
            "ISSUE_ID": spec.issue_id,
            "PROJECT_ID": spec.project_id,
            "SIDECAR_URL": api_url,
            TOKEN: token,
            "CONTEXT_URL": values["context_url"],
            "AGENT_TASK": spec.task,
            "PROJECT_ROOT": str(project_root),
            INCARNATION: str(incarnation),
            INSTANCE: instance_id,
            **({VARIABLE: spec.traceparent} if spec.traceparent is not None else {}),
        },
        cwd=fill(profile.cwd, values),
        user=profile.user,
    )
