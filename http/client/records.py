"""The answers of the API as typed records. Unknown fields are ignored, as the protocol says."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from ...state.models import AgentId, AgentState, AgentStatus, EventId, NextAgent, Priority, ResultId, ResultStatus

__all__ = ["AgentStatus", "NextAgent"]


class ReceivedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as delivered; `sdk.Event`. replayed: older than the agent. redelivered: delivered before."""

    event_id: EventId
    event_type: str
    publisher: str
    publisher_type: str
    topic: str
    data: dict[str, Any]
    timestamp: datetime
    correlation_id: str | None = None
    priority: Priority = "normal"
    replayed: bool = False
    redelivered: bool = False


class Gap(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """Events that were removed before this mailbox got them.

    reason: "count", "bytes", "age" or "ttl": retention removed them. "restart": the sidecar's log lost its newest
    events, in a power loss or because an older backup was restored.
    """

    from_: EventId
    to: EventId
    dropped_at_most: int
    reason: str


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a wait: events, oldest first; none if the time-out came first.

    superseded: a newer wait on the same mailbox took over, so this one got nothing.
    """

    events: tuple[ReceivedEvent, ...] = ()
    more_available: bool = False
    next_cursor: EventId | None = None
    timeout: bool = False
    superseded: bool = False
    gap: Gap | None = None


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """An event that was published. subscribers_notified: the agents that wait for it, or have a mailbox for it."""

    event_id: EventId
    topic: str
    subscribers_notified: tuple[AgentId, ...] = ()
    ttl_seconds: int | None = None


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A result that was stored. next_agents: the agents that should act on it, by the profile of the agent's type."""

    id: ResultId
    storage_path: str
    next_agents: tuple[NextAgent, ...] = ()
    event_id: EventId | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A stored result. result: the object exactly as the agent sent it."""

    id: ResultId
    project_id: str
    issue_id: str
    agent_id: AgentId
    agent_type: str
    status: ResultStatus
    result: dict[str, Any]
    timestamp: datetime


class ResultPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of results, newest first. next_cursor: of the next older page, or None."""

    results: tuple[Result, ...]
    total: int
    next_cursor: str | None = None


class Spawned(msgspec.Struct, frozen=True, kw_only=True):
    """An agent that was spawned, or queued. spawned: False while it is queued behind others."""

    agent_id: AgentId
    spawned: bool
    state: AgentState
    process_id: int | None = None


class LogPart(msgspec.Struct, frozen=True, kw_only=True):
    """Part of an agent's log. next_offset: where to read on, in bytes. ended: no more will come."""

    data: str
    offset: int
    next_offset: int
    ended: bool = False


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a context. size: of the whole file in bytes, even if `content` was cut."""

    path: str
    content: str
    size: int = 0
    language: str | None = None
    last_modified: datetime | None = None
    checksum: str = ""
    truncated: bool = False


class Structure(msgspec.Struct, frozen=True, kw_only=True):
    """The project's tree. files, directories: paths below the root."""

    root: str = ""
    files: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    total_files: int = 0
    total_size_bytes: int = 0


class PreviousOutput(msgspec.Struct, frozen=True, kw_only=True):
    """The result of another agent."""

    agent: str
    agent_type: str = ""
    timestamp: datetime | None = None
    status: str = ""
    decision: str | None = None
    decisions: tuple[Any, ...] = ()
    files_affected: tuple[Any, ...] = ()
    next_steps: tuple[Any, ...] = ()


class Sections(msgspec.Struct, frozen=True, kw_only=True):
    """The sections of a context, as on the wire."""

    project_structure: Structure = Structure()
    relevant_files: tuple[File, ...] = ()
    git_context: dict[str, Any] = {}
    previous_agent_outputs: tuple[PreviousOutput, ...] = ()
    metadata: dict[str, Any] = {}
    omitted: Any = ()


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """The context of an agent. `context.context` has the shape of the wire; the properties are shorter."""

    issue_id: str
    agent_type: str
    context: Sections
    truncated: bool = False
    truncation_strategy: str = "none"
    total_size_bytes: int = 0
    file_count: int = 0
    cache_hit: bool = False

    @property
    def files(self) -> tuple[File, ...]:
        """The files that matter, most relevant first."""
        return self.context.relevant_files

    @property
    def structure(self) -> Structure:
        return self.context.project_structure

    @property
    def git(self) -> dict[str, Any]:
        return self.context.git_context

    @property
    def outputs(self) -> tuple[PreviousOutput, ...]:
        return self.context.previous_agent_outputs

    @property
    def metadata(self) -> dict[str, Any]:
        return self.context.metadata
