"""The API, typed: each method gives the steps of one call. `Client` and `AsyncClient` carry them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from ...state.models import AgentStatus, Priority, ResultStatus
from .calls import ANSWER_WITHIN_S, Calls, new_key, segment
from .records import Batch, Context, LogPart, Published, Result, ResultPage, Spawned, Stored
from .steps import Steps

MAX_WAIT_S = 120.0  # one long poll; a longer wait is several, so that a server that vanished is noticed
SPAWNED_WITHIN_S = 45.0  # the agent's context is built first


class Api(Calls):
    """The requests of the API and the types of their answers; `call` makes any other."""

    # --- the sidecar -----------------------------------------------------------------------------------------

    def health(self, *, timeout_s: float = ANSWER_WITHIN_S, shape: Any = None) -> Steps[dict[str, Any]]:
        """Get the sidecar's checks. An unhealthy sidecar answers too; see its `status`. shape: as in `call`."""
        answer = yield from self.once("GET", "/health", timeout_s=timeout_s)
        return self._in_shape(answer, shape, dict[str, Any])

    def status(self, *, shape: Any = None) -> Steps[dict[str, Any]]:
        """Get the sidecar's numbers. shape: as in `call`."""
        answer = yield from self._answer("GET", "/status", None, None, None, ANSWER_WITHIN_S)
        return self._in_shape(answer, shape, dict[str, Any])

    # --- agents ----------------------------------------------------------------------------------------------

    def spawn(
        self,
        agent_type: str,
        issue_id: str,
        *,
        task: str = "",
        project_id: str | None = None,
        environment: Mapping[str, str] | None = None,
        priority: Priority = "normal",
        context_requirements: Sequence[str] = (),
        key: str | None = None,
    ) -> Steps[Spawned]:
        """Start an agent of a type whose profile has a command, or queue it. key: as in `call`; a new one if None."""
        body = _without_none(
            agent_type=agent_type,
            issue_id=issue_id,
            task=task or None,
            project_id=project_id,
            environment=dict(environment) if environment else None,
            priority=priority,
            context_requirements=tuple(context_requirements) or None,
        )
        path = "/api/agents/spawn"
        return self.read(Spawned, "POST", path, body=body, key=key or new_key(), timeout_s=SPAWNED_WITHIN_S)

    def agents(self) -> Steps[tuple[AgentStatus, ...]]:
        """List the agents of the token's project (for operators: of all projects), newest first."""
        return (yield from self.read(_Agents, "GET", "/api/agents")).agents

    def agent(self, agent_id: str) -> Steps[AgentStatus]:
        return self.read(AgentStatus, "GET", f"/api/agents/{segment(agent_id)}")

    def stop(self, agent_id: str, *, timeout_s: float | None = None, force: bool = False) -> Steps[AgentStatus]:
        """Stop an agent's process tree; returns when it has ended. timeout_s: from SIGTERM to SIGKILL."""
        return self.read(
            AgentStatus,
            "DELETE",
            f"/api/agents/{segment(agent_id)}",
            query={"timeout": timeout_s, "force": force or None},
            timeout_s=ANSWER_WITHIN_S + (timeout_s or 0.0),
        )

    def restart(self, agent_id: str) -> Steps[AgentStatus]:
        return self.read(AgentStatus, "POST", f"/api/agents/{segment(agent_id)}/restart", body={})

    def logs(
        self,
        agent_id: str,
        *,
        stream: Literal["stdout", "stderr"] = "stdout",
        tail: int = 200,
        offset: int | None = None,
        timeout_s: float = 0.0,
    ) -> Steps[LogPart]:
        """Read the last `tail` lines of an agent's log, or the part from `offset` on, waiting for it for up to
        `timeout_s`."""
        return self.read(
            LogPart,
            "GET",
            f"/api/agents/{segment(agent_id)}/logs",
            query={"stream": stream, "tail": tail, "offset": offset, "timeout": timeout_s or None},
            timeout_s=ANSWER_WITHIN_S + timeout_s,
        )

    def heartbeat(self, agent_id: str) -> Steps[None]:
        """Send a heartbeat of an agent."""
        yield from self.call("POST", f"/api/agents/{segment(agent_id)}/heartbeat", body={})

    # --- context and results ---------------------------------------------------------------------------------

    def context(
        self,
        issue_id: str,
        agent_type: str,
        *,
        requirements: Sequence[str] = (),
        files: Sequence[str] = (),
        query: str = "",
        max_bytes: int | None = None,
        refresh: bool = False,
        project_id: str | None = None,
    ) -> Steps[Context]:
        """Get the context of that type of agent. files: paths or globs of files to add in full."""
        return self.read(
            Context,
            "GET",
            f"/api/context/{segment(issue_id)}/{segment(agent_type)}",
            query={
                "requirements": requirements or None,
                "files": [name.replace(",", "\\,") for name in files] or None,
                "q": query or None,
                "max_bytes": max_bytes,
                "refresh": refresh or None,
                "project_id": project_id,
            },
        )

    def store(
        self,
        result: Mapping[str, Any],
        *,
        agent_id: str,
        agent_type: str,
        issue_id: str,
        project_id: str,
        key: str | None = None,
    ) -> Steps[Stored]:
        """Store a result: a JSON object with `status`. When it returns, the result is on disk."""
        body = {
            "agent_id": agent_id,
            "agent_type": agent_type,
            "issue_id": issue_id,
            "project_id": project_id,
            "result": result,
        }
        return self.read(Stored, "POST", "/api/results", body=body, key=key or new_key())

    def result(self, result_id: str) -> Steps[Result]:
        return self.read(Result, "GET", f"/api/results/{segment(result_id)}")

    def results(
        self,
        *,
        issue_id: str | None = None,
        agent_type: str | None = None,
        agent_id: str | None = None,
        status: ResultStatus | None = None,
        limit: int = 50,
        cursor: str | None = None,
        project_id: str | None = None,
    ) -> Steps[ResultPage]:
        query = {
            "issue_id": issue_id,
            "agent_type": agent_type,
            "agent_id": agent_id,
            "status": status,
            "limit": limit,
            "cursor": cursor,
            "project_id": project_id,
        }
        return self.read(ResultPage, "GET", "/api/results", query=query)

    # --- events ----------------------------------------------------------------------------------------------

    def publish(
        self,
        event_type: str,
        data: Mapping[str, Any] | None = None,
        *,
        topic: str | None = None,
        correlation_id: str | None = None,
        priority: Priority = "normal",
        ttl_s: int | None = None,
        key: str | None = None,
        project_id: str | None = None,
    ) -> Steps[Published]:
        """Publish an event. When it returns, the event survives the death of the
        sidecar. topic None: the type's own."""
        body = _without_none(
            event_type=event_type,
            data=dict(data or {}),
            topic=topic,
            correlation_id=correlation_id,
            priority=priority,
            ttl_seconds=ttl_s,
        )
        path = f"/api/events/{segment(event_type)}"
        return self.read(Published, "POST", path, query={"project_id": project_id}, body=body, key=key or new_key())

    def wait(
        self,
        *event_types: str,
        topics: Sequence[str] = (),
        filter: str = "",
        consumer: str = "",
        timeout_s: float = 30.0,
        limit: int = 100,
        ack: str | None = None,
        since: str | None = None,
        project_id: str | None = None,
    ) -> Steps[Batch]:
        """Wait for the next events of a mailbox. Returns an empty batch when `timeout_s` is over.

        Without types, waits for every type. ack: acknowledges everything up to that event id. since: read from there
        without a mailbox ("earliest", "latest", an event id or an RFC 3339 time).
        """
        deadline = self._clock() + timeout_s
        while True:
            poll_s = min(max(0.0, deadline - self._clock()), MAX_WAIT_S)
            query = {
                "types": event_types or None,
                "topics": topics or None,
                "filter": filter or None,
                "consumer": consumer or None,
                "timeout": round(poll_s * 1000),
                "limit": limit,
                "ack": ack,
                "since": since,
                "project_id": project_id,
            }
            batch = yield from self.read(
                Batch, "GET", "/api/events/wait", query=query, timeout_s=poll_s + ANSWER_WITHIN_S
            )
            if not batch.timeout or batch.superseded or self._clock() >= deadline:
                return batch
            ack = None
            if since is not None and batch.next_cursor is not None:
                since = batch.next_cursor


class _Agents(msgspec.Struct):
    agents: tuple[AgentStatus, ...]


def _without_none(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}
