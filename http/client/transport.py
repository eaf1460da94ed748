"""HTTP exchanges over connections that stay open: httpx, with its errors sorted by what the server may have seen.

httpx is imported with the first exchange: `import sidecar.http.sdk` stays light for agents that only look things up.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from .cancellation import cancellable, is_cancellable

if TYPE_CHECKING:
    import httpx

    from .vouching import SidecarCheck

# Keeping more would only hold sockets: an agent has one wait open, one heartbeat and its own work.
_KEPT_CONNECTIONS = 8


class Answer(NamedTuple):
    """An answer. headers: names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NotConnected(Exception):
    """No connection could be made; the server has seen nothing of the request."""


class AnswerLost(Exception):
    """The connection ended, or the time was up, after the request was sent: the server may have acted on it.

    was_held: the connection broke, so a server held it until then; False: the time was up.
    """

    def __init__(self, message: str, *, was_held: bool) -> None:
        super().__init__(message)
        self.was_held = was_held


def _is_of_a_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_in_range = parts.port is None or parts.port > 0
    except ValueError:  # brackets that do not match, a port that is no number or above 65535
        return False
    return (
        is_in_range
        and parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and url.isprintable()
        and " " not in url
    )


class Connections:
    """Connections to one server; any thread may make an exchange, each on a connection of its own.

    url: `http://host:port` or `https://…`; a path after it is put before every request's path. check: called with each
    new connection, before anything is sent over it; what it raises ends the request.
    """

    def __init__(self, url: str, *, check: SidecarCheck | None = None) -> None:
        self._check = check
        if not _is_of_a_server(url):
            raise ValueError(f"{url!r} is no URL of a server, expected http://HOST:PORT")
        self._url = url.rstrip("/")
        self._lock = threading.Lock()
        self._clients: dict[bool, httpx.Client] = {}

    def exchange(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> Answer:
        """Send one request, read its whole answer. timeout_s: for connecting, and for each silence after it.

        Raises NotConnected, AnswerLost or Cancelled.
        """
        import httpx

        # Only a connection that is made for the request tells its socket, and only a socket can be cancelled.
        keeps = not is_cancellable()
        try:
            with ExitStack() as guarded:

                def trace(event: str, info: Mapping[str, Any]) -> None:
                    if event == "connection.connect_tcp.complete":
                        connected: socket.socket = info["return_value"].get_extra_info("socket")
                        guarded.enter_context(cancellable(connected))
                        if self._check is not None:
                            self._check(info["return_value"])

                response = self._client(keeps).request(
                    method,
                    self._url + path,
                    content=body,
                    headers=dict(headers),
                    timeout=timeout_s,
                    extensions={} if keeps and self._check is None else {"trace": trace},
                )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NotConnected(str(error)) from error
        except httpx.HTTPError as error:
            was_held = not isinstance(error, httpx.TimeoutException)
            raise AnswerLost(f"no answer to {method} {path}: {error!r}", was_held=was_held) from error
        return Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, response.content)

    def close(self) -> None:
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    def _client(self, keeps: bool) -> httpx.Client:
        import httpx

        with self._lock:
            if keeps not in self._clients:
                limits = httpx.Limits(max_connections=None, max_keepalive_connections=_KEPT_CONNECTIONS if keeps else 0)
                # The sidecar is next to its agents: a proxy in the environment is for other places. Reading the
                # system's certificates costs 30 ms of CPU, and without TLS there is nothing to verify.
                has_tls = self._url.startswith("https:")
                self._clients[keeps] = httpx.Client(limits=limits, trust_env=False, verify=has_tls)
            return self._clients[keeps]
