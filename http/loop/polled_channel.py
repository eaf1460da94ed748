"""A channel that the poller watches: its stage, the events to watch, the memory held for it, and its end."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Hashable
from typing import Any, Protocol

from .backlog import Backlog, Held
from .deadlines import Deadlines, monotonic_s
from .delivery import Evidence
from .poller import BROKEN, HANGUP, READ, Poller, Watch
from .stages import NEXT, Move, Stage, interest
from .watched_channel import WatchedChannel

log = logging.getLogger(__name__)

# How long a client may take to read the last bytes of a connection's last answer.
LINGER_S = 5.0
LINGER_AT_SHUTDOWN_S = 1.0
_DISCARD_BYTES = 1 << 16


class PollingLoop(Protocol):
    """The part of the server that a polled channel uses. sees_hangup: the poller reports the end of a client's input.

    is_draining: nothing new is accepted, answers end their connections. post: have something called in the I/O thread.
    """

    poller: Poller
    sees_hangup: bool
    deadlines: Deadlines
    unread: Backlog[Any]
    incoming: Backlog[Any]
    is_draining: bool
    post: Callable[[Callable[[], None]], None]


class PolledChannel(WatchedChannel):
    """A channel for a loop that waits in a poller. account: the account of its answers, named by the application."""

    server: PollingLoop
    requests: list[Any]
    close_when_flushed: bool
    stage = Stage.IDLE
    watch: Watch
    held: Held[PolledChannel]
    account: Hashable = None
    was_refused = False

    def add_channel(self, map: dict[int, Any] | None = None) -> None:
        super().add_channel(map)
        self.watch = Watch(self.server.poller, self._fileno, READ | HANGUP)
        self.held = Held(self, unread=self.server.unread, incoming=self.server.incoming)

    def del_channel(self, map: dict[int, Any] | None = None) -> None:
        self.held.forget()
        self.watch.end()
        super().del_channel(map)

    @property
    def is_open(self) -> bool:
        return self._fileno is not None

    def move(self, move: Move) -> None:
        """Go to the next stage. Raises KeyError for a move that this stage does not allow."""
        self.stage = NEXT[self.stage, move]

    # --- What the poller watches, and what the server holds -----------------------------------------------------------

    def update_interest(self) -> None:
        """Watch for the events of the stage, and note the memory held. For an open channel, after each change."""
        if self.total_outbufs_len or self.held.unread_bytes:
            self._cut(self.held.note_unread(self.output.held_bytes, self.account), "its client does not read")
        if self.held.incoming_bytes:
            self.note_incoming()
        flags, has_output = self.watch.flags, self.total_outbufs_len > 0
        if has_output or flags != READ | HANGUP:  # else all is as in nearly every request
            is_readable = not flags & READ and self.readable()
            self.watch.change(interest(self.stage, flags, is_readable=is_readable, has_output=has_output))

    def note_incoming(self) -> None:
        """Note the bytes of bodies that no handler has yet."""
        unfinished = [] if self.request is None else [self.request]
        count = sum(request.body_bytes_received for request in [*self.requests, *unfinished])
        self._cut(self.held.note_incoming(count), "too many bodies are under way")

    def _cut(self, connections: list[Any], why: str) -> None:
        for connection in connections:
            log.warning("connection closed, %s address=%s", why, connection.addr)
            self.server.post(connection.handle_close)

    def watch_input(self) -> None:
        """Watch for more input, and for its end."""
        if ~self.watch.flags & (READ | HANGUP):
            self.watch.change(self.watch.flags | READ | HANGUP)

    def mute(self, flags: int) -> None:
        """Leave input in the kernel until the request before it is answered: order kept, memory bounded."""
        self.watch.change(self.watch.flags & ~(flags & (READ | HANGUP)))
        self.discount_input()

    def has_hung_up_unseen(self) -> bool:
        """Check the socket if the poller does not tell the end of input from input."""
        if self.server.sees_hangup:
            return False
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b""  # type: ignore[no-any-return]
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    # --- The end ------------------------------------------------------------------------------------------------------

    def handle_write(self) -> None:
        """Flush. After the last answer, close in a way that gives the client time to read it."""
        ends_here, self.close_when_flushed = self.close_when_flushed, False
        super().handle_write()
        if not ends_here or not self.is_open:
            return
        if self.total_outbufs_len:
            self.close_when_flushed = True
        elif self.deliveries or self.was_refused:
            self._linger()
        else:
            self.handle_close()

    def _linger(self) -> None:
        """Signal the end of output, and read on until the client closes too.

        Closing over unread input would reset the connection, perhaps with the answer lost; and only the client's own
        end shows whether it took the answer.
        """
        self.move(Move.LINGER)
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.judge(Evidence.RESET)
            self.handle_close()
            return
        self.watch.change(READ | HANGUP)
        self.close_within(LINGER_AT_SHUTDOWN_S if self.server.is_draining else LINGER_S)

    def close_within(self, seconds: float) -> None:
        self.server.deadlines.add(monotonic_s() + seconds, self.handle_close)

    def linger_on(self, flags: int) -> None:
        """Discard input until the peer has closed."""
        try:
            ended = not flags & READ or self.socket.recv(_DISCARD_BYTES) == b""
        except ConnectionError:
            self.judge(Evidence.RESET)
            ended = True
        if ended or flags & BROKEN:
            self.judge(Evidence.END)
            self.handle_close()
