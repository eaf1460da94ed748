"""`sidecar stop|status|token|actors|dashboard`: a server that runs."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import click

from ...state.errors import InvalidRequest
from ..client.calls import segment
from ..client.client import Client
from .agent_types import class_here
from .connection import (
    NO_SERVER,
    REFUSED,
    format_option,
    storage_of,
    storage_option,
    with_client,
)
from .output import Column, Format, number, plural, seconds, show_fields, show_json, show_rows, state, text
from .stderr import tell

STOPPED_WITHIN_S = 15.0  # a server drains for up to 10 s

ACTOR_COLUMNS = (
    Column("ACTOR", "name"),
    Column("STATE", "state", state),
    Column("MAILBOX", "mailbox_depth", number(0), right=True),
    Column("PROCESSED", "processed", number(0), right=True),
    Column("BUSY", "busy_ms", number(0, " ms"), right=True),
    Column("FAILURES", "failures", number(0), right=True),
    Column("RESTARTS", "restarts", number(0), right=True),
    Column("LAST ERROR", "last_error", may_shrink=True),
)


@click.command()
@storage_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=STOPPED_WITHIN_S,
    show_default=True,
    help="Seconds to wait for it to exit.",
)
def stop(storage: Path | None, timeout: float) -> None:
    """Stop the sidecar of the project here, and its agents.

    Returns when it has ended.

    \b
    Example: sidecar stop --storage /srv/sidecar/shop
    """
    path = storage_of(storage)
    pid = holder_of_lock(path)
    if pid is None:
        tell(f"Error: no sidecar runs with storage {path}")
        raise SystemExit(NO_SERVER)
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError:
        tell(f"Error: process {pid} belongs to another user; only that user, or root, can stop it")
        raise SystemExit(REFUSED) from None
    except ProcessLookupError:
        pass  # it has just ended
    deadline = time.monotonic() + timeout
    while holder_of_lock(path) == pid:
        if time.monotonic() > deadline:
            tell(f"Error: process {pid} has not ended within {timeout:g} s")
            raise SystemExit(REFUSED)
        time.sleep(0.05)
    click.echo(f"stopped process {pid}")


def holder_of_lock(storage: Path) -> int | None:
    """The process that serves a storage directory, or None."""
    from ...state.journal.fs import lock_holder
    from ..storage import LOCK_FILE

    holder = lock_holder(storage / LOCK_FILE)
    return int(holder) if holder else None


@click.command()
@format_option
@with_client
def status(client: Client, format_: Format) -> None:
    """Show the checks and the numbers of the sidecar. Exit code 1 when a check is not healthy.

    \b
    Example: sidecar status --format json | jq .status.performance
    """
    health = client.health()
    numbers = client.status()
    answer = {"health": health, "status": numbers}
    if format_ == "json":
        show_json(answer)
    else:
        show_fields(answer, _status_fields(client.url, health, numbers), format_)
    if health["status"] != "healthy":
        raise SystemExit(REFUSED)


def _status_fields(url: str, health: dict[str, Any], numbers: dict[str, Any]) -> list[tuple[str, str]]:
    checks, agents, events = health["checks"], numbers["agents"], numbers["events"]
    storage, speed = numbers["storage"], numbers["performance"]
    by_type = ", ".join(f"{count} {name}" for name, count in agents["by_type"].items())
    return [
        ("sidecar", f"{url}, version {health['version']}, up {seconds(health['uptime_seconds'])}"),
        (
            "health",
            f"{state(health['status'])} (storage {state(checks['storage'])}, events {state(checks['event_bus'])})",
        ),
        ("process", f"{checks['memory_usage_mb']:.0f} MB, {checks['cpu_usage_percent']:.0f} % CPU"),
        (
            "agents",
            (
                f"{agents['active']} active, {agents['queued']} queued, {agents['completed']} completed, "
                f"{agents['failed']} failed, {plural(agents['restarts_total'], 'restart')}"
            ),
        ),
        ("spawned", text(by_type or "none")),
        (
            "events",
            (
                f"{events['total_published']:,} published and {events['total_delivered']:,} delivered since the start, "
                f"{events['active_subscriptions']} waiting, {plural(events['dead_letter_queue_size'], 'dead letter')}"
            ),
        ),
        ("results", f"{storage['results_stored']:,} stored, {storage['total_size_mb']:.1f} MB"),
        ("context", f"{storage['context_cache_entries']} cached, {storage['cache_hit_rate']:.0%} hits since the start"),
        (
            "requests",
            (
                f"in the last minute {speed['requests_per_second']:.1f}/s, "
                f"{speed['avg_response_time_ms']:.1f} ms on average, p99 {speed['p99_response_time_ms']:.1f} ms, "
                f"{plural(round(speed['errors_per_minute']), 'error')}/min"
            ),
        ),
        ("disk", f"{checks['disk_space_available_mb']:,.0f} MB free"),
    ]


@click.command()
@storage_option
@click.option("--operator", is_flag=True, help="A token that may do everything, in every project.")
@click.option("--agent-type", help="Such as python-specialist; decides what the token may do.")
@click.option("--agent-id", help="[default: the agent type; operator]")
@click.option("--class", "agent_class", help="Instead of the class of the agent type, such as coding.")
@click.option("--project", default="default", show_default=True)
@click.option("--issue", help="The issue the agent works on.")
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
    """Print a token and nothing else. No server is needed: anyone who can read the storage directory can mint tokens.

    \b
    Example: export JWT_TOKEN=$(sidecar token --operator --ttl 86400)
    Example: sidecar token --agent-type code-reviewer --agent-id ada --project shop
    """
    from ...state.identity import AgentClass
    from ..access.minting import mint_agent_token, mint_operator_token

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


@click.command()
@click.option("--print", "only_print", is_flag=True, help="Print the link, open nothing.")
@with_client
def dashboard(client: Client, only_print: bool) -> None:
    """Open the dashboard in a browser, already logged in.

    The link is good once, and for a minute; no token is put into an address.

    \b
    Example: sidecar dashboard --print
    """
    link = client.url + client.call("POST", "/api/auth/login-codes", body={})["path"]
    click.echo(link)
    if not only_print and click.launch(link) != 0:
        tell("no browser could be opened here; the link is good for a minute")


@click.command()
@click.option("--restart", "restarted", metavar="ACTOR", help="End this actor's loop; its supervisor starts the next.")
@format_option
@with_client
def actors(client: Client, restarted: str | None, format_: Format) -> None:
    """The actors inside: state, mailbox, failures, restarts.

    \b
    Example: sidecar actors --restart event_bus
    """
    if restarted is not None:
        client.call("POST", f"/api/actors/{segment(restarted)}/restart", body={})
    answer = client.call("GET", "/api/actors")
    show_rows(answer, answer["actors"], ACTOR_COLUMNS, format_, nothing="no actors")
