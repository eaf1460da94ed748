"""Routes of agents: spawn, inspect, stop, restart, heartbeat, logs."""

from __future__ import annotations

from functools import partial
from typing import Any

from ...actors.messages import GetAgent, ListAgents, ReadLogs, RecordHeartbeat, RestartAgent, SpawnAgent, StopAgent
from ...actors.replies import LogChunk
from ...actors.runtime.asking import ask
from ...state.clock import utc_now
from ...state.errors import (
    ChainTooLong,
    IdempotencyConflict,
    NoCommand,
    NotFound,
    QueueFull,
    SpawnFailed,
    StorageUnavailable,
    TooManySpawns,
    Unavailable,
    WrongIdentity,
    WrongState,
)
from ...state.identity import Permission
from ...state.models import AgentId, AgentStatus, identifier
from ..access.auth import require, require_project
from ..access.limits import owner_of
from ..log_texts import LogExcerpt
from ..routing import ASK_S, Answer, Call, Pending, Route, Routes
from ..wire import codec as wire
from ..wire.agents import (
    FOLLOW_MAX_S,
    STOP_MAX_S,
    AgentOut,
    AgentsListed,
    AgentSpawned,
    LogOut,
    LogQuery,
    NewAgent,
    StopQuery,
)
from ..wire.codec import Nothing

routes = Routes()

SPAWN_S = 30.0  # its context is built first
LOG_S = 30.0  # a reader's own requests before this one take their time
AFTER_KILL_S = 15.0  # a process in the kernel's hands may outlive SIGKILL for a while


_KNOWN = (NotFound, Unavailable)
_CHANGED = (*_KNOWN, StorageUnavailable)


@routes.add(
    Route(
        "POST",
        "/api/agents/spawn",
        needs=Permission.SPAWN_AGENTS,
        body=NewAgent,
        status=201,
        answers=AgentSpawned,
        is_quick=True,
        errors=(*_CHANGED, IdempotencyConflict, NoCommand, SpawnFailed, ChainTooLong, TooManySpawns, QueueFull),
    )
)
def spawn_agent(call: Call[NewAgent, Nothing]) -> Pending[Any]:
    """Spawn an agent of a type whose profile has a command, or queue it."""
    body = call.body
    project_id = identifier(body.project_id, "project_id") if body.project_id is not None else call.project_id
    require_project(call.caller, project_id)
    request = SpawnAgent(
        agent_type=identifier(body.agent_type, "agent_type"),
        issue_id=identifier(body.issue_id, "issue_id"),
        project_id=project_id,
        requested_by=call.caller.agent_id,
        task=body.task or "",
        context_requirements=body.context_requirements or (),
        environment=body.environment or {},
        priority=body.priority or "normal",
        idempotency_key=call.idempotency_key(),
        traceparent=call.traceparent,
    )
    later = call.actors.spawner.request(request)
    return Pending(later, lambda spawned: Answer(201, AgentSpawned.of(spawned)), deadline_s=SPAWN_S)


@routes.add(Route("GET", "/api/agents", answers=AgentsListed, errors=_KNOWN))
def list_agents(call: Call[Nothing, Nothing]) -> Answer:
    """List agents, newest first. A project that is not configured and has no agents is a 404."""
    statuses = ask(call.actors.spawner, ListAgents(project_id=call.scope), timeout_s=ASK_S)
    if not statuses and call.scope is not None:
        call.server.projects.root_of(call.scope)
    listed = [AgentOut.of(status, now=call.now) for status in statuses]
    return Answer(200, AgentsListed(agents=listed, total=len(listed), timestamp=call.now))


@routes.add(Route("GET", "/api/agents/<agent_id>", answers=AgentOut, errors=_KNOWN))
def get_agent(call: Call[Nothing, Nothing], agent_id: str) -> Answer:
    """Get the current state of an agent."""
    status = ask(call.actors.spawner, GetAgent(agent_id=AgentId(agent_id), project_id=call.scope), timeout_s=ASK_S)
    return _shown(status)


routes.add(Route("GET", "/api/agents/<agent_id>/status", answers=AgentOut, errors=_KNOWN))(get_agent)


@routes.add(
    Route(
        "DELETE",
        "/api/agents/<agent_id>",
        needs=Permission.ADMIN,
        query=StopQuery,
        answers=AgentOut,
        is_wait=True,
        errors=(*_CHANGED, WrongState),
    )
)
def stop_agent(call: Call[Nothing, StopQuery], agent_id: str) -> Pending[Any]:
    """Stop the agent's whole process tree. The answer comes when it has ended."""
    timeout_s = call.query.timeout
    if timeout_s is not None:
        wire.between(timeout_s, "timeout", 0, STOP_MAX_S)
    request = StopAgent(agent_id=AgentId(agent_id), project_id=call.scope, timeout_s=timeout_s, force=call.query.force)
    wait_s = STOP_MAX_S if timeout_s is None else timeout_s
    return Pending(call.actors.spawner.request(request), _shown, deadline_s=wait_s + AFTER_KILL_S)


@routes.add(
    Route(
        "POST",
        "/api/agents/<agent_id>/restart",
        needs=Permission.ADMIN,
        answers=AgentOut,
        is_wait=True,
        errors=(*_CHANGED, WrongState, SpawnFailed),
    )
)
def restart_agent(call: Call[Nothing, Nothing], agent_id: str) -> Pending[Any]:
    """Stop the agent if it runs, and start its next incarnation."""
    request = RestartAgent(agent_id=AgentId(agent_id), project_id=call.scope)
    return Pending(call.actors.spawner.request(request), _shown, deadline_s=STOP_MAX_S + AFTER_KILL_S)


@routes.add(
    Route(
        "POST",
        "/api/agents/<agent_id>/heartbeat",
        answers=AgentOut,
        is_quick=True,  # so that it counts before a deadline is judged: see InputRead
        errors=(*_KNOWN, WrongIdentity),
    )
)
def record_heartbeat(call: Call[Nothing, Nothing], agent_id: str) -> Pending[Any]:
    """Report that the agent is alive. Needs the agent's own token."""
    if agent_id != call.caller.agent_id and not call.caller.is_operator:
        raise WrongIdentity("the heartbeat is not the token's agent's", field="agent_id", expected=call.caller.agent_id)
    later = call.actors.spawner.request(RecordHeartbeat(agent_id=AgentId(agent_id)))
    return Pending(later, _shown, deadline_s=ASK_S)


@routes.add(Route("GET", "/api/agents/<agent_id>/logs", query=LogQuery, answers=LogOut, is_wait=True, errors=_KNOWN))
def read_logs(call: Call[Nothing, LogQuery], agent_id: str) -> Pending[Any]:
    """Read the end of an agent's log, or follow it from an offset. Reading others' logs needs the right to spawn."""
    query = call.query
    if agent_id != call.caller.agent_id:
        require(call.caller, Permission.SPAWN_AGENTS)
    wire.between(query.timeout, "timeout", 0, FOLLOW_MAX_S)
    request = ReadLogs(
        agent_id=AgentId(agent_id),
        project_id=call.scope,
        stream=query.stream,
        tail=query.tail,
        offset=query.offset,
        timeout_s=query.timeout,
    )

    def render(made: LogExcerpt) -> Answer:
        return Answer(
            200, LogOut.of(made.chunk, made.text, agent_id=AgentId(agent_id), stream=query.stream, now=utc_now())
        )

    def late() -> Answer:
        """Nothing came, or the sidecar shuts down: the follower asks again from the same offset."""
        return render(LogExcerpt(LogChunk(b"", query.offset or 0, query.offset or 0, ended=False), ""))

    texts, reader, spawner = call.server.log_texts, owner_of(call.caller), call.actors.spawner
    if query.offset is None:
        return Pending(texts.of(reader, partial(ask, spawner, request, timeout_s=ASK_S)), render, deadline_s=LOG_S)
    follows = query.timeout > 0
    later = texts.of_later(reader, spawner.request(request))
    return Pending(later, render, deadline_s=query.timeout + LOG_S, late=late if follows else None, is_wait=follows)


def _shown(status: AgentStatus) -> Answer:
    return Answer(200, AgentOut.of(status, now=utc_now()))
