"""`sidecar token`: mints a token from the storage's secret."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ...state.errors import InvalidRequest
from ...state.identity import AgentClass
from ..access.minting import mint_agent_token, mint_operator_token
from .agent_types import class_here
from .here import storage_of
from .options import storage_option


@click.command()
@storage_option
@click.option("--operator", is_flag=True, help="Create a token with all rights in all projects.")
@click.option("--agent-type", help="Such as python-specialist; decides the rights of the token.")
@click.option("--agent-id", help="[default: the agent type; operator]")
@click.option("--class", "agent_class", help="A class such as coding, instead of that of the type.")
@click.option("--project", default="default", show_default=True)
@click.option("--issue", help="The issue that the agent works on.")
@click.option("--ttl", type=click.IntRange(min=1), default=3600, show_default=True, metavar="SECONDS")
def token(
    storage: Path | None,
    operator: bool,
    agent_type: str | None,
    agent_id: str | None,
    agent_class: str | None,
    project: str,
    issue: str | None,
    ttl: int,
) -> None:
    """Print a token and nothing else. Needs no server: anyone who can read the storage directory can create tokens.

    \b
    Example: export JWT_TOKEN=$(sidecar token --operator --ttl 86400)
    Example: sidecar token --agent-type code-reviewer --agent-id ada --project shop
    """
    if operator is (agent_type is not None):
        raise click.UsageError("name either --operator or --agent-type")
    if operator and (agent_class is not None or issue is not None):
        raise click.UsageError("--class and --issue go with --agent-type")
    directory = storage_of(storage)
    if agent_type is not None and agent_class is None:
        agent_class = class_here(agent_type, what="the token")
    known = [str(name) for name in AgentClass if name is not AgentClass.OPERATOR]
    if agent_class is not None and agent_class not in known:
        raise click.BadParameter(f"{agent_class!r} is none of {', '.join(known)}", param_hint="--class")
    try:
        if agent_type is None:
            minted = mint_operator_token(
                directory, os.environ, agent_id=agent_id or "operator", project_id=project, ttl_s=ttl
            )
        else:
            minted = mint_agent_token(
                directory,
                os.environ,
                agent_id=agent_id or agent_type,
                agent_type=agent_type,
                project_id=project,
                issue_id=issue,
                agent_class=AgentClass(agent_class) if agent_class else None,
                ttl_s=ttl,
            )
    except InvalidRequest as error:
        raise click.UsageError(f"{error.message}; expected {error.details['expected']}") from None
    click.echo(minted.text)
