"""Client of a sidecar's API for operators and tools: `Client(url, token).agents()`. Agents use `sdk.Agent`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

from .api import MAX_WAIT_S, Api
from .calls import ANSWER_WITHIN_S, DEFAULT_URL, Query
from .connections import BlockingConnections
from .retry import RetryPolicy
from .steps import Steps

if TYPE_CHECKING:
    from .vouching import SidecarCheck

__all__ = ["MAX_WAIT_S", "Client", "blocking", "signed_as"]

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", covariant=True)


class Blocking(Protocol[C]):
    """Something with calls, and connections that carry them out."""

    @property
    def calls(self) -> C: ...

    @property
    def connections(self) -> BlockingConnections: ...


def blocking(method: Callable[Concatenate[C, P], Steps[T]]) -> Callable[Concatenate[Blocking[C], P], T]:
    """The method of the calls as one that returns when the answer is there."""

    @wraps(method)
    def call(self: Blocking[C], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.connections.run(method(self.calls, *args, **kwargs))

    return signed_as(call, method)


def signed_as(call: Callable[P, T], method: Callable[..., Steps[Any]]) -> Callable[P, T]:
    """The call with the method's signature, of which it returns the answer and not the steps."""
    signature = inspect.signature(method)
    answer = str(signature.return_annotation).removeprefix("Steps[").removesuffix("]")
    call.__signature__ = signature.replace(return_annotation=answer)  # type: ignore[attr-defined]
    return call


class Client:
    """The typed API: each method is one request, and `call` makes any other. Any thread may use it.

    url: with or without `/api` at its end. retries: how failed requests are repeated; the default suits agents that
    outlive a restart of the sidecar. headers: sent with every request. check: asks each server to prove that it is
    the right sidecar, before it gets a token; agents need none, because their URL comes from the sidecar that started
    them. Raises the sidecar's errors (`state.errors`), NoServer and UnexpectedAnswer.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        retries: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        check: SidecarCheck | None = None,
    ) -> None:
        self.calls = Api(url, token, retries=retries, headers=headers)
        self.connections = BlockingConnections(self.calls.url, check=check)
        self._check = check

    @property
    def url(self) -> str:
        return self.calls.url

    @property
    def token(self) -> str | None:
        return self.calls.token

    def close(self) -> None:
        self.connections.close()

    def move_to(self, url: str) -> None:
        """Send further requests to another URL."""
        before, self.connections = self.connections, BlockingConnections(url, check=self._check)
        self.calls.url = url
        before.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(
        self,
        type_: type[T],
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        key: str | None = None,
        timeout_s: float = ANSWER_WITHIN_S,
    ) -> T:
        return self.connections.run(
            self.calls.read(type_, method, path, query=query, body=body, key=key, timeout_s=timeout_s)
        )

    call = blocking(Api.call)
    once = blocking(Api.once)
    refresh_token = blocking(Api.refresh_token)
    health = blocking(Api.health)
    status = blocking(Api.status)
    spawn = blocking(Api.spawn)
    agents = blocking(Api.agents)
    agent = blocking(Api.agent)
    stop = blocking(Api.stop)
    restart = blocking(Api.restart)
    logs = blocking(Api.logs)
    heartbeat = blocking(Api.heartbeat)
    context = blocking(Api.context)
    store = blocking(Api.store)
    result = blocking(Api.result)
    results = blocking(Api.results)
    publish = blocking(Api.publish)
    wait = blocking(Api.wait)
