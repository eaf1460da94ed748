"""Wire names of agents, their logs and their tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ...actors.replies import LogChunk, SpawnedAgent
from ...state.models import AgentId, AgentState, AgentStatus, EventId, ExitCause, Priority, WaitingFor
from .codec import Body, Nothing, Timed
from .shapes import Identifier, Moment, described_range

MAX_TASK_CHARS = 30_000  # it becomes one environment variable; Linux allows 128 KiB of UTF-8
MAX_REQUIREMENTS = 100
MAX_TAIL = 10_000
STOP_MAX_S = 300.0
FOLLOW_MAX_S = 60.0

Requirement = Annotated[str, Meta(max_length=200)]


class NewAgent(Body, frozen=True, kw_only=True):
    """A spawn request. The profile's command runs, never text from the request."""

    agent_type: Identifier
    issue_id: Identifier
    task: Annotated[str, Meta(max_length=MAX_TASK_CHARS)] | None = None
    context_requirements: Annotated[tuple[Requirement, ...], Meta(max_length=MAX_REQUIREMENTS)] | None = None
    environment: dict[str, str] | None = None
    priority: Priority | None = None
    project_id: Identifier | None = None


class AgentSpawned(Timed, frozen=True, kw_only=True):
    """The answer to a spawn. jwt_token: null while the agent is queued, and then process_id is null too."""

    agent_id: AgentId
    spawned: bool
    process_id: int | None
    context_injected: bool
    jwt_token: str | None
    webhook_url: str
    state: AgentState

    @classmethod
    def of(cls, spawned: SpawnedAgent) -> AgentSpawned:
        status = spawned.status
        return cls(
            agent_id=status.agent_id,
            spawned=status.state not in (AgentState.QUEUED, AgentState.BLOCKED),
            process_id=status.process_id,
            context_injected=spawned.context_injected,
            jwt_token=spawned.token.text if spawned.token is not None else None,
            webhook_url=f"/api/agents/{status.agent_id}/status",
            state=status.state,
            timestamp=spawned.at,
        )


class AgentOut(Timed, frozen=True, kw_only=True):
    """An agent as it is now. exit_code, signal, cause: of its last process that ended."""

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
    started_at: Moment | None
    ended_at: Moment | None
    uptime_seconds: float
    cpu_percent: float
    memory_mb: float
    task: str
    last_error: str | None
    requested_by: AgentId
    triggered_by: EventId | None

    @classmethod
    def of(cls, status: AgentStatus, *, now: datetime) -> AgentOut:
        return cls(**msgspec.structs.asdict(status), timestamp=now)


class AgentsListed(Timed, frozen=True, kw_only=True):
    """Newest first."""

    agents: list[AgentOut]
    total: int


class StopQuery(Nothing, frozen=True, kw_only=True):
    """How to stop an agent.

    timeout: seconds from SIGTERM to SIGKILL; default: the profile's. force: SIGKILL at once.
    """

    timeout: Annotated[float, described_range(0, STOP_MAX_S)] | None = None
    force: bool = False


class LogQuery(Nothing, frozen=True, kw_only=True):
    """Which part of a log to read.

    offset: bytes from the start, instead of `tail` lines. timeout: seconds to wait for more output.
    """

    stream: Literal["stdout", "stderr"] = "stdout"
    tail: Annotated[int, Meta(ge=0, le=MAX_TAIL)] = 200
    offset: Annotated[int, Meta(ge=0)] | None = None
    timeout: Annotated[float, described_range(0, FOLLOW_MAX_S)] = 0.0


class LogOut(Timed, frozen=True, kw_only=True):
    """A part of a log.

    data: text of the log. Secrets of a known form and invalid UTF-8 are replaced; an incomplete last character is
    left out.

    next_offset: where to continue, in bytes.
    """

    agent_id: AgentId
    stream: str
    data: str
    offset: int
    next_offset: int
    ended: bool

    @classmethod
    def of(cls, chunk: LogChunk, text: str, *, agent_id: AgentId, stream: str, now: datetime) -> LogOut:
        return cls(
            agent_id=agent_id,
            stream=stream,
            data=text,
            offset=chunk.offset,
            next_offset=chunk.next_offset,
            ended=chunk.ended,
            timestamp=now,
        )


class TokenRefreshed(Timed, frozen=True, kw_only=True):
    """A new token for the caller."""

    token: str
    expires_at: Moment
