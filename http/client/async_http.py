"""HTTP exchanges for asyncio, each with a deadline for all of it: httpx.AsyncClient.

An exchange that ends without its answer, cancelled for instance, resets its connection. A server that sees one closed
in good order may take its answer for read, and count the events in it as delivered; after a reset it cannot. To reach
the socket at any moment, connections come from a network backend of ours.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from contextvars import ContextVar
from ssl import SSLContext
from typing import Any

import httpcore
import httpx

from .http_client import KEPT_CONNECTIONS, KEPT_FOR_S, AnswerBody, failed_exchange, time_is_up
from .steps import HttpAnswer, HttpRequest, NotConnected, Outcome

# SO_LINGER: for no time, so that closing discards and resets; and off.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_FLUSH_ON_CLOSE = struct.pack("ii", 0, 0)


class AsyncHttp:
    """Connections to one server, for one event loop."""

    def __init__(self, url: str) -> None:
        self._url = url
        # The sidecar is next to its agents: a proxy in the environment is for other places.
        self._client = httpx.AsyncClient(transport=_AsyncTransport(has_tls=url.startswith("https:")), trust_env=False)

    async def exchange(self, request: HttpRequest) -> Outcome:
        """Send one request, read its whole answer. Raises UnexpectedAnswer."""
        carrier = _Carrier()
        before = _carrier.set(carrier)
        answer: HttpAnswer | None = None
        try:
            async with asyncio.timeout(request.timeout_s):
                answer = await self._answer(request, carrier)
        except TimeoutError:
            return time_is_up(request) if carrier.stream else NotConnected(f"within {request.timeout_s:g} s")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return failed_exchange(request, error)
        finally:
            _carrier.reset(before)
            if answer is None:
                carrier.reset()
        return answer

    async def _answer(self, request: HttpRequest, carrier: _Carrier) -> HttpAnswer:
        async with self._client.stream(
            request.method,
            self._url + request.target,
            content=request.content,
            headers=dict(request.headers),
            timeout=None,
        ) as response:
            body = AnswerBody(response, self._url)
            assert isinstance(response.stream, httpx.AsyncByteStream)
            async for data in response.stream:
                body.add(data)
            carrier.read_whole()
        return body.answer()

    async def close(self) -> None:
        await self._client.aclose()


class _Carrier:
    """The connection that carries an exchange, once something was sent over it."""

    stream: _AsyncStream | None = None

    def sends_over(self, stream: _AsyncStream) -> None:
        self.stream = stream
        stream.carries = self
        stream.linger(_RESET_ON_CLOSE)

    def read_whole(self) -> None:
        """The answer has come; from now on the connection may be closed in good order."""
        if self.stream is not None:
            self.stream.linger(_FLUSH_ON_CLOSE)

    def reset(self) -> None:
        """Reset the connection, unless another exchange has it by now."""
        if self.stream is not None and self.stream.carries is self:
            self.stream.reset()


_carrier: ContextVar[_Carrier | None] = ContextVar("carrier", default=None)


class _AsyncTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport, over sockets of our backend."""

    def __init__(self, *, has_tls: bool) -> None:
        super().__init__(verify=False)
        self._pool = httpcore.AsyncConnectionPool(
            # Reading the system's certificates costs 30 ms of CPU, and without TLS there is nothing to verify.
            ssl_context=httpx.create_ssl_context(trust_env=False) if has_tls else None,
            max_connections=None,
            max_keepalive_connections=KEPT_CONNECTIONS,
            keepalive_expiry=KEPT_FOR_S,
            network_backend=_AsyncBackend(),
        )


class _AsyncBackend(httpcore.AsyncNetworkBackend):
    """Connections of asyncio. No time-outs: `exchange` has one for all of it."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        try:
            return _AsyncStream(*await asyncio.open_connection(host, port, happy_eyeballs_delay=0.25))
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error


class _AsyncStream(httpcore.AsyncNetworkStream):
    """One connection. carries: the exchange that last sent something over it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.carries: _Carrier | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        try:
            return await self._reader.read(max_bytes)
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        carrier = _carrier.get()
        if carrier is not None:
            carrier.sends_over(self)
        try:
            self._writer.write(buffer)
            await self._writer.drain()
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    async def start_tls(
        self,
        ssl_context: SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        try:
            await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # an idle connection is readable when the server has closed it
            return self._reader.at_eof() or self._writer.is_closing()
        return self._writer.get_extra_info(info)

    async def aclose(self) -> None:
        self._writer.close()

    def linger(self, option: bytes) -> None:
        with suppress(OSError):  # the connection is closed
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)

    def reset(self) -> None:
        self.linger(_RESET_ON_CLOSE)
        self._writer.transport.abort()
