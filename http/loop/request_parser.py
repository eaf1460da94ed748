"""Waitress's parser, with a body limit for each path, and a cache for headers that repeat.

An agent that polls sends the same headers each time, byte for byte. Parsing them takes a fifth of the time of a
publish, so their second result is cached by their bytes. Waitress parses all other headers, and headers that it
refuses are never cached.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from waitress.buffers import OverflowableBuffer
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.receiver import ChunkedReceiver, FixedStreamReceiver
from waitress.task import WSGITask
from waitress.utilities import BadRequest, RequestEntityTooLarge

from .handling import Environ, Handler

LimitOf = Callable[[str, str], int]
FindQuick = Callable[[str, str], Handler | None]

HEAD = "sidecar.head"  # in an environ: the RememberedHead that the request came with, or None

REMEMBERED_HEADS = 1024
REMEMBERED_BYTES = 1536 << 10  # of heads; what is known of one takes about eight times its bytes
SEEN_HEADS = 16_384  # 100 bytes each
MAX_REMEMBERED_BYTES = 4096
MAX_CHUNK_LINE_BYTES = 4096  # Waitress searches what it has of a line again with all that comes
MAX_TRAILER_BYTES = 16 << 10
MAX_FIELD_LINES = 256  # of a head; the I/O thread needs 10 µs for each
MAX_QUICK_BODY_BYTES = 32 << 10  # about 0.2 ms to decode; more of it would hold up others
_END_OF_HEAD = b"\r\n\r\n"
_FOLDED = re.compile(rb"\r\n[ \t]")
_CODINGS = re.compile(rb"(?i)\r\ntransfer-encoding:([^\r\n]*)")
_TLS_HANDSHAKE = b"\x16"  # how a TLS client begins (RFC 8446, section 5.1), and no method does


class RememberedHead:
    """Headers that came before.

    fields: of the parser. environ: the part of a request's environ that depends on the headers alone, once it was
    needed. meaning: what the application derived from these headers, for the next request with them.
    """

    __slots__ = ("environ", "fields", "meaning")

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = fields
        self.environ: Mapping[str, Any] | None = None
        self.meaning: Any = None


class Heads:
    """The headers that a server has cached, and decisions that depend on headers alone. For its I/O thread.

    limit_of: from method and path to the maximum size of a body. find_quick: from method and path to the function
    that answers in the I/O thread, if it never waits.
    """

    def __init__(self, limit_of: LimitOf, find_quick: FindQuick) -> None:
        self._limit_of = limit_of
        self._find_quick = find_quick
        self._known: dict[bytes, RememberedHead] = {}
        self._known_bytes = 0
        self._seen: dict[int, None] = {}  # hashes of headers that came once
        self._adjusted: dict[int, Any] = {}  # by limit; a copy for each request would cost more than the check

    def get(self, head: bytes) -> RememberedHead | None:
        return self._known.get(head)

    def read(self, parser: RequestParser, head: bytes) -> None:
        """Waitress has parsed `head`: make the decisions that depend on it, and cache it if nothing about it is
        special."""
        limit = self._limit_of(parser.command, parser.path)
        if limit not in self._adjusted:
            self._adjusted[limit] = copy.copy(parser.adj)
            # It refuses a size equal to its limit; ours is the largest size allowed.
            self._adjusted[limit].max_request_body_size = limit + 1
        parser.adj = self._adjusted[limit]
        parser.quick = self._find_quick(parser.command, parser.path)
        is_plain = not parser.chunked and not parser.expect_continue and parser.content_length <= limit
        if is_plain and head.endswith(_END_OF_HEAD) and len(head) <= MAX_REMEMBERED_BYTES and self._came_before(head):
            fields = {name: value for name, value in vars(parser).items() if name not in _OF_ONE_REQUEST}
            parser.head = RememberedHead(fields)
            self._remember(head, parser.head)

    def _remember(self, head: bytes, known: RememberedHead) -> None:
        """Cache it, and drop the oldest if there is no space."""
        self._known_bytes += len(head)
        while len(self._known) >= REMEMBERED_HEADS or self._known_bytes > REMEMBERED_BYTES:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._known_bytes -= len(oldest)
        self._known[head] = known

    def _came_before(self, head: bytes) -> bool:
        """Many headers come only once, such as those that acknowledge; they must not push out those that repeat."""
        known_as = hash(head)
        if known_as in self._seen:
            del self._seen[known_as]
            return True
        while len(self._seen) >= SEEN_HEADS:
            del self._seen[next(iter(self._seen))]
        self._seen[known_as] = None
        return False


_OF_ONE_REQUEST = frozenset({"header_plus", "body_rcv", "completed", "headers_finished", "body_bytes_received"})
# Keys of an environ that depend on the connection or the body.
_NOT_OF_HEAD = frozenset({"REMOTE_ADDR", "REMOTE_HOST", "REMOTE_PORT", "waitress.client_disconnected", "wsgi.input"})


class RequestParser(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
    """One request as it arrives. A subclass sets its Heads."""

    heads: Heads
    adj: Any
    error: Any
    command = ""  # until the head is read
    path = ""
    head: RememberedHead | None = None  # if it is remembered
    headers: dict[str, str]
    version: str
    completed: bool
    body_rcv: Any
    quick: Handler | None = None
    whole_body: bytes | None = None  # a body that came with its head, in one piece

    def received(self, data: bytes) -> int:
        if not self.header_plus and not self.headers_finished:
            if data.startswith(_TLS_HANDSHAKE):  # a client of https:// waits, and its headers would never end
                return self._refuse(data, "it is TLS, and this port speaks plain HTTP")
            end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
            known = self.heads.get(data[:end]) if end >= len(_END_OF_HEAD) else None
            if known is not None:
                return self._take(known, data, end)
        consumed: int = super().received(data)
        if isinstance(self.error, RequestEntityTooLarge):
            self.error = RequestEntityTooLarge(str(self.adj.max_request_body_size - 1))
        elif self.chunked and not self.completed and _is_endless(self.body_rcv):
            self.error = BadRequest("a line between chunks is too long")
            self.completed = True
        return consumed

    def _refuse(self, data: bytes, why: str) -> int:
        super().parse_header(b"GET / HTTP/1.0\r\n")  # an answer depends on the headers
        self.error = BadRequest(why)
        self.completed = True
        return len(data)

    def _take(self, known: RememberedHead, data: bytes, end: int) -> int:
        """Begin as Waitress would with these headers. Returns how much of `data` is consumed."""
        self.__dict__.update(known.fields)
        self.head = known
        self.headers_finished = True
        length: int = self.content_length
        if not length:
            self.completed = True
            return end
        if len(data) < end + length:
            self.body_rcv = FixedStreamReceiver(length, OverflowableBuffer(self.adj.inbuf_overflow))
            return end
        self.whole_body = data[end : end + length]
        self.body_bytes_received = length
        self.completed = True
        return end + length

    def parse_header(self, header_plus: bytes) -> None:
        _refuse_odd_lines(header_plus)
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # Content-Length has more digits than Python reads
            raise ParsingError("a number in the head is too long") from error
        self._refuse_two_lengths(header_plus)
        self._read_connection()
        self.heads.read(self, header_plus)

    def _refuse_two_lengths(self, head: bytes) -> None:
        """A proxy may use the other length, and then treat the rest of a body as the next request (smuggling).

        Source: RFC 9112, section 6.1, for both headers together, for Transfer-Encoding in HTTP/1.0, and for chunked
        coding applied twice, which Waitress would read as once.
        """
        if self.chunked and "CONTENT_LENGTH" in self.headers:
            raise ParsingError("both Content-Length and Transfer-Encoding")
        if self.chunked and b",".join(_CODINGS.findall(head)).lower().count(b"chunked") > 1:
            raise ParsingError("Transfer-Encoding names chunked twice")
        if "TRANSFER_ENCODING" in self.headers:  # Waitress removes it after reading it
            raise ParsingError("Transfer-Encoding in HTTP/1.0")

    def _read_connection(self) -> None:
        """Connection is a list (RFC 9110, section 7.6.1), but Waitress compares the whole list with one word."""
        options = self.headers.get("CONNECTION", "")
        if "," not in options:
            return
        given = {option.strip(" \t").lower() for option in options.split(",")}
        meant = next((word for word in ("close", "keep-alive") if word in given), options)
        self.headers["CONNECTION"] = meant
        self.connection_close = meant == "close" or (self.version == "1.0" and meant != "keep-alive")

    def get_body_stream(self) -> Any:
        return super().get_body_stream() if self.whole_body is None else BytesIO(self.whole_body)

    def environ(self, channel: Any) -> Environ:
        """The environ that Waitress's task would give to the application, for a request on `channel`."""
        head = self.head
        if head is None:
            environ: Environ = WSGITask(channel, self).get_environment()
            environ[HEAD] = None
            return environ
        if head.environ is None:
            of_all = WSGITask(channel, self).get_environment()
            head.environ = {name: value for name, value in of_all.items() if name not in _NOT_OF_HEAD}
        return {**head.environ, "REMOTE_ADDR": channel.addr[0], "wsgi.input": self.get_body_stream(), HEAD: head}


def _refuse_odd_lines(head: bytes) -> None:
    """Refuse headers that readers see differently, or that take long to read. Raises ParsingError.

    Source: RFC 9112, section 5.2, for a folded header line.
    """
    if head.count(b"\r\n") > MAX_FIELD_LINES:
        raise ParsingError(f"the head has more than {MAX_FIELD_LINES} lines")
    if _FOLDED.search(head) is not None:
        raise ParsingError("a field of the head goes on in the next line")


def _is_endless(body: Any) -> bool:
    """Whether a line between the chunks of a body, or after the last, has no end."""
    return isinstance(body, ChunkedReceiver) and (
        len(body.control_line) > MAX_CHUNK_LINE_BYTES or len(body.trailer) > MAX_TRAILER_BYTES
    )


def parser_of(limit_of: LimitOf, find_quick: FindQuick) -> type[RequestParser]:
    """The parser of a server: a subclass with its own cache."""
    return type("ServersParser", (RequestParser,), {"heads": Heads(limit_of, find_quick)})
