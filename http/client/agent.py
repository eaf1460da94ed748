"""An agent and what it may ask: the steps of each call, and `Agent`, which carries them out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...state.errors import ConfigError
from ...state.models import AgentId, AgentStatus, EventId, Priority, ResultStatus
from .api import MAX_WAIT_S, Api
from .client import Client, blocking
from .records import Batch, Context, Published, Result, Spawned, Stored
from .retry import RetryPolicy
from .steps import Steps
from .subscription import MailboxReader, Subscription
from .upkeep import Upkeep

HEARTBEAT_S = 20.0  # 3 of the 60 requests a minute that the narrowest working class has


class AgentIdentity:
    """The agent that a process is, as the sidecar says it in the environment of those that it starts.

    Raises ConfigError naming a variable that is missing.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        env = environment
        self.id = AgentId(_required(env, "AGENT_ID"))
        self.type = _required(env, "AGENT_TYPE")
        self.issue_id = _required(env, "ISSUE_ID")
        self.project_id = _required(env, "PROJECT_ID")
        self.task = env.get("AGENT_TASK", "")
        self.project_root = Path(env["PROJECT_ROOT"]) if env.get("PROJECT_ROOT") else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, type={self.type!r}, issue_id={self.issue_id!r})"


class Access(NamedTuple):
    """Where an agent finds its sidecar, and what it shows there. headers: sent with every request."""

    url: str
    token: str
    headers: Mapping[str, str] | None


def access_of(environment: Mapping[str, str]) -> Access:
    """Raises ConfigError naming a variable that is missing."""
    trace = {"traceparent": environment["TRACEPARENT"]} if environment.get("TRACEPARENT") else None
    return Access(_required(environment, "SIDECAR_URL"), _required(environment, "JWT_TOKEN"), trace)


class AgentCalls:
    """The calls of one agent, without I/O: those of the API with its own identity filled in."""

    def __init__(self, who: AgentIdentity, api: Api) -> None:
        self._who = who
        self._api = api

    def context(
        self,
        *,
        requirements: Sequence[str] = (),
        files: Sequence[str] = (),
        query: str = "",
        max_bytes: int | None = None,
        refresh: bool = False,
    ) -> Steps[Context]:
        """Get the context of this agent. files: paths or globs of files to add in full. query: a description of the
        work, which decides the order of the files; "" lets the sidecar choose."""
        return self._api.context(
            self._who.issue_id,
            self._who.type,
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
    ) -> Steps[Stored]:
        """Store a result: `store({"status": …, …})`, or its fields by name. When it returns, the result is on disk.

        key: an Idempotency-Key; with the same key, a restarted agent stores its result only once.
        """
        return self._api.store(
            {"status": status, **(result or {}), **fields},
            agent_id=self._who.id,
            agent_type=self._who.type,
            issue_id=self._who.issue_id,
            project_id=self._who.project_id,
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
    ) -> Steps[Published]:
        """Publish an event. When it returns, the event survives the death of the sidecar.

        data: `issue_id` is added if it is missing, because others filter by it. topic None: the standard topic of the
        type. key: an Idempotency-Key; with the same key, a restarted agent publishes it only once.
        """
        return self._api.publish(
            event_type,
            {"issue_id": self._who.issue_id, **(data or {})},
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
    ) -> Steps[Batch]:
        """Wait for the next events of these types, including events from before this agent started. Returns an empty
        batch when `timeout_s` is over. The same question never returns an event twice."""
        return self._api.wait(
            *event_types, topics=topics, filter=filter, consumer=consumer, timeout_s=timeout_s, limit=limit
        )

    def mailbox(
        self,
        *event_types: str,
        topics: Sequence[str] = (),
        filter: str = "",
        consumer: str = "events",
        limit: int = 100,
    ) -> MailboxReader:
        """Reads a mailbox of this agent event by event."""

        def wait(*, ack: EventId | None, timeout_s: float) -> Steps[Batch]:
            return self._api.wait(
                *event_types,
                topics=topics,
                filter=filter,
                consumer=consumer,
                timeout_s=timeout_s,
                limit=limit,
                ack=ack,
            )

        return MailboxReader(wait, poll_s=MAX_WAIT_S)

    def spawn(
        self,
        agent_type: str,
        *,
        issue_id: str | None = None,
        task: str = "",
        environment: Mapping[str, str] | None = None,
        priority: Priority = "normal",
        context_requirements: Sequence[str] = (),
        key: str | None = None,
    ) -> Steps[Spawned]:
        """Start another agent, by default for this agent's issue. For architects and operators only."""
        return self._api.spawn(
            agent_type,
            issue_id or self._who.issue_id,
            task=task,
            environment=environment,
            priority=priority,
            context_requirements=context_requirements,
            key=key,
        )

    def results(
        self, *, agent_type: str | None = None, status: ResultStatus | None = None
    ) -> Steps[tuple[Result, ...]]:
        """Get the newest results of this agent's issue, at most 50."""
        page = yield from self._api.results(issue_id=self._who.issue_id, agent_type=agent_type, status=status)
        return page.results

    def status(self) -> Steps[AgentStatus]:
        """Get the sidecar's view of this agent; `incarnation` is 1 until it is restarted."""
        return self._api.agent(self._who.id)

    def heartbeat(self) -> Steps[None]:
        """Send a heartbeat now; the background thread also sends them."""
        return self._api.heartbeat(self._who.id)


class Agent(AgentIdentity):
    """The current process as an agent of the sidecar that started it. Sends heartbeats and refreshes the token in the
    background.

    environment: instead of os.environ. heartbeat_s: interval of heartbeats, 0 for none. Raises ConfigError if a
    variable is missing. Every method raises the sidecar's errors (`state.errors`: NotFound, RateLimited, …), and
    NoServer if no server answered within the patience of `retries`; requests over the rate limit are repeated when it
    allows them.
    client: the same sidecar, asked for anything else.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        retries: RetryPolicy | None = None,
    ) -> None:
        env = os.environ if environment is None else environment
        super().__init__(env)
        url, token, headers = access_of(env)
        self.client = Client(url, token, retries=retries, headers=headers)
        self.calls = AgentCalls(self, self.client.calls)
        self.connections = self.client.connections
        self._upkeep = Upkeep(self.client.calls, self.connections, agent_id=self.id, heartbeat_s=heartbeat_s)
        self._upkeep.start()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the background thread and the connections; the process may continue."""
        self._upkeep.stop()
        self.client.close()

    context = blocking(AgentCalls.context)
    store = blocking(AgentCalls.store)
    publish = blocking(AgentCalls.publish)
    wait = blocking(AgentCalls.wait)

    def events(
        self,
        *event_types: str,
        topics: Sequence[str] = (),
        filter: str = "",
        consumer: str = "events",
        limit: int = 100,
    ) -> Subscription:
        """Iterate over events without end: `for event in agent.events("review_requested"):`. Asking for the next
        event acknowledges the last.

        consumer: names the position in the log; `wait` has a different one, because it acknowledges by receiving.
        """
        reader = self.calls.mailbox(*event_types, topics=topics, filter=filter, consumer=consumer, limit=limit)
        return Subscription(reader, self.connections)

    spawn = blocking(AgentCalls.spawn)
    results = blocking(AgentCalls.results)
    status = blocking(AgentCalls.status)
    heartbeat = blocking(AgentCalls.heartbeat)


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name)
    if not value:
        raise ConfigError(f"{name} is not set; the sidecar sets it for the agents it starts", field=name)
    return value
