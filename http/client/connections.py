"""Carries out the steps of calls over blocking connections to one server.

httpx is imported with the first exchange: `import sidecar.http.sdk` stays light for agents that only look things up.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from .steps import HttpRequest, Outcome, Pause, Steps

if TYPE_CHECKING:
    from .blocking_http import BlockingHttp
    from .vouching import SidecarCheck

T = TypeVar("T")


def require_url(url: str) -> str:
    """The URL of a server, without a slash at its end. Raises ValueError."""
    if not _is_of_a_server(url):
        raise ValueError(f"{url!r} is no URL of a server, expected http://HOST:PORT")
    return url.rstrip("/")


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


class BlockingConnections:
    """Connections to one server that stay open; any thread may use them, each exchange has one of its own.

    url: `http://host:port` or `https://…`; a path after it is put before every request's path. check: called with each
    new connection, before anything is sent over it; what it raises ends the call.
    """

    def __init__(self, url: str, *, check: SidecarCheck | None = None) -> None:
        self._url = require_url(url)
        self._check = check
        self._lock = threading.Lock()
        self._http: BlockingHttp | None = None

    def run(self, steps: Steps[T]) -> T:
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
                    outcome = self._opened().exchange(step)
                case Pause():
                    outcome = None
                    time.sleep(step.duration_s)

    def close(self) -> None:
        """Close every connection. A later call opens new ones."""
        with self._lock:
            http, self._http = self._http, None
        if http is not None:
            http.close()

    def _opened(self) -> BlockingHttp:
        from .blocking_http import BlockingHttp

        with self._lock:
            if self._http is None:
                self._http = BlockingHttp(self._url, check=self._check)
            return self._http
