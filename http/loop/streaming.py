"""An answer without an end, such as Server-Sent Events: any thread sends, the I/O thread writes, nobody waits.

A reader that is slower than its events is dropped when `max_buffered_bytes` are waiting for it; it comes back with
`Last-Event-ID`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .deadlines import Deadline, monotonic_s

if TYPE_CHECKING:
    from .connection import Connection

log = logging.getLogger(__name__)


class Stream:
    """The sending side of a stream. on_close: called once, in any thread, when the stream has ended for any reason."""

    def __init__(
        self,
        headers: Sequence[tuple[str, str]],
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
        self._connection: Connection | None = None
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

    def opened(self, connection: Connection) -> None:
        """The head is written; what was sent so far can follow."""
        with self._lock:
            self._connection = connection
            self._post()
        self._schedule_heartbeat(connection)

    def _schedule_heartbeat(self, connection: Connection) -> None:
        def beat() -> None:
            if self.send(self._heartbeat):
                self._schedule_heartbeat(connection)

        if self._heartbeat:
            self._deadline = connection.server.deadlines.add(monotonic_s() + self._heartbeat_s, beat)

    def pump(self) -> None:
        """Write what waits."""
        connection = self._connection
        if connection is None:
            return
        data, is_last, was_too_slow = self._take(connection.total_outbufs_len)
        if was_too_slow:
            log.info("stream dropped, its reader is too slow address=%s", connection.addr)
            connection.handle_close()
            return
        if data:
            connection.write_soon(data)
            self.flushed(connection.total_outbufs_len)
        if is_last:
            connection.finish_stream()
        connection.proceed()

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
        self._in_output_bytes = in_output_bytes

    def end(self) -> None:
        """The connection has no more to do with this stream."""
        with self._lock:
            connection, self._connection = self._connection, None
            self._is_closed = True
            if self._has_ended:
                return
            self._has_ended = True
        if connection is not None and self._deadline is not None:
            connection.server.deadlines.cancel(self._deadline)
        try:
            self._on_close()
        except Exception:
            log.exception("stream's on_close failed")

    def _post(self) -> None:
        if self._connection is not None and not self._is_posted:
            self._is_posted = True
            self._connection.server.post(self.pump)
