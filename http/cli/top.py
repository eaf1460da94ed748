"""`sidecar top`: the fleet as it is, again and again, until interrupted."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from ..client.client import Client
from ..client.records import Batch
from .agents import AGENT_COLUMNS
from .connection import with_client
from .options import project_option
from .reconnect import Patience
from .shapes import ActorsAnswer, AgentsAnswer, EventsAnswer, HealthAnswer, StatusAnswer
from .terminal import (
    Row,
    clock,
    console,
    event_row,
    on_terminal,
    plural,
    seconds,
    sentence_markup,
    show,
    state,
    table_of,
    text,
)

# What runs stands above what waits, and that above what has ended.
_ORDER = ("running", "starting", "stopping", "backing_off", "queued", "blocked", "failed", "stopped", "completed")
_MIN_EVENTS = 5


@click.command()
@click.option("--interval", type=click.FloatRange(min=0.2), default=1.0, show_default=True, metavar="SECONDS")
@project_option
@with_client
def top(client: Client, interval: float, project: str | None) -> None:
    """Watch agents, actors, numbers and events, live.

    Ctrl-C ends it. It waits while the sidecar restarts. If the output is not a terminal, it prints the state once.

    \b
    Example: sidecar top --interval 0.5
    """
    events: deque[Row] = deque(maxlen=50)
    query = {"limit": events.maxlen, "project_id": project}
    listed = client.call("GET", "/api/events", query=query, shape=EventsAnswer)["events"]
    events.extend(reversed(listed))
    if not on_terminal():
        show(_look(client, events, project, lines=10_000))
        return
    cursor = events[-1]["event_id"] if events else "earliest"
    out = console()
    with suppress(KeyboardInterrupt), Live(console=out, screen=True, auto_refresh=False) as live:
        # The terminal is ours: what is said of a lost server stands where the fleet did, until that is back.
        patience = Patience(client, say=lambda line: live.update(Text(line, style="bold red"), refresh=True))

        def wait() -> Any:
            query = {"since": cursor, "timeout": round(interval * 1000), "project_id": project}
            return client.call("GET", "/api/events/wait", query=query, shape=Batch)

        while True:
            look = patience.ask(lambda: _look(client, events, project, lines=out.height))
            live.update(look, refresh=True)
            batch = patience.ask(wait)
            events.extend(batch.get("events", ()))
            cursor = batch.get("next_cursor") or cursor


def _look(client: Client, events: deque[Row], project: str | None, *, lines: int) -> RenderableType:
    health, numbers = client.health(shape=HealthAnswer), client.status(shape=StatusAnswer)
    agents = client.call("GET", "/api/agents", query={"project_id": project}, shape=AgentsAnswer)["agents"]
    actors = client.call("GET", "/api/actors", shape=ActorsAnswer)["actors"]
    agents.sort(key=lambda row: (_ORDER.index(row["state"]), -row["cpu_percent"]))
    room = max(_MIN_EVENTS, lines - 8)
    shown = agents[: max(1, room - _MIN_EVENTS)]
    hidden = f"\n[dim]and {len(agents) - len(shown)} more[/]" if len(shown) < len(agents) else ""
    latest = list(events)[-max(_MIN_EVENTS, room - len(shown)) :]
    shown_events = [Text.from_markup(_event_line(event), overflow="ellipsis") for event in latest]
    for line in shown_events:
        line.no_wrap = True  # one line each
    return Group(
        Text.from_markup(_headline(client.url, health, numbers)),
        Text.from_markup(_actors_line(actors)),
        Text(),
        table_of(shown, AGENT_COLUMNS) if shown else Text("no agents"),
        Text.from_markup(hidden),
        *shown_events,
    )


def _headline(url: str, health: dict[str, Any], numbers: dict[str, Any]) -> str:
    checks, speed = health["checks"], numbers["performance"]
    return (
        f"[bold]sidecar[/] {url}  {state(health['status'])}  up {seconds(health['uptime_seconds'])}  "
        f"{checks['memory_usage_mb']:.0f} MB  {checks['cpu_usage_percent']:.0f} % CPU  "
        f"{speed['requests_per_second']:.1f} requests/s  p99 {speed['p99_response_time_ms']:.1f} ms  "
        f"{plural(numbers['agents']['active'], 'agent')} active  "
        f"{plural(numbers['events']['total_published'], 'event')} since the start  "
        f"{plural(numbers['storage']['results_stored'], 'result')}"
    )


def _actors_line(actors: list[dict[str, Any]]) -> str:
    """restarts and mailbox only where they say something."""
    parts = []
    for actor in actors:
        remarks = [plural(actor[f"{name}s"], name) for name in ("restart", "failure") if actor.get(f"{name}s")]
        if actor.get("mailbox_depth"):
            remarks.append(f"{actor['mailbox_depth']} waiting")
        parts.append(f"{actor['name']} {state(actor['state'])}" + (f" ({', '.join(remarks)})" if remarks else ""))
    return "[dim]actors[/] " + "  ".join(parts)


def _event_line(event: Row) -> str:
    row = event_row(event)
    return (
        f"[dim]{clock(event['timestamp'])}[/]  {text(event['event_type']):<26} {text(row['publisher']):<30} "
        f"{sentence_markup(row['data'])}"
    )
