"""The Python client for asyncio: `async with AsyncAgent() as agent: context = await agent.context()`.

The same client, each call in a thread of its own: the event loop never waits, as many waits as one likes go on at
once, and a cancelled one closes its connection, so that what it might have been given is given again. Only a `wait`
cancelled in the moment in which its answer is complete can lose that answer; `events` acknowledges, and cannot.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Concatenate, ParamSpec, TypeVar

from ..sdk import HEARTBEAT_S, Agent
from .cancellation import Cancellation, use
from .records import Event
from .retry import RetryPolicy
from .subscription import Subscription

P = ParamSpec("P")
T = TypeVar("T")


def _awaited(
    method: Callable[Concatenate[Agent, P], T],
) -> Callable[Concatenate[AsyncAgent, P], Coroutine[Any, Any, T]]:
    """The method of Agent as a coroutine: same name, same arguments, same answer."""

    async def call(self: AsyncAgent, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await _in_a_thread(lambda: method(self.agent, *args, **kwargs))

    call.__doc__ = method.__doc__
    return call


class AsyncAgent:
    """This process as an agent, for asyncio; see `sdk.Agent` for what each method does. agent: the one underneath."""

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        retries: RetryPolicy | None = None,
    ) -> None:
        self.agent = Agent(environment, heartbeat_s=heartbeat_s, retries=retries)

    async def __aenter__(self) -> AsyncAgent:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.agent.close()

    context = _awaited(Agent.context)
    store = _awaited(Agent.store)
    publish = _awaited(Agent.publish)
    wait = _awaited(Agent.wait)
    spawn = _awaited(Agent.spawn)
    results = _awaited(Agent.results)
    status = _awaited(Agent.status)
    heartbeat = _awaited(Agent.heartbeat)

    async def events(self, *event_types: str, filter: str = "", consumer: str = "events") -> AsyncIterator[Event]:
        """Endless: `async for event in agent.events(…)`; asking for the next acknowledges the last."""
        subscription: Subscription = self.agent.events(*event_types, filter=filter, consumer=consumer)
        while True:
            yield await _in_a_thread(lambda: next(subscription))


async def _in_a_thread(call: Callable[[], T]) -> T:
    # Not asyncio.to_thread: its few threads would all be parked in waits soon.
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[T] = loop.create_future()
    by = Cancellation()

    def settle(set_outcome: Callable[[], None]) -> None:
        if not answered.done():
            set_outcome()

    def work() -> None:
        use(by)
        try:
            answer = call()
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to whoever awaits
            failure = error
            outcome = lambda: answered.set_exception(failure)  # noqa: E731
        else:
            outcome = lambda: answered.set_result(answer)  # noqa: E731
        with suppress(RuntimeError):  # the loop has ended: nobody awaits any more
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=work, name="sidecar-call", daemon=True).start()
    try:
        return await answered
    except asyncio.CancelledError:
        by.cancel()
        raise
