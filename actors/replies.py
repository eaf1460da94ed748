"""The actors' answers: the records in the brackets of `messages.py`. Frozen, like the messages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from ..state.events.gap import EventGap
from ..state.events.mailbox import Delivery, MailboxKey
from ..state.identity import Token
from ..state.models import (
    AgentId,
    AgentStatus,
    Event,
    EventId,
    NextAgent,
    ResultId,
    StoredResult,
)


class SpawnedAgent(msgspec.Struct, frozen=True):
    """token: what the agent got as JWT_TOKEN; None only while the agent is queued. at: when this was so: a repeat with
    the same idempotency key is told the same."""

    status: AgentStatus
    at: datetime
    token: Token | None
    context_injected: bool


class LogChunk(msgspec.Struct, frozen=True):
    """A part of a log. data: its bytes from `offset`; next_offset: where to read on; ended: no more will come.

    line_before: the start of the line that `offset` stands in. A secret may begin in it.
    """

    data: bytes
    offset: int
    next_offset: int
    ended: bool
    line_before: bytes = b""


class AgentNumbers(msgspec.Struct, frozen=True):
    """avg_execution_time_ms: over incarnations that ended since the sidecar started; 0 when there are none.

    by_state: how many agents are in each state, with those long ended.
    """

    active: int
    completed: int
    failed: int
    queued: int
    spawned_total: int
    restarts_total: int
    by_type: Mapping[str, int]
    avg_execution_time_ms: float
    by_state: Mapping[str, int] = msgspec.field(default_factory=dict)


class PublishedEvent(msgspec.Struct, frozen=True):
    """subscribers: agents that wait for the event now or whose profile subscribes to its topic, sorted."""

    event_id: EventId
    topic: str
    ttl_s: int
    subscribers: tuple[AgentId, ...]
    published_at: datetime


class AnswerId(msgspec.Struct, frozen=True):
    """Which answer of which mailbox, so that its fate can be told."""

    mailbox: MailboxKey
    number: int


class EventBatch(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a wait. next_cursor: `since` for reading on without a mailbox.

    answer: what to name in AnswerSettled; None where nothing depends on the answer's fate.
    """

    deliveries: tuple[Delivery, ...]
    more_available: bool
    next_cursor: EventId
    timed_out: bool
    superseded: bool = False
    gap: EventGap | None = None
    answer: AnswerId | None = None


class EventPage(msgspec.Struct, frozen=True):
    """A page of events, newest first. next_cursor: `before` of the next older page, or None. total: of all pages.

    gap: events after `since` that are gone.
    """

    events: tuple[Event, ...]
    next_cursor: EventId | None
    total: int
    gap: EventGap | None = None


class MailboxStatus(msgspec.Struct, frozen=True):
    """A mailbox as operators see it.

    position: the last event taken. lag: matching events after it; 0 when the agent has ended.
    """

    project_id: str
    agent_id: AgentId
    event_types: tuple[str, ...]
    topics: tuple[str, ...]
    filter: str
    consumer: str
    position: EventId
    lag: int
    deliveries: int
    is_waited_on: bool
    gap: EventGap | None
    last_used_at: datetime


class EventNumbers(msgspec.Struct, frozen=True):
    """queue_depth: events not yet taken, over all mailboxes. max_lag: of the mailbox with most of them.

    avg_delivery_time_ms: publish to hand-out.
    """

    total_published: int
    total_delivered: int
    active_subscriptions: int
    queue_depth: int
    avg_delivery_time_ms: float
    dead_letters: int
    durability: Literal["os", "commit"]
    mailboxes: int = 0
    max_lag: int = 0


class AcceptedResult(msgspec.Struct, frozen=True):
    """A result that is on the disk. next_agents: the agent types that should act on it."""

    result_id: ResultId
    storage_path: str
    next_agents: tuple[NextAgent, ...]
    event_id: EventId
    stored_at: datetime


class ResultListing(msgspec.Struct, frozen=True):
    """Newest first. total: matches on all pages. next_cursor: of the next older page, or None."""

    results: tuple[StoredResult, ...]
    next_cursor: str | None
    total: int


class ResultNumbers(msgspec.Struct, frozen=True):
    """total_bytes: of the results' JSON, not of the files that hold them. storage_path: of the whole store.

    problem: why results cannot be stored just now, or None. quarantined: files that keep a torn tail, cut at the start.
    """

    results_stored: int
    total_bytes: int
    storage_path: str
    problem: str | None = None
    quarantined: tuple[str, ...] = ()


class ContextBundle(msgspec.Struct, frozen=True):
    """A context ready to send. body: the whole JSON answer, but None when `if_none_match` named this very bundle."""

    body: bytes | None
    etag: str
    cache_hit: bool = False


class ContextRequested(msgspec.Struct, frozen=True, kw_only=True):
    """One request for a context, once it was answered. at: when it came. query, files, requirements: as it asked.

    outcome: sent, unchanged (the client had it already), or the code of the error it was answered with. size_bytes and
    file_count: of the context, 0 when there is none.
    """

    at: datetime
    issue_id: str
    agent_type: str
    query: str
    files: tuple[str, ...]
    requirements: tuple[str, ...]
    outcome: str
    took_ms: float
    size_bytes: int = 0
    file_count: int = 0
    truncation_strategy: str = "none"
    cache_hit: bool = False


class ContextRequests(msgspec.Struct, frozen=True):
    """requests: newest first. since: nothing from before is known."""

    requests: tuple[ContextRequested, ...]
    since: datetime


class ContextCleared(msgspec.Struct, frozen=True):
    """The answer to ClearContext."""

    entries_removed: int
    bytes_freed: int


class ContextNumbers(msgspec.Struct, frozen=True):
    """cache_hit_rate: hits / (hits + misses) since the start, 0.0 before the first request."""

    cache_entries: int
    cache_bytes: int
    cache_hit_rate: float
