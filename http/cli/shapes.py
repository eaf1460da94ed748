"""What the commands need of the server's answers, as types: an answer of another shape is refused before it is used.

Only for checking: what is shown is the whole answer, also what is not named here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...state.models import AgentStatus
from ..client.records import Gap, ReceivedEvent

Row = dict[str, Any]


class AgentsAnswer(msgspec.Struct):
    """A list of agents."""

    agents: list[AgentStatus]


class ContextsAnswer(msgspec.Struct):
    """A list of contexts that an agent was given."""

    contexts: list[Row]


class ActorRow(msgspec.Struct):
    """One actor of the sidecar."""

    name: str
    state: str
    failures: int = 0
    restarts: int = 0
    mailbox_depth: int = 0


class ActorsAnswer(msgspec.Struct):
    """A list of the sidecar's actors."""

    actors: list[ActorRow]


class AuditAnswer(msgspec.Struct):
    """A list of audit records."""

    records: list[Row]


class EventsAnswer(msgspec.Struct):
    """A page of events."""

    events: list[ReceivedEvent]
    total: int
    next_cursor: str | None = None
    gap: Gap | None = None


class MailboxRow(msgspec.Struct):
    """One mailbox: whose it is and what it asks for."""

    agent_id: str
    project_id: str
    event_types: list[str] | None
    topics: list[str] | None
    filter: str
    waited_on: bool


class MailboxesAnswer(msgspec.Struct):
    """A list of mailboxes."""

    mailboxes: list[MailboxRow]


class DeadLetterRow(msgspec.Struct):
    """One dead letter."""

    event: ReceivedEvent


class DeadLettersAnswer(msgspec.Struct):
    """A list of dead letters."""

    dead_letters: list[DeadLetterRow]


class ReplayAnswer(msgspec.Struct):
    """How many mailboxes a dead letter was given to again."""

    mailboxes: int


class LoginAnswer(msgspec.Struct):
    """The path that logs a browser in."""

    path: str


class FileRow(msgspec.Struct):
    """A file of a context."""

    path: str
    truncated: bool
    excerpts: list[ExcerptRow] = []


class ExcerptRow(msgspec.Struct):
    """The lines of a file that are sent."""

    start_line: int
    end_line: int


class TreeSection(msgspec.Struct, frozen=True):
    """The project's tree."""

    total_files: int = 0


class ContextSections(msgspec.Struct):
    """The sections of a context."""

    relevant_files: list[FileRow] = []
    project_structure: TreeSection = TreeSection()
    git_context: Row = {}
    previous_agent_outputs: list[Any] = []
    omitted: list[Row] = []
    omitted_counts: dict[str, int] = {}


class ContextParts(msgspec.Struct):
    """A context."""

    context: ContextSections
    truncated: bool
    truncation_strategy: str
    file_count: int
    total_size_bytes: int
    cache_hit: bool
    query: Row = {}
    warnings: list[str] = []


class ClearedAnswer(msgspec.Struct):
    """What was removed from the cache of contexts."""

    entries_removed: int
    bytes_freed: int


class HealthChecks(msgspec.Struct):
    """The checks of a sidecar."""

    storage: str
    event_bus: str
    memory_usage_mb: float
    cpu_usage_percent: float
    disk_space_available_mb: float


class HealthAnswer(msgspec.Struct):
    """The health of a sidecar."""

    status: str
    version: str
    uptime_seconds: float
    checks: HealthChecks


class AgentCounts(msgspec.Struct):
    """Counts of agents."""

    active: int
    queued: int
    completed: int
    failed: int
    restarts_total: int
    by_type: dict[str, int]


class EventCounts(msgspec.Struct):
    """Counts of events."""

    total_published: int
    total_delivered: int
    active_subscriptions: int
    dead_letter_queue_size: int


class StorageCounts(msgspec.Struct):
    """Counts of what is stored and cached."""

    results_stored: int
    total_size_mb: float
    context_cache_entries: int
    cache_hit_rate: float


class RequestRates(msgspec.Struct):
    """Rates and times of requests."""

    requests_per_second: float
    avg_response_time_ms: float
    p99_response_time_ms: float
    errors_per_minute: float


class StatusAnswer(msgspec.Struct):
    """The numbers of a sidecar."""

    agents: AgentCounts
    events: EventCounts
    storage: StorageCounts
    performance: RequestRates
