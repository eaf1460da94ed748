"""An answer without an end, such as Server-Sent Events: any thread sends, the I/O thread writes, nobody waits.

A reader that is slower than its events is dropped when `max_buffered_bytes` are waiting for it; it can resume with
`Last-Event-ID`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol

from .deadlines import Deadline, Deadlines, monotonic_s
from .reply import Headers

log = logging.getLogger(__name__)


class Outlet(Protocol):
    """The connection that a stream is written to. total_outbufs_len: bytes that the client has not taken yet."""

    addr: Any
    total_outbufs_len: int

    def write_soon(self, data: bytes) -> int: ...

    def finish_stream(self) -> None: ...

    def proceed(self) -> None: ...

    def handle_close(self) -> None: ...


class StreamLoop(Protocol):
    """The loop that writes a stream. post: have something called in its thread."""

    deadlines: Deadlines
    post: Callable[[Callable[[], None]], None]


class Stream:
    """The sending side of a stream. on_close: called once, in any thread, when the stream has ended, for any
    reason."""

    def __init__(
        self,
        headers: Headers,
        *,
        on_close: Callable[[], None],
        max_buffered_bytes: int,
        heartbeat: bytes,
        heartbeat_s: float,
    ) -> None:
        self.headers = headers
        self.is_chunked = False
        self._heartbeat = heartbeat
        self._heartbeat_s = heartbeat_s
        self._deadline: Deadline | None = None
        self._on_close = on_close
        self._max_buffered_bytes = max_buffered_bytes
        self._lock = threading.Lock()
        self._to: tuple[Outlet, StreamLoop] | None = None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._in_output_bytes = 0
        self._is_closed = False
        self._was_too_slow = False
        self._has_ended = False
        self._is_posted = False

    def send(self, data: bytes) -> bool:
        """Queue `data`. False: the stream is closed, or was closed just now because its reader is too slow."""
        with self._lock:
            if self._is_closed:
                return False
            fits = self._waiting_bytes + self._in_output_bytes + len(data) <= self._max_buffered_bytes
            if fits:
                self._waiting.append(data)
                self._waiting_bytes += len(data)
            else:
                self._is_closed = self._was_too_slow = True
                self._waiting.clear()
            self._post()
        return fits

    def close(self) -> None:
        """End the answer after what was sent so far."""
        with self._lock:
            self._is_closed = True
            self._post()

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    # The I/O thread's half.

    def begin(self, outlet: Outlet, loop: StreamLoop) -> None:
        """Send what was queued so far, and from now on what comes: the head of the answer is written."""
        with self._lock:
            self._to = outlet, loop
            self._post()
        self._schedule_heartbeat(loop)

    def _schedule_heartbeat(self, loop: StreamLoop) -> None:
        def beat() -> None:
            if self.send(self._heartbeat):
                self._schedule_heartbeat(loop)

        if self._heartbeat:
            self._deadline = loop.deadlines.add(monotonic_s() + self._heartbeat_s, beat)

    def _pump(self) -> None:
        """Write what waits."""
        if self._to is None:
            return
        outlet, _ = self._to
        data, is_last, was_too_slow = self._take(outlet.total_outbufs_len)
        if was_too_slow:
            log.info("stream dropped, its reader is too slow address=%s", outlet.addr)
            outlet.handle_close()
            return
        if data:
            outlet.write_soon(data)
            self.flushed(outlet.total_outbufs_len)
        if is_last:
            outlet.finish_stream()
        outlet.proceed()

    def _take(self, in_output_bytes: int) -> tuple[bytes, bool, bool]:
        """What waits, framed for the wire; whether it is the last; whether the reader was too slow for it.

        in_output_bytes: what the client has not read yet. One look at all three, for senders go on meanwhile.
        """
        with self._lock:
            self._is_posted = False
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
            self._in_output_bytes = in_output_bytes + len(data)
            is_last, was_too_slow = self._is_closed, self._was_too_slow
        if self.is_chunked:
            data = (b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + (b"0\r\n\r\n" if is_last else b"")
        return data, is_last, was_too_slow

    def flushed(self, in_output_bytes: int) -> None:
        """Note how many bytes the client has not taken yet."""
        self._in_output_bytes = in_output_bytes

    def abandon(self) -> None:
        """End: the connection has no more to do with this stream."""
        with self._lock:
            to, self._to = self._to, None
            self._is_closed = True
            if self._has_ended:
                return
            self._has_ended = True
        if to is not None and self._deadline is not None:
            to[1].deadlines.cancel(self._deadline)
        try:
            self._on_close()
        except Exception:
            log.exception("stream's on_close failed")

    def _post(self) -> None:
        if self._to is not None and not self._is_posted:
            self._is_posted = True
            self._to[1].post(self._pump)
