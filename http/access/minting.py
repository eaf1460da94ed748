"""Mints tokens without a server, on the same machine: anyone who can read the storage directory is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...state.clock import utc_now
from ...state.errors import InvalidRequest
from ...state.identity import PERMISSIONS, TOKEN_TTL_S, AgentClass, Token, class_of
from ...state.models import identifier
from ..storage import prepare, token_key

OPERATOR = "operator"
DEFAULT_PROJECT = "default"
MAX_TTL_S = 366 * 86_400


def mint_operator_token(
    storage: Path,
    environ: Mapping[str, str],
    *,
    agent_id: str = OPERATOR,
    project_id: str = DEFAULT_PROJECT,
    ttl_s: int = TOKEN_TTL_S,
) -> Token:
    """A token that may do everything, in any project. Raises ConfigError, InvalidRequest."""
    return _mint(
        storage,
        environ,
        agent_id=agent_id,
        agent_type=OPERATOR,
        project_id=project_id,
        issue_id=None,
        agent_class=AgentClass.OPERATOR,
        ttl_s=ttl_s,
    )


def mint_agent_token(
    storage: Path,
    environ: Mapping[str, str],
    *,
    agent_id: str,
    agent_type: str,
    project_id: str = DEFAULT_PROJECT,
    issue_id: str | None = None,
    agent_class: AgentClass | None = None,
    ttl_s: int = TOKEN_TTL_S,
) -> Token:
    """A token of an agent that the sidecar did not spawn. agent_class None: the built-in class of the type.

    Raises ConfigError, InvalidRequest.
    """
    return _mint(
        storage,
        environ,
        agent_id=agent_id,
        agent_type=agent_type,
        project_id=project_id,
        issue_id=issue_id,
        agent_class=agent_class or class_of(agent_type),
        ttl_s=ttl_s,
    )


def _mint(
    storage: Path,
    environ: Mapping[str, str],
    *,
    agent_id: str,
    agent_type: str,
    project_id: str,
    issue_id: str | None,
    agent_class: AgentClass,
    ttl_s: int,
) -> Token:
    if not 0 < ttl_s <= MAX_TTL_S:
        raise InvalidRequest("ttl is out of range", field="ttl", expected=f"1 to {MAX_TTL_S} seconds")
    prepare(storage)
    return token_key(storage, environ).mint(
        agent_type=identifier(agent_type, "agent_type"),  # checked first: many people give the type as the id, too
        agent_id=identifier(agent_id, "agent_id"),
        project_id=identifier(project_id, "project_id"),
        issue_id=identifier(issue_id, "issue_id") if issue_id is not None else None,
        permissions=PERMISSIONS[agent_class],
        now=utc_now(),
        ttl_s=ttl_s,
    )
