"""Client of a sidecar's API for operators and tools: `Client(url, token).agents()`. Agents use `sdk.Agent`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from .api import MAX_WAIT_S, Api
from .calls import ANSWER_WITHIN_S, DEFAULT_URL, Query
from .connections import BlockingConnections
from .retry import RetryPolicy
from .steps import Steps

if TYPE_CHECKING:
    from .vouching import SidecarCheck

__all__ = ["MAX_WAIT_S", "Client", "signed_as"]

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(method: Callable[Concatenate[Api, P], Steps[T]]) -> Callable[Concatenate[Client, P], T]:
    """The method of Api as one that returns when the answer is there."""

    @wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.connections.run(method(self.api, *args, **kwargs))

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
        self.api = Api(url, token, retries=retries, headers=headers)
        self.connections = BlockingConnections(self.api.url, check=check)
        self._check = check

    @property
    def url(self) -> str:
        return self.api.url

    @property
    def token(self) -> str | None:
        return self.api.token

    def close(self) -> None:
        self.connections.close()

    def move_to(self, url: str) -> None:
        """Send further requests to another URL."""
        before, self.connections = self.connections, BlockingConnections(url, check=self._check)
        self.api.url = url
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
            self.api.read(type_, method, path, query=query, body=body, key=key, timeout_s=timeout_s)
        )

    call = _blocking(Api.call)
    once = _blocking(Api.once)
    refresh_token = _blocking(Api.refresh_token)
    health = _blocking(Api.health)
    status = _blocking(Api.status)
    spawn = _blocking(Api.spawn)
    agents = _blocking(Api.agents)
    agent = _blocking(Api.agent)
    stop = _blocking(Api.stop)
    restart = _blocking(Api.restart)
    logs = _blocking(Api.logs)
    heartbeat = _blocking(Api.heartbeat)
    context = _blocking(Api.context)
    store = _blocking(Api.store)
    result = _blocking(Api.result)
    results = _blocking(Api.results)
    publish = _blocking(Api.publish)
    wait = _blocking(Api.wait)
