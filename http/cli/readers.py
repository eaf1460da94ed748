"""Finds the readers of an event that was just published: waiting agents, later readers, and spawned agents."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec

from ...state.errors import InvalidFilter, NotFound, PermissionDenied
from ...state.events.filter import compile_filter
from ...state.models import AgentState, Event
from ...state.typed import convert
from ..client.client import Client
from .shapes import AgentsAnswer, EventsAnswer, MailboxesAnswer

_Mailbox = dict[str, Any]


def mailboxes(client: Client, project: str | None) -> list[_Mailbox] | None:
    """The mailboxes before the event is published, when its readers still wait; None without an operator's token."""
    with suppress(PermissionDenied):
        found: list[_Mailbox] = client.call(
            "GET", "/api/mailboxes", query={"project_id": project}, shape=MailboxesAnswer
        )["mailboxes"]
        return found
    return None


def readers_of(
    client: Client, published: Any, event_type: str, before: list[_Mailbox], project: str | None
) -> list[str]:
    """Three texts: who was waiting, who will read it at the next wait, what was spawned. "" for nobody."""
    query = {"project_id": project}
    # The Spawner got the event before the publisher got its answer, and handles messages in order: it has acted by now.
    agents = client.call("GET", "/api/agents", query=query, shape=AgentsAnswer)["agents"]
    ended = {agent["agent_id"] for agent in agents if AgentState(agent["state"]).has_ended}
    newest = {**query, "type": event_type, "limit": 1000}
    listed = client.call("GET", "/api/events", query=newest, shape=EventsAnswer)["events"]
    raw = next((event for event in listed if event["event_id"] == published["event_id"]), None)
    if raw is None:
        raise NotFound(f"event {published['event_id']} is no longer retained")
    event = _event(raw)
    asking = [mailbox for mailbox in before if _asks_for(mailbox, event)]
    waited = {mailbox["agent_id"] for mailbox in asking if mailbox["waited_on"]}
    reads = {mailbox["agent_id"] for mailbox in asking} - waited - ended
    spawned = [
        f"{agent['agent_id']} ({agent['state']})" for agent in agents if agent.get("triggered_by") == event.event_id
    ]
    return [_names(waited), _names(reads), _names(spawned)]


def _event(raw: dict[str, Any]) -> Event:
    fields = {**raw, "ttl_s": raw["ttl_seconds"], "published_at": raw["timestamp"]}
    data = msgspec.Raw(msgspec.json.encode(raw["data"]))
    return msgspec.structs.replace(convert({**fields, "data": msgspec.Raw(b"{}")}, Event, strict=False), data=data)


def _asks_for(mailbox: _Mailbox, event: Event) -> bool:
    types, topics = mailbox["event_types"], mailbox["topics"]
    if mailbox["project_id"] != event.project_id:
        return False
    if (types and event.event_type not in types) or (topics and event.topic not in topics):
        return False
    with suppress(InvalidFilter):  # its canonical form may be longer than a filter that a client sends
        return compile_filter(mailbox["filter"]).matches(event)
    return True


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
