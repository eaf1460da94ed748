"""The records that pass between the layers, the journal and the wire. Frozen; names are those of the protocol.

Times are aware UTC. Payloads that belong to agents (`Event.data`, `StoredResult.result`) stay the JSON bytes they
came as: they are never re-shaped, and the garbage collector does not walk them.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Literal, NewType

import msgspec

from .errors import InvalidRequest

AgentId = NewType("AgentId", str)
EventId = NewType("EventId", str)
ResultId = NewType("ResultId", str)

Priority = Literal["low", "normal", "high"]  # of an event, and of a spawn request in the queue
ResultStatus = Literal["success", "failed", "partial"]

IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")


def identifier(value: str, field: str) -> str:
    """`value` if it is an identifier of the protocol, else InvalidRequest naming `field`."""
    if IDENTIFIER.fullmatch(value) is None:
        raise InvalidRequest(
            f"{field} is not an identifier",
            field=field,
            expected="1 to 128 of A-Z a-z 0-9 . _ : @ - , the first a letter or digit",
        )
    return value


class AgentState(StrEnum):
    """Where an agent is in its life. The transitions are in supervision/lifecycle.py."""

    QUEUED = "queued"
    BLOCKED = "blocked"
    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing_off"
    STOPPING = "stopping"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def has_ended(self) -> bool:
        return self in (AgentState.COMPLETED, AgentState.FAILED, AgentState.STOPPED)


class ExitCause(StrEnum):
    """Why the last process of an agent ended."""

    EXIT = "exit"
    SIGNAL = "signal"
    OOM = "oom"
    MEMORY = "memory"
    TIMEOUT = "timeout"
    HEARTBEAT = "heartbeat"
    START_FAILED = "start_failed"
    KILLED = "killed"


class AgentSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Which agent to run, as the spawn request said it. What runs is its type's profile, never text from here.

    chain: the agents that caused this one, by a spawn or an event, each caused by the one before it.
    """

    agent_id: AgentId
    agent_type: str
    issue_id: str
    project_id: str
    task: str = ""
    context_requirements: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    priority: Priority = "normal"
    traceparent: str | None = None
    chain: tuple[AgentId, ...] = ()


class ProcessIdentity(msgspec.Struct, frozen=True):
    """One process, for ever: a pid is used again, but not within the same boot with the same start time.

    start_ticks: field 22 of /proc/<pid>/stat, clock ticks since boot; it does not follow the wall clock.
    """

    boot_id: str
    pid: int
    start_ticks: int


class DependencyState(msgspec.Struct, frozen=True, kw_only=True):
    """A type that a queued agent depends on. state: of its youngest agent in the issue; None if there is none."""

    agent_type: str
    state: AgentState | None


class WaitingFor(msgspec.Struct, frozen=True, kw_only=True):
    """The reason why an agent has not been started yet. text: the same for people.

    place: in the queue, 1 is next; None while it waits for others. is_deadlock: every slot is held by an agent that has
    spawned one that waits for a slot.
    """

    what: Literal["slot", "rate", "dependency", "shutdown"]
    text: str
    place: int | None = None
    dependencies: tuple[DependencyState, ...] = ()
    is_deadlock: bool = False


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One agent as an operator sees it. uptime: of the running incarnation, or of the last one.

    requested_by: who spawned it, "sidecar" for a trigger; triggered_by: the event that fired that trigger.
    """

    agent_id: AgentId
    agent_type: str
    issue_id: str
    project_id: str
    state: AgentState
    process_id: int | None
    exit_code: int | None
    incarnation: int
    restarts: int
    cause: ExitCause | None
    waiting_for: WaitingFor | None
    started_at: datetime | None
    ended_at: datetime | None
    uptime_seconds: float
    cpu_percent: float
    memory_mb: float
    task: str
    last_error: str | None
    requested_by: AgentId
    triggered_by: EventId | None


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One published event. `event_id` sorts in log order, also across restarts.

    gc=False: ten thousand of these are kept, and none can be part of a cycle; walking them was the bus's whole
    p99 tail. data: a JSON object, as bytes.
    """

    event_id: EventId
    project_id: str
    event_type: str
    publisher: str
    publisher_type: str
    topic: str
    data: msgspec.Raw
    correlation_id: str | None
    priority: Priority
    ttl_s: int
    published_at: datetime
    traceparent: str | None = None


class StoredResult(msgspec.Struct, frozen=True, kw_only=True):
    """One result as it was stored. result: the JSON object the agent sent, as bytes."""

    id: ResultId
    project_id: str
    issue_id: str
    agent_id: AgentId
    agent_type: str
    status: ResultStatus
    result: msgspec.Raw
    timestamp: datetime
    stored_at: datetime
    traceparent: str | None = None


class NextAgent(msgspec.Struct, frozen=True, kw_only=True):
    """The agent type that should act on a result."""

    agent_type: str
    priority: Literal["high", "medium", "low"]
    reason: str


_EVENT_ID = re.compile(r"evt-([0-9]{16})")


def event_id(seq: int) -> EventId:
    """The id of the event at place `seq` of the log; ids sort as their places do."""
    return EventId(f"evt-{seq:016d}")


def event_seq(value: str) -> int | None:
    """The place in the log that an event id names, or None if it is no event id."""
    match = _EVENT_ID.fullmatch(value)
    return int(match.group(1)) if match else None
