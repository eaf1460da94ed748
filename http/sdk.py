"""The Python client. In an agent:

    from sidecar.http.sdk import Agent

    with Agent() as agent:
        context = agent.context()
        agent.store({"status": "success", "files_created": ["src/api.py"]})
        agent.publish("implementation_complete", {"status": "success"})

`Agent` takes who it is from the environment the sidecar gave it; `Client` is for operators and tools.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..state.errors import ConfigError
from ..state.models import AgentId, AgentStatus, EventId, Priority, ResultStatus, SpawnPriority
from .client.client import MAX_WAIT_S, Client
from .client.errors import NoServer, Superseded, UnexpectedAnswer
from .client.records import Batch, Context, Event, File, Gap, Published, Result, ResultPage, Spawned, Stored
from .client.retry import ONE_ATTEMPT, RetryPolicy
from .client.subscription import Subscription
from .client.upkeep import Upkeep

__all__ = [
    "ONE_ATTEMPT",
    "Agent",
    "Batch",
    "Client",
    "Context",
    "Event",
    "File",
    "Gap",
    "NoServer",
    "Published",
    "Result",
    "ResultPage",
    "RetryPolicy",
    "Spawned",
    "Stored",
    "Subscription",
    "Superseded",
    "UnexpectedAnswer",
]

HEARTBEAT_S = 20.0  # 3 of the 60 requests a minute that the narrowest working class has


class Agent:
    """This process as an agent of the sidecar that started it. Heartbeats and token refresh go on in the background.

    environment: instead of os.environ. heartbeat_s: 0 for none. Raises ConfigError naming a variable that is missing.
    Every method raises the sidecar's errors (`state.errors`: NotFound, RateLimited, …) and NoServer when nothing
    answered for as long as `retries` is patient; requests that were refused for their rate are asked again in time.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        retries: RetryPolicy | None = None,
    ) -> None:
        env = os.environ if environment is None else environment
        self.id = AgentId(_required(env, "AGENT_ID"))
        self.type = _required(env, "AGENT_TYPE")
        self.issue_id = _required(env, "ISSUE_ID")
        self.project_id = _required(env, "PROJECT_ID")
        self.task = env.get("AGENT_TASK", "")
        self.project_root = Path(env["PROJECT_ROOT"]) if env.get("PROJECT_ROOT") else None
        token = _required(env, "JWT_TOKEN")
        trace = {"traceparent": env["TRACEPARENT"]} if env.get("TRACEPARENT") else None
        self.client = Client(_required(env, "SIDECAR_URL"), token, retries=retries, headers=trace)
        self._upkeep = Upkeep(self.client, agent_id=self.id, token=token, heartbeat_s=heartbeat_s)
        self._upkeep.start()

    def __repr__(self) -> str:
        return f"Agent({self.id!r}, type={self.type!r}, issue_id={self.issue_id!r})"

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the background thread and the connections; the process may go on."""
        self._upkeep.stop()
        self.client.close()

    def context(
        self,
        *,
        requirements: Sequence[str] = (),
        files: Sequence[str] = (),
        query: str = "",
        max_bytes: int | None = None,
        refresh: bool = False,
    ) -> Context:
        """The context of this agent. files: paths or globs to add in full. query: what the work is
        about, which orders the files; "" leaves that to the sidecar."""
        return self.client.context(
            self.issue_id,
            self.type,
            requirements=requirements,
            files=files,
            query=query,
            max_bytes=max_bytes,
            refresh=refresh,
        )

    def store(
        self,
        result: Mapping[str, Any] | None = None,
        /,
        *,
        status: ResultStatus = "success",
        key: str | None = None,
        **fields: object,
    ) -> Stored:
        """Keep a result: `store({"status": …, …})`, or its fields by name. When this returns it is on the disk.

        key: an Idempotency-Key; the same one makes a restarted agent store its result once.
        """
        return self.client.store(
            {"status": status, **(result or {}), **fields},
            agent_id=self.id,
            agent_type=self.type,
            issue_id=self.issue_id,
            project_id=self.project_id,
            key=key,
        )

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
    ) -> Published:
        """Publish an event; when this returns it survives the death of the sidecar.

        data: `issue_id` is filled in where it is missing, since that is what others filter by. topic None: the
        standard topic of the type. key: an Idempotency-Key; the same one makes a restarted agent publish it once.
        """
        return self.client.publish(
            event_type,
            {"issue_id": self.issue_id, **(data or {})},
            topic=topic,
            correlation_id=correlation_id,
            priority=priority,
            ttl_s=ttl_s,
            key=key,
        )

    def wait(
        self,
        *event_types: str,
        topics: Sequence[str] = (),
        filter: str = "",
        consumer: str = "",
        timeout_s: float = 30.0,
        limit: int = 100,
    ) -> Batch:
        """The next events of these types as soon as there are any, also those from before this agent began; an empty
        batch when `timeout_s` is up. What was given once is not given again by the same question."""
        return self.client.wait(
            *event_types, topics=topics, filter=filter, consumer=consumer, timeout_s=timeout_s, limit=limit
        )

    def events(
        self,
        *event_types: str,
        topics: Sequence[str] = (),
        filter: str = "",
        consumer: str = "events",
        limit: int = 100,
    ) -> Subscription:
        """Endless: `for event in agent.events("review_requested"):`; asking for the next acknowledges the last.

        consumer: names the place in the log; it is another than that of `wait`, which acknowledges by receiving.
        """

        def wait(*, ack: EventId | None, timeout_s: float) -> Batch:
            return self.client.wait(
                *event_types,
                topics=topics,
                filter=filter,
                consumer=consumer,
                timeout_s=timeout_s,
                limit=limit,
                ack=ack,
            )

        return Subscription(wait, poll_s=MAX_WAIT_S)

    def spawn(
        self,
        agent_type: str,
        *,
        issue_id: str | None = None,
        task: str = "",
        environment: Mapping[str, str] | None = None,
        priority: SpawnPriority = "normal",
        context_requirements: Sequence[str] = (),
        key: str | None = None,
    ) -> Spawned:
        """Start another agent, of this one's issue unless said otherwise. Architects and operators only."""
        return self.client.spawn(
            agent_type,
            issue_id or self.issue_id,
            task=task,
            environment=environment,
            priority=priority,
            context_requirements=context_requirements,
            key=key,
        )

    def results(self, *, agent_type: str | None = None, status: ResultStatus | None = None) -> tuple[Result, ...]:
        """The newest results of this agent's issue, at most 50."""
        return self.client.results(issue_id=self.issue_id, agent_type=agent_type, status=status).results

    def status(self) -> AgentStatus:
        """This agent as the sidecar sees it; `incarnation` is 1 until it is restarted."""
        return self.client.agent(self.id)

    def heartbeat(self) -> None:
        """Say now that this agent works; the background thread does so anyhow."""
        self.client.heartbeat(self.id)


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name)
    if not value:
        raise ConfigError(f"{name} is not set; the sidecar sets it for the agents it starts", field=name)
    return value
