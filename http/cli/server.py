"""`sidecar status|actors|dashboard`: look at a running server."""

from __future__ import annotations

from typing import Any

import click

from ..client.calls import segment
from ..client.client import Client
from .commands import REFUSED
from .connection import with_client
from .options import format_option
from .shapes import ActorsAnswer, HealthAnswer, LoginAnswer, StatusAnswer
from .stderr import tell
from .terminal import Column, Format, number, plural, seconds, show_fields, show_json, show_rows, state, text

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
@format_option
@with_client
def status(client: Client, format_: Format) -> None:
    """Show the checks and the numbers of the sidecar. Exit code 1 if a check is not healthy.

    \b
    Example: sidecar status --format json | jq .status.performance
    """
    health = client.health(shape=HealthAnswer)
    numbers = client.status(shape=StatusAnswer)
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
@click.option("--print", "only_print", is_flag=True, help="Print the link and do not open a browser.")
@with_client
def dashboard(client: Client, only_print: bool) -> None:
    """Open the dashboard in a browser, already logged in.

    The link works once, within a minute. No token is put into a URL.

    \b
    Example: sidecar dashboard --print
    """
    link = client.url + client.call("POST", "/api/auth/login-codes", body={}, shape=LoginAnswer)["path"]
    click.echo(link)
    if not only_print and click.launch(link) != 0:
        tell("no browser could be opened here; the link is good for a minute")


@click.command()
@click.option("--restart", "restarted", metavar="ACTOR", help="Restart this actor.")
@format_option
@with_client
def actors(client: Client, restarted: str | None, format_: Format) -> None:
    """Show the sidecar's actors: state, mailbox, failures, restarts.

    \b
    Example: sidecar actors --restart event_bus
    """
    if restarted is not None:
        client.call("POST", f"/api/actors/{segment(restarted)}/restart", body={})
    answer = client.call("GET", "/api/actors", shape=ActorsAnswer)
    show_rows(answer, answer["actors"], ACTOR_COLUMNS, format_, nothing="no actors")
