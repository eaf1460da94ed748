"""The Python client for asyncio: `async with AsyncAgent() as agent: context = await agent.context()`.

The same calls as of the blocking client, over asyncio's own sockets: as many waits as one likes go on at once. A call
that is cancelled resets its connection, so that events which its answer held are given again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

from .agent import HEARTBEAT_S, AgentCalls, AgentIdentity, access_of
from .api import Api
from .calls import DEFAULT_URL
from .client import signed_as
from .connections import BlockingConnections, require_url
from .records import Gap, ReceivedEvent
from .retry import RetryPolicy
from .steps import HttpRequest, Outcome, Pause, Steps
from .subscription import MailboxReader
from .upkeep import Upkeep

if TYPE_CHECKING:
    from .async_http import AsyncHttp

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", covariant=True)


class AsyncConnections:
    """Connections to one server that stay open, for the event loop that uses them."""

    def __init__(self, url: str) -> None:
        self._url = require_url(url)
        self._http: AsyncHttp | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, steps: Steps[T]) -> T:
        """Carry out a call; returns its answer. Raises what the call raises."""
        outcome: Outcome | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                answer: T = end.value
                return answer
            match step:
                case HttpRequest():
                    outcome = await self._opened().exchange(step)
                case Pause():
                    outcome = None
                    await asyncio.sleep(step.duration_s)

    async def close(self) -> None:
        """Close every connection. A later call opens new ones."""
        http, self._http = self._http, None
        if http is not None and self._loop is asyncio.get_running_loop():
            await http.close()

    def _opened(self) -> AsyncHttp:
        from .async_http import AsyncHttp  # imports httpx

        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is not loop:  # connections of a loop that has ended have ended with it
            self._http, self._loop = AsyncHttp(self._url), loop
        return self._http


class Awaiting(Protocol[C]):
    """Something with calls, and connections that carry them out for asyncio."""

    @property
    def calls(self) -> C: ...

    @property
    def connections(self) -> AsyncConnections: ...


def awaited(
    method: Callable[Concatenate[C, P], Steps[T]],
) -> Callable[Concatenate[Awaiting[C], P], Coroutine[Any, Any, T]]:
    """The method of the calls as a coroutine."""

    @wraps(method)
    async def call(self: Awaiting[C], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.connections.run(method(self.calls, *args, **kwargs))

    return signed_as(call, method)


class AsyncClient:
    """The API for asyncio, typed; see `Client` for the arguments and for what each method does."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        retries: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.calls = Api(url, token, retries=retries, headers=headers)
        self.connections = AsyncConnections(self.calls.url)

    @property
    def url(self) -> str:
        return self.calls.url

    @property
    def token(self) -> str | None:
        return self.calls.token

    async def close(self) -> None:
        await self.connections.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    call = awaited(Api.call)
    once = awaited(Api.once)
    refresh_token = awaited(Api.refresh_token)
    health = awaited(Api.health)
    status = awaited(Api.status)
    spawn = awaited(Api.spawn)
    agents = awaited(Api.agents)
    agent = awaited(Api.agent)
    stop = awaited(Api.stop)
    restart = awaited(Api.restart)
    logs = awaited(Api.logs)
    heartbeat = awaited(Api.heartbeat)
    context = awaited(Api.context)
    store = awaited(Api.store)
    result = awaited(Api.result)
    results = awaited(Api.results)
    publish = awaited(Api.publish)
    wait = awaited(Api.wait)


class AsyncSubscription(AsyncIterator[ReceivedEvent]):
    """`async for event in agent.events(…)`: as `Subscription`. A cancelled step gives its event to the next one."""

    def __init__(self, reader: MailboxReader, connections: AsyncConnections) -> None:
        self._reader = reader
        self._connections = connections

    @property
    def gap(self) -> Gap | None:
        """The last events that were lost before they could be read; None as long as nothing was lost."""
        return self._reader.gap

    async def __anext__(self) -> ReceivedEvent:
        """The next event, however long it takes. Raises Superseded when another reader took the mailbox over."""
        return await self._connections.run(self._reader.next())

    async def ack(self) -> None:
        """Mark the last event as done before asking for the next one."""
        await self._connections.run(self._reader.ack())


class AsyncAgent(AgentIdentity):
    """The current process as an agent, for asyncio; see `sdk.Agent` for the arguments and the methods.

    A thread of its own sends heartbeats and refreshes the token, also while the event loop is busy.
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
        self.client = AsyncClient(url, token, retries=retries, headers=headers)
        self.calls = AgentCalls(self, self.client.calls)
        self.connections = self.client.connections
        self._upkeep_connections = BlockingConnections(self.client.url)
        self._upkeep = Upkeep(self.client.calls, self._upkeep_connections, agent_id=self.id, heartbeat_s=heartbeat_s)
        self._upkeep.start()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the background thread and the connections; the process may continue."""
        self._upkeep.stop()
        self._upkeep_connections.close()
        await self.client.close()

    context = awaited(AgentCalls.context)
    store = awaited(AgentCalls.store)
    publish = awaited(AgentCalls.publish)
    wait = awaited(AgentCalls.wait)
    spawn = awaited(AgentCalls.spawn)
    results = awaited(AgentCalls.results)
    status = awaited(AgentCalls.status)
    heartbeat = awaited(AgentCalls.heartbeat)

    def events(
        self,
        *event_types: str,
        topics: Sequence[str] = (),
        filter: str = "",
        consumer: str = "events",
        limit: int = 100,
    ) -> AsyncSubscription:
        """Iterate over events without end: `async for event in agent.events(…)`. Asking for the next acknowledges the
        last."""
        reader = self.calls.mailbox(*event_types, topics=topics, filter=filter, consumer=consumer, limit=limit)
        return AsyncSubscription(reader, self.connections)
