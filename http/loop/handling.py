"""Runs the handler of a request, in the I/O thread or in a worker: the same steps in both.

A handler never writes to the connection. It returns an answer, or calls `environ["sidecar.park"](…)` or
`environ["sidecar.stream"](…)` and returns nothing; the I/O thread does the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from ...actors.runtime.asking import Later
from .deadlines import monotonic_s
from .parking import Parked
from .reply import Headers, Reply
from .streaming import Stream

log = logging.getLogger(__name__)

Environ = dict[str, Any]
App = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
Handler = Callable[[Environ], Reply | None]  # None: the request is parked
Outcome = Reply | Parked | Stream | None  # None: the handler failed


class ParkingRequest:
    """A handler's request to park, or to open a stream, after it has returned.

    An object of its own: methods of the connection in the environ would make every request a reference cycle.
    """

    __slots__ = ("pending",)

    def __init__(self) -> None:
        self.pending: Parked | Stream | None = None

    def park(
        self,
        later: Later[Any],
        *,
        render: Callable[[Later[Any]], Reply],
        deadline_s: float,
        receipt: Callable[[bool], None] | None = None,
    ) -> None:
        """Answer when `later` is done, at the latest in `deadline_s` seconds. See Parked."""
        self._must_be_empty()
        self.pending = Parked(later, render, due=monotonic_s() + deadline_s, receipt=receipt)

    def open_stream(
        self,
        *,
        headers: Headers,
        on_close: Callable[[], None],
        max_buffered_bytes: int = 1 << 20,
        heartbeat: bytes = b"",
        heartbeat_s: float = 15.0,
    ) -> Stream:
        """Answer 200 with a body that is sent in pieces. See Stream."""
        self._must_be_empty()
        self.pending = Stream(
            headers,
            on_close=on_close,
            max_buffered_bytes=max_buffered_bytes,
            heartbeat=heartbeat,
            heartbeat_s=heartbeat_s,
        )
        return self.pending

    def _must_be_empty(self) -> None:
        if self.pending is not None:
            raise RuntimeError("the request is parked already")

    def withdraw(self) -> None:
        """Abandon the parked request: the handler has answered itself, most likely with an error."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.abandon()


def outcome_of(handle: Handler, environ: Environ) -> Outcome:
    """Run a handler. A failure is logged here, and a parked request is given up.

    An answer of a handler that has parked its request counts only if it is an error or has a body.
    """
    parking = ParkingRequest()
    environ["sidecar.park"] = parking.park
    environ["sidecar.stream"] = parking.open_stream
    try:
        reply = handle(environ)
    except Exception:
        log.exception("handler failed path=%s", environ["PATH_INFO"])
        parking.withdraw()
        return None
    if reply is None or (parking.pending is not None and 200 <= reply[0] < 300 and not reply[2]):
        return parking.pending
    parking.withdraw()
    return reply


def handler_of(app: App) -> Handler:
    """A WSGI application as a handler. The body has to be an iterable: `write` of PEP 3333 is not there."""

    def handle(environ: Environ) -> Reply:
        started: list[tuple[str, Headers]] = []

        def start_response(status: str, headers: Headers, exc_info: object = None) -> None:  # noqa: ARG001  # PEP 3333
            started.append((status, headers))

        pieces = app(environ, start_response)
        try:
            body = b"".join(pieces)
        finally:
            if (close := getattr(pieces, "close", None)) is not None:
                close()
        status, headers = started[-1]
        return int(status[:3]), headers, body

    return handle
