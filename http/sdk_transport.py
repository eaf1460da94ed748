"""HTTP/1.1 exchanges over connections that stay open, on the standard library alone.

Not httpx: every agent pays for its client each time it starts, and importing httpx and making a client costs four
times the CPU time of this (measured: 160 ms against 40 ms).
"""

from __future__ import annotations

import http.client
import select
import threading
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from .sdk_cancellation import cancellable

# Keeping more would only hold sockets: an agent has one wait open, one heartbeat and its own work.
_KEPT_CONNECTIONS = 8


class Answer(NamedTuple):
    """What came back. headers: names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NotConnected(Exception):
    """No connection could be made; the server has seen nothing of the request."""


class AnswerLost(Exception):
    """The connection ended, or the time was up, after the request was sent: the server may have acted on it."""


class Connections:
    """Connections to one server; any thread may make an exchange, each on a connection of its own.

    url: `http://host:port` or `https://…`; a path after it is put before every request's path.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no URL of a server, expected http://HOST:PORT")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._prefix = parts.path.rstrip("/")
        self._lock = threading.Lock()
        self._kept: list[http.client.HTTPConnection] = []

    def exchange(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> Answer:
        """Send one request, read its whole answer. timeout_s: for connecting, and for each silence after it.

        Raises NotConnected, AnswerLost or Cancelled.
        """
        connection = self._take(timeout_s)
        try:
            with cancellable(connection.sock):
                connection.request(method, self._prefix + path, body=body, headers=dict(headers))
                response = connection.getresponse()
                named = {name.lower(): value for name, value in response.getheaders()}
                answer = Answer(response.status, named, response.read())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise AnswerLost(f"no answer to {method} {path}: {error!r}") from error
        except BaseException:
            # A signal in the middle of an answer: what is left of it must not be read as the next one.
            connection.close()
            raise
        if response.will_close or not self._keep(connection):
            connection.close()
        return answer

    def close(self) -> None:
        with self._lock:
            kept, self._kept = self._kept, []
        for connection in kept:
            connection.close()

    def _take(self, timeout_s: float) -> http.client.HTTPConnection:
        while True:
            with self._lock:
                connection = self._kept.pop() if self._kept else None
            if connection is None:
                return self._connect(timeout_s)
            if connection.sock is not None and not _has_something_to_read(connection):
                connection.sock.settimeout(timeout_s)
                return connection
            connection.close()

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=timeout_s)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise NotConnected(f"{self._host}:{connection.port}: {error.strerror or error}") from error
        return connection

    def _keep(self, connection: http.client.HTTPConnection) -> bool:
        with self._lock:
            if len(self._kept) >= _KEPT_CONNECTIONS:
                return False
            self._kept.append(connection)
            return True


def _has_something_to_read(connection: http.client.HTTPConnection) -> bool:
    """Between exchanges the server has nothing to say but that it closed the connection."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
