"""The protocol between the outside and the four actors: every request with its reply type, every fact. Read this first.

Requests are answered with what stands in the brackets, or with a SidecarError. Everything here is frozen and holds
only frozen things: an actor gets the object itself, not a copy. `project_id=None` means every project (operators).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from ..state.events.dead_letters import DeadLetter
from ..state.events.store import SIDECAR
from ..state.identity import Caller, Token
from ..state.models import AgentId, AgentSpec, AgentStatus, EventId, Priority, ResultId, ResultStatus, StoredResult
from .agent_facts import AgentEnded, AgentSubscribed, TellTriggered
from .replies import (
    AcceptedResult,
    AgentNumbers,
    AnswerId,
    ContextBundle,
    ContextCleared,
    ContextNumbers,
    ContextRequests,
    EventBatch,
    EventNumbers,
    EventPage,
    LogChunk,
    MailboxStatus,
    PublishedEvent,
    ResultListing,
    ResultNumbers,
    SpawnedAgent,
)
from .runtime.asking import Fact, Request

# --- Spawner ---------------------------------------------------------------------------------------------------


class SpawnAgent(Request[SpawnedAgent], frozen=True, kw_only=True):
    """Start an agent of a type whose profile has a command, or queue it.

    idempotency_key: with project and spawner's id it names the call; a repeat gets the first answer. caused_by: of
    a spawn by a trigger: the chain of agents that led to its event, eldest first. Raises NoCommand, InvalidRequest
    (environment), IdempotencyConflict, ChainTooLong, TooManySpawns, QueueFull, SpawnFailed.
    """

    agent_type: str
    issue_id: str
    project_id: str
    requested_by: AgentId
    task: str = ""
    context_requirements: tuple[str, ...] = ()
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)
    priority: Priority = "normal"
    idempotency_key: str | None = None
    traceparent: str | None = None
    caused_by: tuple[AgentId, ...] = ()


class ListAgents(Request[tuple[AgentStatus, ...]], frozen=True, kw_only=True):
    """List agents, newest first."""

    project_id: str | None


class GetAgent(Request[AgentStatus], frozen=True, kw_only=True):
    """Raises NotFound, also for an agent of another project."""

    agent_id: AgentId
    project_id: str | None


class FindSpec(Request[AgentSpec | None], frozen=True, kw_only=True):
    """The spec of an agent, or None if the Spawner never started it (a token minted by hand)."""

    agent_id: AgentId


class StopAgent(Request[AgentStatus], frozen=True, kw_only=True):
    """Stop the agent's whole process tree. The answer comes when it has ended.

    timeout_s: from SIGTERM to SIGKILL; None: the profile's. force: SIGKILL at once. Raises NotFound, WrongState.
    """

    agent_id: AgentId
    project_id: str | None
    timeout_s: float | None = None
    force: bool = False


class RestartAgent(Request[AgentStatus], frozen=True, kw_only=True):
    """Stop the agent if it runs, start its next incarnation; answered when that has started."""

    agent_id: AgentId
    project_id: str | None


class RecordHeartbeat(Request[AgentStatus], frozen=True, kw_only=True):
    """Note that something was heard of the agent. Raises NotFound."""

    agent_id: AgentId


class ReadLogs(Request[LogChunk], frozen=True, kw_only=True):
    """Part of an agent's log: its last `tail` lines, or from `offset` on, then waiting up to `timeout_s` for more."""

    agent_id: AgentId
    project_id: str | None
    stream: Literal["stdout", "stderr"] = "stdout"
    tail: int = 200
    offset: int | None = None
    timeout_s: float = 0.0


class RefreshToken(Request[Token], frozen=True, kw_only=True):
    """A new token for the holder of one that is valid, or that expired within the grace and whose agent runs.

    The old one stays good for 60 s. Raises TokenExpired.
    """

    caller: Caller


class CountAgents(Request[AgentNumbers], frozen=True, kw_only=True):
    """How many agents there are and were."""

    project_id: str | None


class Drain(Request[int], frozen=True, kw_only=True):
    """Stop every agent, start none; answered with how many were stopped.

    leave: let them run, for the sidecar that is started next. By configuration that is so anyhow.
    """

    timeout_s: float
    leave: bool = False


SpawnerRequest = (
    SpawnAgent
    | ListAgents
    | GetAgent
    | FindSpec
    | StopAgent
    | RestartAgent
    | RecordHeartbeat
    | ReadLogs
    | RefreshToken
    | CountAgents
    | Drain
)

# --- EventBus --------------------------------------------------------------------------------------------------


class PublishEvent(Request[PublishedEvent], frozen=True, kw_only=True):
    """Append an event and wake the requests that wait for it. Answered when it survives the death of the sidecar.

    data: a JSON object. topic None: the standard topic of the type. ttl_s None: the configured retention.
    idempotency_key: a repeat by the same sender gets the first answer. sender: the agent whose token publishes it,
    whatever it calls itself as `publisher`; SIDECAR for the sidecar. traceparent: of the W3C trace that it is part of.
    Raises StorageUnavailable.
    """

    project_id: str
    event_type: str
    publisher: str
    publisher_type: str
    sender: str = SIDECAR
    data: msgspec.Raw
    topic: str | None = None
    correlation_id: str | None = None
    ttl_s: int | None = None
    priority: Priority = "normal"
    idempotency_key: str | None = None
    traceparent: str | None = None


class PublishTogether(Request[tuple[PublishedEvent, ...]], frozen=True, kw_only=True):
    """Append events in their order, with one commit. Each has an idempotency key, as in PublishEvent.

    After an error the first of them may have been appended, but none without those before it. Raises
    IdempotencyConflict, StorageUnavailable.
    """

    events: tuple[PublishEvent, ...]


class AwaitEvents(Request[EventBatch], frozen=True, kw_only=True):
    """Look at the log and, if nothing is there, wait: one message, so nothing can fall in between.

    event_types, topics: empty means every one; both given: both must hold. since: read from there and touch no
    mailbox; an event id, "earliest", "latest" or an RFC 3339 time. ack: everything up to that event is taken.
    is_proxied: the request came through a proxy, so that its connection tells nothing of an answer's fate.
    agent_since: when the caller's token was issued; the first spawn counts instead where the Spawner knows it.
    Raises InvalidFilter, EventsGone, RateLimited (too many mailboxes).
    """

    project_id: str
    agent_id: AgentId
    event_types: frozenset[str]
    topics: frozenset[str] = frozenset()
    filter: str = ""
    consumer: str = ""
    timeout_s: float
    limit: int = 100
    ack: EventId | None = None
    since: str | None = None
    strict: bool = False
    is_proxied: bool = False
    agent_since: datetime


class AnswerSettled(Fact, frozen=True, kw_only=True):
    """The fate of an answer with events: the client took it, or it was lost on the way."""

    answer: AnswerId
    taken: bool


class ListEvents(Request[EventPage], frozen=True, kw_only=True):
    """Read events of the log, newest first, without a mailbox.

    since, strict: as in AwaitEvents. Both bounds are exclusive.

    Raises InvalidFilter, InvalidRequest, EventsGone.
    """

    project_id: str | None
    topic: str | None = None
    event_type: str | None = None
    since: str | None = None
    before: EventId | None = None
    filter: str = ""
    limit: int = 100
    strict: bool = False


class ListMailboxes(Request[tuple[MailboxStatus, ...]], frozen=True, kw_only=True):
    """Every mailbox, with where it stands."""

    project_id: str | None


class ListDeadLetters(Request[tuple[DeadLetter, ...]], frozen=True, kw_only=True):
    """Newest first."""

    project_id: str | None


class ReplayDeadLetter(Request[int], frozen=True, kw_only=True):
    """Give the event again to every mailbox that gave up on it; answered with how many those are. Raises NotFound."""

    event_id: EventId
    project_id: str | None


class CountEvents(Request[EventNumbers], frozen=True, kw_only=True):
    """How many events, waiters and mailboxes there are."""

    project_id: str | None


class AnswerWaiters(Request[int], frozen=True, kw_only=True):
    """Shutdown: answer everyone who waits as if their time were up; answered with how many there were."""


EventBusRequest = (
    PublishEvent
    | PublishTogether
    | AwaitEvents
    | ListEvents
    | AnswerSettled
    | ListMailboxes
    | ListDeadLetters
    | ReplayDeadLetter
    | CountEvents
    | AnswerWaiters
    | AgentSubscribed
    | AgentEnded
    | TellTriggered
)

# --- ResultStore -----------------------------------------------------------------------------------------------


class StoreResult(Request[AcceptedResult], frozen=True, kw_only=True):
    """Keep a result; answered when it is on the disk and its `result_stored` event is published.

    result: a JSON object with `status`. idempotency_key: a repeat by the same agent gets the first answer.
    Raises StorageUnavailable, IdempotencyConflict.
    """

    project_id: str
    issue_id: str
    agent_id: AgentId
    agent_type: str
    status: ResultStatus
    result: msgspec.Raw
    timestamp: datetime | None = None
    idempotency_key: str | None = None
    traceparent: str | None = None


class GetResult(Request[StoredResult], frozen=True, kw_only=True):
    """Raises NotFound, also for a result of another project."""

    result_id: ResultId
    project_id: str | None


class FindResults(Request[ResultListing], frozen=True, kw_only=True):
    """Raises InvalidRequest for a cursor that is not one of ours."""

    project_id: str | None
    issue_id: str | None = None
    agent_type: str | None = None
    agent_id: str | None = None
    status: ResultStatus | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 50
    cursor: str | None = None


class CountResults(Request[ResultNumbers], frozen=True, kw_only=True):
    """How many results there are."""

    project_id: str | None


ResultStoreRequest = StoreResult | GetResult | FindResults | CountResults

# --- ContextBuilder --------------------------------------------------------------------------------------------


class BuildContext(Request[ContextBundle], frozen=True, kw_only=True):
    """What an agent should see. Raises InvalidContextRequest (requirement, glob), NotFound (project), ContextFailed.

    requirements: empty means the default sections. files: paths or globs, relative to the root, to add in full.
    query: what the work is about; "" lets the builder find out. max_bytes None: the configured cap.
    """

    issue_id: str
    agent_type: str
    agent_id: AgentId
    project_id: str
    requirements: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    query: str = ""
    max_bytes: int | None = None
    refresh: bool = False
    if_none_match: str | None = None
    traceparent: str | None = None


class ClearContext(Request[ContextCleared], frozen=True, kw_only=True):
    """Forget cached contexts: of one issue, or (None) of all."""

    project_id: str | None
    issue_id: str | None


class CountContexts(Request[ContextNumbers], frozen=True, kw_only=True):
    """How many contexts were built, and what the cache holds."""

    project_id: str | None


class ListContextRequests(Request[ContextRequests], frozen=True, kw_only=True):
    """The recent contexts of an agent. project_id None: in any project."""

    agent_id: AgentId
    project_id: str | None


ContextBuilderRequest = BuildContext | ClearContext | CountContexts | ListContextRequests
