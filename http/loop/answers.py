"""Writes answers: every one, of any handler, parked or not, goes through here, in the I/O thread.

What belongs to the connection (Connection, Transfer-Encoding, Date, Server, a missing Content-Length) is added here, by
RFC 9112 and as Waitress does it. Head and body leave in one send where they are small. What the socket does not take
waits in the connection's output.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

from waitress.utilities import InternalServerError, build_http_date

from .delivery import tell_receipt
from .reply import Headers, Reply

log = logging.getLogger(__name__)

JOINED_BYTES = 64 << 10  # up to here it is cheaper to join head and body than to send each by itself
_WITHOUT_BODY = frozenset({204, 304})
_FAILED = "The server encountered an unexpected internal server error"

RenderRefusal = Callable[[int, str, str | None], tuple[Headers, bytes]]
Receipt = Callable[[bool], None]


class Channel(Protocol):
    """The part of a connection that an answer touches."""

    adj: Any
    request: Any  # the one that is half received
    requests: list[Any]  # complete ones, of which the first is being answered
    total_outbufs_len: int
    close_when_flushed: bool
    sent_continue: bool
    was_refused: bool
    last_activity: float

    def send(self, data: bytes | memoryview, do_close: bool = True) -> int: ...

    def write_soon(self, data: bytes) -> int: ...

    def send_continue(self) -> None: ...

    def expect_verdict(self, receipt: Receipt, answer_bytes: int) -> None: ...


def write_answer(
    channel: Channel,
    render: Callable[[], Reply],
    *,
    is_last: bool,
    render_refusal: RenderRefusal | None,
    receipt: Receipt | None = None,
) -> None:
    """Write the answer to the first request of the queue, and take the request out.

    An answer that cannot be rendered becomes a 500. is_last: close the connection when it is sent. receipt: see Parked.
    """
    request = channel.requests[0]
    try:
        status, headers, body = render()
        if not has_body(status):
            body = b""
        head = answer_head(
            request, status, headers, length=len(body), now=int(time.time()), is_last=is_last, ident=channel.adj.ident
        )
    except Exception:
        log.exception("answer cannot be rendered path=%s", request.path)
        if receipt is not None:
            tell_receipt(receipt, False)
        refuse(channel, InternalServerError(_FAILED), render_refusal)
        return
    if request.command == "HEAD":
        body = b""
    if receipt is not None:
        if request.command == "HEAD":
            tell_receipt(receipt, False)  # it will never see the body
        else:
            channel.expect_verdict(receipt, len(head.text) + len(body))
    _send(channel, head.text, body)
    finish_request(channel, is_last=head.is_last)


def write_stream_head(channel: Channel, headers: Headers) -> AnswerHead:
    """Write the head of an answer without an end; its request stays in the queue."""
    head = answer_head(
        channel.requests[0],
        200,
        headers,
        length=None,
        now=int(time.time()),
        is_last=False,
        ident=channel.adj.ident,
    )
    _send(channel, head.text, b"")
    return head


def fail(channel: Channel, render_refusal: RenderRefusal | None) -> None:
    """Answer 500 for a handler that failed."""
    refuse(channel, InternalServerError(_FAILED), render_refusal)


def refuse(channel: Channel, error: Any, render_refusal: RenderRefusal | None) -> None:
    """Answer what never reached the application, or what it let fail. error: one of Waitress's."""
    request = channel.requests[0]
    channel.was_refused = True

    def render() -> Reply:
        if render_refusal is None:
            _, headers, body = error.to_response(channel.adj.ident)
        else:
            headers, body = render_refusal(error.code, str(error.body), request.headers.get("X_REQUEST_ID"))
        return error.code, headers, body

    write_answer(channel, render, is_last=True, render_refusal=None)


def finish_request(channel: Channel, *, is_last: bool) -> None:
    """Take the first request out of the queue; with the last answer of a connection, all that are behind it too."""
    if is_last:
        channel.close_when_flushed = True
        for request in channel.requests:
            request.close()
        channel.requests = []
    else:
        channel.requests.pop(0).close()
        following = channel.request
        if (
            following is not None
            and not channel.requests
            and following.expect_continue
            and following.headers_finished
            and not channel.sent_continue
        ):
            channel.send_continue()  # it could not be sent before the answers that come first
    channel.last_activity = time.time()


def _send(channel: Channel, head: bytes, body: bytes) -> None:
    if channel.total_outbufs_len or len(body) > JOINED_BYTES:
        channel.write_soon(head)
        channel.write_soon(body)
        return
    data = head + body
    sent = channel.send(data, do_close=False)
    if sent < len(data):
        channel.write_soon(data[sent:])


# --- The head of an answer. Pure. ---------------------------------------------------------------------------------


class RequestLine(Protocol):
    """What an answer goes by. headers: by the names in a WSGI environ, without `HTTP_`."""

    version: str
    command: str
    headers: Mapping[str, str]


class AnswerHead(NamedTuple):
    """is_last: the connection closes after this answer. is_chunked: the body has to be sent in chunks."""

    text: bytes
    is_last: bool
    is_chunked: bool


def has_body(status: int) -> bool:
    return status >= 200 and status not in _WITHOUT_BODY


def answer_head(
    request: RequestLine, status: int, headers: Headers, *, length: int | None, now: int, is_last: bool, ident: str
) -> AnswerHead:
    """The head of the answer to `request`.

    length: of the body, used where the headers do not say it; None: it is not known before the body ends. now: Unix
    time. is_last: close the connection after this answer, whatever the client wishes. Raises ValueError for a header
    that would end its line and begin another.
    """
    may_have_body = has_body(status)
    if not may_have_body:
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError("line break in a response header")
    # First as our own answers have it.
    has_length = "\nContent-Length:" in lines or "\ncontent-length:" in f"\n{lines}".lower()
    if not has_length and length is not None and may_have_body:
        lines += f"Content-Length: {length}\r\n"
        has_length = True
    version = "1.1" if request.version == "1.1" else "1.0"
    wish = request.headers.get("CONNECTION", "").lower()
    is_last = is_last or not has_length or (wish == "close" if version == "1.1" else wish != "keep-alive")
    is_chunked = version == "1.1" and not has_length and may_have_body
    if is_chunked:
        lines += "Transfer-Encoding: chunked\r\n"
    if is_last:
        lines += "Connection: close\r\n"
    elif version == "1.0":
        lines += "Connection: Keep-Alive\r\n"
    text = f"{_first_lines(version, status, now, ident)}{lines}\r\n".encode("latin-1")
    return AnswerHead(text, is_last, is_chunked)


@lru_cache(maxsize=16)
def _first_lines(version: str, status: int, now: int, ident: str) -> str:
    return f"HTTP/{version} {status_line(status)}\r\nDate: {build_http_date(now)}\r\nServer: {ident}\r\n"


def status_line(status: int) -> str:
    """Such as `404 Not Found`."""
    return f"{status} {HTTPStatus(status).phrase}"
