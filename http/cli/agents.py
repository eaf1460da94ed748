"""`sidecar agent …`: spawn, look at, stop and restart agents, and read what they print."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click

from ...state.models import AgentState, AgentStatus
from ..client.calls import ANSWER_WITHIN_S, segment
from ..client.client import Client
from ..client.records import Batch, LogPart
from ..visible import LogText
from .commands import REFUSED, Commands
from .connection import with_client
from .options import format_option, project_option
from .reconnect import Patience
from .shapes import AgentsAnswer, ContextsAnswer
from .terminal import Column, Format, as_it_is, clock, number, plural, seconds, show_fields, show_rows, state, text

AGENT_COLUMNS = (
    Column("AGENT", "agent_id"),
    Column("ISSUE", "issue_id", may_shrink=True),
    Column("STATE", "state", state),
    Column("PID", "process_id", as_it_is, right=True),
    Column("RESTARTS", "restarts", number(0), right=True),
    Column("UP", "uptime_seconds", seconds, right=True),
    Column("CPU", "cpu_percent", number(0, " %"), right=True),
    Column("MEMORY", "memory_mb", number(0, " MB"), right=True),
    Column("WAITS FOR", "waiting_for.text", may_shrink=True),
    Column("LAST ERROR", "last_error", may_shrink=True),
)

CONTEXT_COLUMNS = (
    Column("TIME", "at", clock),
    Column("OUTCOME", "outcome"),
    Column("FILES", "file_count", number(0), right=True),
    Column("BYTES", "size_bytes", number(0), right=True),
    Column("TOOK", "took_ms", number(1, " ms"), right=True),
    Column("CACHED", "cache_hit", lambda value: "yes" if value else ""),
    Column("CUT BY", "truncation_strategy", lambda value: "" if value == "none" else text(value), may_shrink=True),
    Column("QUERY", "q", may_shrink=True),
)

LOG_POLL_S = 25.0  # one long poll of `logs --follow`; shorter than what proxies in between allow


@click.group(cls=Commands)
def agent() -> None:
    """Spawn, inspect, stop and restart agents.

    \b
    Example: sidecar agent spawn python-specialist issue-7 --task "Add tags" --wait
    """


@agent.command()
@click.argument("agent_type")
@click.argument("issue_id")
@click.option("--task", default="", help="The task; the agent finds it in AGENT_TASK.")
@click.option("--requirement", "requirements", multiple=True, help="A section that the context needs; may be repeated.")
@click.option(
    "--env",
    "environment",
    multiple=True,
    metavar="NAME=VALUE",
    help="Environment variable for the process; may be repeated.",
)
@click.option("--priority", type=click.Choice(["low", "normal", "high"]), default="normal", show_default=True)
@click.option("--wait", is_flag=True, help="Wait until the agent has ended; exit code 1 unless it completed.")
@click.option("-q", "--quiet", is_flag=True, help="Print the agent's id and nothing else.")
@project_option
@format_option
@with_client
def spawn(
    client: Client,
    agent_type: str,
    issue_id: str,
    task: str,
    requirements: tuple[str, ...],
    environment: tuple[str, ...],
    priority: Any,
    wait: bool,
    quiet: bool,
    project: str | None,
    format_: Format,
) -> None:
    """Start an agent of AGENT_TYPE for ISSUE_ID.

    Runs the command of the type's profile in sidecar.toml.

    \b
    Example: sidecar agent spawn test-engineer issue-7 --env TASK_SUITE=fast --priority high
    Example: sidecar agent spawn test-engineer issue-7 --quiet | xargs sidecar agent logs -f
    """
    spawned = client.spawn(
        agent_type,
        issue_id,
        task=task,
        project_id=project,
        environment=_variables(environment),
        priority=priority,
        context_requirements=requirements,
    )
    if quiet:
        click.echo(spawned.agent_id)
        if not wait:
            return
    path = f"/api/agents/{segment(spawned.agent_id)}"
    status = _until_ended(client, spawned.agent_id) if wait else client.call("GET", path, shape=AgentStatus)
    if not quiet:
        _show(status, format_)
    if wait and status["state"] != AgentState.COMPLETED:
        raise SystemExit(REFUSED)


@agent.command("list")
@click.option(
    "--state", "states", multiple=True, type=click.Choice([str(known) for known in AgentState]), help="May be repeated."
)
@click.option("--type", "agent_type", help="Only agents of this type.")
@click.option("--issue", "issue_id", help="Only agents of this issue.")
@project_option
@format_option
@with_client
def list_(
    client: Client,
    states: tuple[str, ...],
    agent_type: str | None,
    issue_id: str | None,
    project: str | None,
    format_: Format,
) -> None:
    """List agents, newest first.

    \b
    Example: sidecar agent list --state running --format csv
    """
    answer = client.call("GET", "/api/agents", query={"project_id": project}, shape=AgentsAnswer)
    wanted = [
        row
        for row in answer["agents"]
        if (not states or row["state"] in states)
        and (agent_type is None or row["agent_type"] == agent_type)
        and (issue_id is None or row["issue_id"] == issue_id)
    ]
    answer |= {"agents": wanted, "total": len(wanted)}
    show_rows(answer, wanted, AGENT_COLUMNS, format_, nothing="no agents")


@agent.command()
@click.argument("agent_id")
@format_option
@with_client
def show(client: Client, agent_id: str, format_: Format) -> None:
    """Show an agent: its state, process, restarts and last error."""
    _show(client.call("GET", f"/api/agents/{segment(agent_id)}", shape=AgentStatus), format_)


@agent.command()
@click.argument("agent_id")
@click.option("--timeout", type=click.FloatRange(min=0), help="Seconds from SIGTERM to SIGKILL.  [default: profile's]")
@click.option("--force", is_flag=True, help="SIGKILL at once.")
@format_option
@with_client
def kill(client: Client, agent_id: str, timeout: float | None, force: bool, format_: Format) -> None:
    """Stop an agent and every process it has started.

    Returns when they have ended.

    \b
    Example: sidecar agent kill python-specialist-1f0c --timeout 30
    """
    status = client.call(
        "DELETE",
        f"/api/agents/{segment(agent_id)}",
        query={"timeout": timeout, "force": force or None},
        timeout_s=ANSWER_WITHIN_S + (timeout or 0.0),
        shape=AgentStatus,
    )
    _show(status, format_)


@agent.command()
@click.argument("agent_id")
@format_option
@with_client
def restart(client: Client, agent_id: str, format_: Format) -> None:
    """Stop an agent if it runs, and start its next incarnation."""
    path = f"/api/agents/{segment(agent_id)}/restart"
    _show(client.call("POST", path, body={}, shape=AgentStatus), format_)


@agent.command()
@click.argument("agent_id")
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), default="stdout", show_default=True)
@click.option(
    "--tail", type=click.IntRange(min=0), default=200, show_default=True, help="Number of lines to start with."
)
@click.option("-f", "--follow", is_flag=True, help="Follow until the agent has ended, also through restarts.")
@click.option("--raw", is_flag=True, help="Print the log as written, including control sequences.")
@with_client
def logs(client: Client, agent_id: str, stream: Any, tail: int, follow: bool, raw: bool) -> None:
    """Print the output of an agent.

    With --follow, it continues after a restart of the sidecar. Without --raw, colours are left out and other control
    sequences are shown as escapes such as \\x1b.

    \b
    Example: sidecar agent logs python-specialist-1f0c --stream stderr -f
    """
    log = LogText()

    def show_part() -> None:
        if raw:
            click.echo(
                part.data, nl=False, color=True
            )  # else click takes escape sequences out where that is no terminal
        else:
            click.echo(log.add(part.data, is_last=part.ended or not follow), nl=False)

    part = client.logs(agent_id, stream=stream, tail=tail)
    show_part()
    patience = Patience(client)

    def read_on() -> LogPart:
        return client.logs(agent_id, stream=stream, offset=part.next_offset, timeout_s=LOG_POLL_S)

    with suppress(KeyboardInterrupt):
        while follow and not part.ended:
            part = patience.ask(read_on)
            show_part()


@agent.command()
@click.argument("agent_id")
@format_option
@with_client
def contexts(client: Client, agent_id: str, format_: Format) -> None:
    """List the latest contexts that an agent received, newest first.

    The sidecar keeps the list in memory: it is empty after a restart.
    """
    answer = client.call("GET", f"/api/agents/{segment(agent_id)}/contexts", shape=ContextsAnswer)
    show_rows(answer, answer["contexts"], CONTEXT_COLUMNS, format_, nothing="no contexts")


def _variables(pairs: tuple[str, ...]) -> dict[str, str]:
    variables = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--env")
        variables[name] = value
    return variables


def _until_ended(client: Client, agent_id: str) -> dict[str, Any]:
    """Follow the agent's own events; each one says that looking again is worth it."""
    of_agent = f"agent_id:{agent_id}"
    cursor = "earliest"
    patience = Patience(client)

    def look() -> dict[str, Any]:
        path = f"/api/agents/{segment(agent_id)}"
        status: dict[str, Any] = client.call("GET", path, shape=AgentStatus)
        return status

    def wait() -> Batch:
        topics, project = ("system", "error"), status["project_id"]
        return client.wait(topics=topics, filter=of_agent, since=cursor, timeout_s=LOG_POLL_S, project_id=project)

    last_reason = None
    while True:
        status = patience.ask(look)
        if AgentState(status["state"]).has_ended:
            return status
        if (waits_for := _waits_for(status)) not in (None, last_reason):
            last_reason = waits_for
            click.echo(f"{text(agent_id)} is {text(status['state'])}: it waits for {text(waits_for)}", err=True)
        cursor = patience.ask(wait).next_cursor or cursor


def _waits_for(status: dict[str, Any]) -> str | None:
    """The reason why a queued or blocked agent waits, in words."""
    waiting_for = status.get("waiting_for")
    return waiting_for["text"] if waiting_for else None


def _show(status: dict[str, Any], format_: Format) -> None:
    fields = [
        ("agent", text(status["agent_id"])),
        ("type", text(status["agent_type"])),
        ("issue", text(status["issue_id"])),
        ("project", text(status["project_id"])),
        ("state", state(status["state"])),
        ("process", as_it_is(status["process_id"])),
        ("incarnation", f"{status['incarnation']}, {plural(status['restarts'], 'restart')}"),
        ("started", clock(status["started_at"])),
        ("ended", clock(status["ended_at"])),
        ("up", seconds(status["uptime_seconds"])),
        ("last exit", " ".join(str(part) for part in (status["cause"], status["exit_code"]) if part is not None)),
        ("task", text(status["task"])),
        ("waits for", text(_waits_for(status))),
        ("last error", text(status["last_error"])),
    ]
    show_fields(status, [(name, shown) for name, shown in fields if shown], format_)
