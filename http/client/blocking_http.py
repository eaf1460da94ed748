"""HTTP exchanges over blocking sockets, each with a deadline for all of it: httpx.Client.

httpx bounds each silence of a server, but not the whole: a server that sends a byte now and then would be read for
hours. So the sockets come from a network backend of ours, to which every time-out of an exchange is its deadline.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from ssl import SSLContext
from typing import TYPE_CHECKING, Any

import httpcore
import httpx

from .http_client import KEPT_CONNECTIONS, KEPT_FOR_S, AnswerBody, failed_exchange
from .steps import HttpRequest, Outcome

if TYPE_CHECKING:
    from .vouching import SidecarCheck


class BlockingHttp:
    """Connections to one server. check: called with each new one, before anything is sent over it."""

    def __init__(self, url: str, *, check: SidecarCheck | None) -> None:
        self._url = url
        transport = _BlockingTransport(_BlockingBackend(check), has_tls=url.startswith("https:"))
        # The sidecar is next to its agents: a proxy in the environment is for other places.
        self._client = httpx.Client(transport=transport, trust_env=False)

    def exchange(self, request: HttpRequest) -> Outcome:
        """Send one request, read its whole answer. Raises UnexpectedAnswer, and what the check raises."""
        deadline = time.monotonic() + request.timeout_s
        try:
            with self._client.stream(
                request.method,
                self._url + request.target,
                content=request.content,
                headers=dict(request.headers),
                timeout=httpx.Timeout(deadline, pool=None),
            ) as response:
                body = AnswerBody(response, self._url)
                for data in response.iter_raw():
                    body.add(data)
                return body.answer()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return failed_exchange(request, error)

    def close(self) -> None:
        self._client.close()


class _BlockingTransport(httpx.HTTPTransport):
    """httpx's own transport, over sockets of our backend."""

    def __init__(self, backend: httpcore.NetworkBackend, *, has_tls: bool) -> None:
        super().__init__(verify=False)
        self._pool = httpcore.ConnectionPool(
            # Reading the system's certificates costs 30 ms of CPU, and without TLS there is nothing to verify.
            ssl_context=httpx.create_ssl_context(trust_env=False) if has_tls else None,
            max_connections=None,
            max_keepalive_connections=KEPT_CONNECTIONS,
            keepalive_expiry=KEPT_FOR_S,
            network_backend=backend,
        )


class _BlockingBackend(httpcore.NetworkBackend):
    """Sockets for which a time-out is the monotonic time at which to give up."""

    def __init__(self, check: SidecarCheck | None) -> None:
        self._check = check
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        left_s = _left_s(timeout, httpcore.ConnectTimeout)
        stream = self._sockets.connect_tcp(host, port, left_s, local_address, socket_options)
        if self._check is not None:
            self._check(stream)
        return _BlockingStream(stream)


class _BlockingStream(httpcore.NetworkStream):
    """A connection whose reads and writes end at their deadline."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left_s(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left_s(timeout, httpcore.WriteTimeout))

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _BlockingStream(
            self._stream.start_tls(ssl_context, server_hostname, _left_s(timeout, httpcore.ConnectTimeout))
        )

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._stream.close()


def _left_s(deadline: float | None, error: type[httpcore.TimeoutException]) -> float | None:
    """Seconds until the deadline; None: there is none. Raises `error` when it has passed."""
    if deadline is None:
        return None
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise error("the time is up")
    return left_s
