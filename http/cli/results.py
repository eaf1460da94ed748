"""`sidecar results …`: store, list and get what agents hand in."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from ..client.calls import segment
from ..client.client import Client
from ..client.records import Result, ResultPage, Stored
from ..client.token import holder_of
from .commands import Commands
from .connection import require_project, with_client
from .events import read_object
from .moment import moment
from .options import format_option, project_option
from .terminal import Column, Format, as_it_is, clock, say_there_is_more, show_fields, show_json, show_rows, state, text

RESULT_COLUMNS = (
    Column("RESULT", "id"),
    Column("TIME", "timestamp", clock),
    Column("ISSUE", "issue_id", may_shrink=True),
    Column("AGENT", "agent_id"),
    Column("STATUS", "status", state),
    Column("DECISIONS", "result.decisions", lambda value: text("; ".join(map(str, value or ()))), may_shrink=True),
)


@click.group(cls=Commands)
def results() -> None:
    """Store, list and get the results of agents.

    \b
    Example: sidecar results list --issue issue-7 --status failed
    """


@results.command()
@click.argument("issue_id")
@click.argument("result")
@project_option
@format_option
@with_client
def store(client: Client, issue_id: str, result: str, project: str | None, format_: Format) -> None:
    """Store RESULT for ISSUE_ID, in the name of the token's holder.

    RESULT is a JSON object with "status" (success, failed or partial), @FILE to read one, or - for standard input.
    When the command returns, the result is on disk.

    \b
    Example: sidecar results store issue-7 '{"status": "success", "decisions": ["Shipped by hand"]}'
    """
    holder = holder_of(client.token or "")
    body = {
        "agent_id": holder.agent_id,
        "agent_type": holder.agent_type,
        "issue_id": issue_id,
        "project_id": project or holder.project_id,
        "result": read_object(result, "RESULT"),
    }
    require_project(client, project)
    answer = client.call("POST", "/api/results", body=body, shape=Stored)
    following = ", ".join(f"{agent['agent_type']} ({agent['priority']})" for agent in answer.get("next_agents", ()))
    fields = [
        ("result", answer["id"]),
        ("event", as_it_is(answer.get("event_id"))),
        ("next agents", text(following or "none")),
    ]
    show_fields(answer, fields, format_)


@results.command("list")
@click.option("--issue", "issue_id", help="Only of this issue.")
@click.option("--type", "agent_type", help="Only of agents of this type.")
@click.option("--agent", "agent_id", help="Only of this agent.")
@click.option("--status", type=click.Choice(["success", "failed", "partial"]))
@click.option(
    "--since", metavar="TIME", callback=moment, help="Stored at or after this date or time, local or RFC 3339."
)
@click.option("--until", metavar="TIME", callback=moment, help="Stored before this date or time.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@click.option("--cursor", help="next_cursor of the previous page.")
@project_option
@format_option
@with_client
def list_(
    client: Client,
    issue_id: str | None,
    agent_type: str | None,
    agent_id: str | None,
    status: Any,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    cursor: str | None,
    project: str | None,
    format_: Format,
) -> None:
    """List results, newest first.

    \b
    Example: sidecar results list --issue issue-7 --format json
    """
    query = {
        "issue_id": issue_id,
        "agent_type": agent_type,
        "agent_id": agent_id,
        "status": status,
        "since": since,
        "until": until,
        "limit": limit,
        "cursor": cursor,
        "project_id": project,
    }
    answer = client.call("GET", "/api/results", query=query, shape=ResultPage)
    if not answer["results"]:
        require_project(client, project)
    show_rows(answer, answer["results"], RESULT_COLUMNS, format_, nothing="no results")
    say_there_is_more(answer, answer["results"], format_)


@results.command()
@click.argument("result_id")
@click.option("--format", "format_", type=click.Choice(["json", "csv"]), default="json", show_default=True)
@with_client
def get(client: Client, result_id: str, format_: Format) -> None:
    """Get a complete result, as the agent stored it."""
    answer = client.call("GET", f"/api/results/{segment(result_id)}", shape=Result)
    if format_ == "json":
        show_json(answer)
    else:
        show_fields(answer, [], format_)
