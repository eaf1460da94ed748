"""Requests that wait without a thread: a handler parks its request, the answer is written when it is known.

A handler calls `environ["sidecar.park"](…)` (or `["sidecar.stream"](…)`) and returns an empty body. The task then
raises Park, which unwinds Waitress's `service` before it drops the request: the connection keeps its place in the
order of pipelined requests, and the worker thread is free. `connection.py` writes the answer later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from waitress.task import ErrorTask, Task, WSGITask

from ...actors.runtime.asking import Later
from .deadlines import Deadline, monotonic_s
from .delivery import tell_receipt
from .streaming import Stream

if TYPE_CHECKING:
    from .connection import Connection

ACCOUNT = "sidecar.account"  # in an environ: whose memory an answer counts as while the client has not read it

Headers = Sequence[tuple[str, str]]
Reply = tuple[int, Headers, bytes]


class Parked:
    """A request that waits for `later`.

    render: makes status, headers and body of the finished future, in the I/O thread, so it must be quick; its
    headers are the whole answer's (those given to `start_response` are dropped). due: `monotonic_s` at which `later`
    is cancelled, and what `render` gives for a cancelled future becomes the answer. receipt: told True when the
    client took the answer, False when it was lost; called at most once, and never while that is not known.
    """

    __slots__ = ("_reply", "connection", "deadline", "due", "later", "receipt", "render")

    def __init__(
        self,
        later: Later[Any],
        render: Callable[[Later[Any]], Reply],
        *,
        due: float,
        receipt: Callable[[bool], None] | None = None,
    ) -> None:
        self.later = later
        self.render = render
        self.due = due
        self.receipt = receipt
        self.connection: Connection | None = None
        self.deadline: Deadline | None = None
        self._reply: Reply | None = None

    @classmethod
    def answered(cls, reply: Reply) -> Parked:
        """A request that did not have to wait after all."""
        return cls(Later(), lambda _: reply, due=0.0)

    def woken(self, _: Later[Any]) -> None:
        """The answer is known; called in whichever thread found it."""
        connection = self.connection
        if connection is not None:
            connection.server.wake(self)

    def expire(self) -> None:
        """The time is up."""
        if self.connection is not None:
            self.later.cancel()

    def abandon(self) -> None:
        """The client is gone. If the answer was given in this very moment, then it is lost."""
        if not self.later.cancel():
            self.lost()
        self.detach()

    def detach(self) -> None:
        """Finish it, and release the future, which keeps a reference to `woken`."""
        self.connection = None
        del self.later, self.render

    def lost(self) -> None:
        if self.receipt is not None and self.was_answered():
            tell_receipt(self.receipt, False)

    def was_answered(self) -> bool:
        """Whether there is something to take or to lose: not so for an error or a cancelled wait."""
        return self.later.done() and not self.later.cancelled() and self.later.exception() is None

    def reply(self) -> Reply:
        """The answer, rendered once. Raises what `render` raises."""
        if self._reply is None:
            try:
                self._reply = self.render(self.later)
            except CancelledError:  # a renderer that does not look: the plainest answer is the right one
                self._reply = 503, (), b""
        return self._reply


class Park(BaseException):
    """Unwinds Waitress's `service`, which catches OSError and Exception, and leaves the request in its place."""


class Slip:
    """A handler's wish to park its request after it has returned.

    An object of its own: methods of the task in the environ would make every request a reference cycle.
    """

    __slots__ = ("parked", "stream")

    def __init__(self) -> None:
        self.parked: Parked | None = None
        self.stream: Stream | None = None

    @property
    def is_empty(self) -> bool:
        return self.parked is None and self.stream is None

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
        self.parked = Parked(later, render, due=monotonic_s() + deadline_s, receipt=receipt)

    def open_stream(
        self,
        *,
        headers: Headers,
        on_close: Callable[[], None],
        max_buffered_bytes: int = 1 << 20,
        heartbeat: bytes = b"",
        heartbeat_s: float = 15.0,
    ) -> Stream:
        """Answer 200 with a body that is sent bit by bit. See Stream."""
        self._must_be_empty()
        self.stream = Stream(
            headers,
            on_close=on_close,
            max_buffered_bytes=max_buffered_bytes,
            heartbeat=heartbeat,
            heartbeat_s=heartbeat_s,
        )
        return self.stream

    def _must_be_empty(self) -> None:
        if not self.is_empty:
            raise RuntimeError("the request is parked already")

    def withdraw(self) -> None:
        """The handler answered by itself after all, most likely with an error."""
        if self.parked is not None:
            self.parked.abandon()
            self.parked = None
        if self.stream is not None:
            self.stream.end()
            self.stream = None


class HandlerTask(WSGITask):  # type: ignore[misc]  # waitress has no types
    """Calls the WSGI application, whose handler may park the request."""

    def __init__(self, channel: Connection, request: Any) -> None:
        super().__init__(channel, request)
        self.slip = Slip()

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        environ["sidecar.park"] = self.slip.park
        environ["sidecar.stream"] = self.slip.open_stream
        return environ

    def execute(self) -> None:
        try:
            super().execute()
        except BaseException:
            self.slip.withdraw()
            raise
        finally:
            self.channel.account = self.get_environment().get(ACCOUNT)

    def write(self, data: bytes) -> None:
        if data and not self.slip.is_empty:
            self.slip.withdraw()
        if self.slip.is_empty:
            super().write(data)

    def finish(self) -> None:
        if not self.slip.is_empty:
            if self.status.startswith("2"):
                self.channel.slip = self.slip
                raise Park
            self.slip.withdraw()
        super().finish()


_NO_HEADERS: dict[str, str] = {}


def forget_details(request: Any) -> None:
    """Keep of a request that waits what its answer needs: thousands of them would hold on to 3 KB of headers each."""
    connection = request.headers.get("CONNECTION")
    request.__dict__ = {
        "version": request.version,
        "command": request.command,
        "path": request.path,
        "headers": _NO_HEADERS if connection is None else {"CONNECTION": connection},
    }


class ReplyTask(Task):  # type: ignore[misc]
    """Writes the answer of a request that was parked, head and body in one send."""

    complete = True  # what Waitress asks for: the status is known

    def execute(self) -> None:
        connection: Connection = self.channel
        parked = connection.answering
        assert parked is not None
        try:
            status, headers, body = parked.reply()
            payload = self._payload(status, headers, body)
        except BaseException:
            parked.lost()  # the client gets a 500
            raise
        if parked.receipt is not None and parked.was_answered():
            if self.request.command == "HEAD":
                parked.lost()  # it will never see the body
            else:
                connection.expect_verdict(parked.receipt, len(payload))
        connection.write_soon(payload)

    def _payload(self, status: int, headers: Headers, body: bytes) -> bytes:
        self.status = status_line(status)
        self.response_headers.extend(checked(headers))
        if not self.has_body:
            body = b""
        self.content_length = len(body)
        if self.channel.server.is_draining:
            self.set_close_on_finish()
        head: bytes = self.build_response_header()
        self.wrote_header = True
        return head if self.request.command == "HEAD" else head + body


class StreamTask(Task):  # type: ignore[misc]
    """Writes the head of a stream and leaves the request in its place until the stream ends."""

    complete = True

    def execute(self) -> None:
        stream = self.channel.stream
        self.response_headers.extend(checked(stream.headers))
        self.channel.write_soon(self.build_response_header())
        self.wrote_header = True
        if self.request.command == "HEAD":
            self.chunked_response = False
            stream.end()
            return
        stream.is_chunked = self.chunked_response
        raise Park


class RefusalTask(ErrorTask):  # type: ignore[misc]
    """Answers what never reached the application: a request that cannot be read, or a handler that failed."""

    def execute(self) -> None:
        self.channel.was_refused = True
        render = self.channel.server.render_refusal
        if render is None:
            super().execute()
            return
        error = self.request.error
        headers, body = render(error.code, str(error.body), self.request.headers.get("X_REQUEST_ID"))
        self.status = status_line(error.code)
        self.response_headers.extend(checked(headers))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


def status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


def checked(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers; raises ValueError for one that would end its line and begin another."""
    as_list = list(headers)
    for name, value in as_list:
        if "\n" in value or "\r" in value or "\n" in name or "\r" in name:
            raise ValueError(f"line break in response header {name!r}")
    return as_list
