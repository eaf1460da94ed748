"""One client connection: Waitress's channel, with a stage for a request that waits without a thread.

    IDLE ──request complete──▶ SERVED (a worker runs the handler) ──parked──▶ WAITING ──answer──▶ IDLE
                                 │  └────────────answered───────────────────────────────────────▶ IDLE
                                 └──stream opened──▶ STREAMING ──ended──▶ LINGERING ──peer closed──▶ closed

Only the I/O thread changes the stage, reads, and closes. While a request is SERVED the output belongs to the worker;
the next pipelined request starts when the last answer is flushed, so no worker ever waits for a client that does not
read. Private names of Waitress used here are listed in tests/test_private_names_of_waitress_and_pykka.py.
"""

from __future__ import annotations

import logging
import socket
import time
from enum import Enum
from typing import TYPE_CHECKING, Any

from .backlog import SLOWEST_BYTES_PER_S, STALLED_S, WHOLE_ANSWER_S
from .deadlines import monotonic_s
from .delivery import Evidence, unread_bytes
from .parking import HandlerTask, Park, Parked, RefusalTask, ReplyTask, Slip, StreamTask, forget_details
from .plain_reply import answer_plainly
from .poller import BROKEN, HANGUP, READ, WRITE
from .quick_answer import answer_quickly
from .request_parser import MAX_QUICK_BODY_BYTES, RequestParser
from .watched_channel import WatchedChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from .backlog import Backlog
    from .io_loop import Server
    from .streaming import Stream

log = logging.getLogger(__name__)

# How long a client may take to read the last bytes of an answer after which the connection is closed.
LINGER_S = 5.0
LINGER_AT_SHUTDOWN_S = 1.0
_DISCARD_BYTES = 1 << 16


class Stage(Enum):
    IDLE = "reads requests, flushes answers"
    SERVED = "a worker runs the handler"
    WAITING = "parked"
    STREAMING = "an answer without an end"
    LINGERING = "nothing more will be sent; waits for the peer to close"


IDLE, SERVED, WAITING, STREAMING, LINGERING = Stage


class Connection(WatchedChannel):
    task_class: Callable[[Connection, Any], Any] = HandlerTask
    error_task_class = RefusalTask

    server: Server
    requests: list[Any]
    total_outbufs_len: int
    stage = IDLE
    parked: Parked | None = None
    answering: Parked | None = None
    stream: Stream | None = None
    slip: Slip | None = None
    interest = 0  # what the poller reports
    was_refused = False
    has_hung_up = False
    account: Hashable = None  # the account of its requests, as far as the application has named it
    unread_bytes = 0  # of answers, as in the server's ledger
    incoming_bytes = 0  # of unserved requests, as in the server's ledger
    _unread_since = 0.0
    _most_unread = 0
    _incomplete: Any = None  # the request that is half received, and since when
    _incomplete_since = 0.0

    @property
    def parser_class(self) -> type[RequestParser]:
        """The parser of the next request; Waitress makes one for each."""
        return self.server.parser_class

    # --- Life with the poller -------------------------------------------------------------------------------------

    def add_channel(self, map: dict[int, Any] | None = None) -> None:
        super().add_channel(map)
        self.interest = READ | HANGUP
        self.server.poller.register(self._fileno, self.interest)

    def del_channel(self, map: dict[int, Any] | None = None) -> None:
        self.server.unread.forget(self)
        self.server.incoming.forget(self)
        self._leave_poller()
        super().del_channel(map)

    def _leave_poller(self) -> None:
        # Closing the descriptor is not enough: a child between fork and exec still holds a copy of it.
        if self.interest >= 0 and self._fileno is not None:
            self.interest = -1
            self.server.poller.unregister(self._fileno)

    def notice_end(self) -> None:
        """The peer will send no more, or the connection broke.

        The server calls it for all such connections before it looks at anyone's input: a client's next request, on
        whichever connection, must find it known that an answer was lost or a wait given up.
        """
        self.has_hung_up = True
        self.judge(Evidence.END)
        if self.stage in (WAITING, STREAMING):
            self.handle_close()  # a half-closed connection counts as given up too

    def on_events(self, flags: int) -> None:
        """The poller says that the socket is ready."""
        if self.stage is LINGERING:
            self._linger_on(flags)
            return
        if flags & BROKEN:
            self.judge(Evidence.END)
            self.handle_close()
            return
        if flags & WRITE:
            self.handle_write()
        if flags & (READ | HANGUP) and self.is_open:
            self._take_input(flags)
        else:
            self.proceed()

    @property
    def is_open(self) -> bool:
        return self._fileno is not None

    def proceed(self) -> None:
        """Do what comes next on this connection: the next request, the rest of an answer, or its end."""
        if self._is_ready and self.requests and not self.close_when_flushed:
            self._begin(self.requests[0])
        if self._is_ready:
            if self.will_close or self.close_when_flushed:
                self.handle_write()
            elif self.server.is_draining and not self.requests:
                self.handle_close()
        if self.interest >= 0:
            self._update_interest()

    @property
    def _is_ready(self) -> bool:
        return self.stage is IDLE and self._fileno is not None and not self.total_outbufs_len

    def _update_interest(self) -> None:
        if self.total_outbufs_len or self.unread_bytes:
            self._note_unread()
        if self.incoming_bytes:
            self._note_incoming()
        wanted = self.interest
        if self.stage is IDLE and not wanted & READ and self.readable():
            wanted |= READ | HANGUP
        if self.stage is not SERVED:
            wanted = wanted | WRITE if self.total_outbufs_len else wanted & ~WRITE
        self._watch_for(wanted)

    def _watch_for(self, wanted: int) -> None:
        if wanted != self.interest:
            self.interest = wanted
            self.server.poller.modify(self._fileno, wanted)

    # --- What the server keeps for it ---------------------------------------------------------------------------------

    def _note_unread(self) -> None:
        count = self.output.held_bytes
        if count and not self.unread_bytes:
            self._unread_since, self._most_unread = monotonic_s(), 0
        if count != self.unread_bytes:
            self.unread_bytes = count
            self._most_unread = max(self._most_unread, count)
            self._cut(self._noted(self.server.unread, count, self.account), "its client does not read")

    def _note_incoming(self) -> None:
        unfinished = [] if self.request is None else [self.request]
        count = sum(request.body_bytes_received for request in [*self.requests, *unfinished])
        if count != self.incoming_bytes:
            self.incoming_bytes = count
            self._cut(self._noted(self.server.incoming, count, None), "too many bodies are under way")

    def _noted(self, ledger: Backlog, count: int, account: Hashable) -> list[Connection]:
        if count:
            return ledger.note(self, count, account)
        ledger.forget(self)
        return []

    def _cut(self, connections: list[Connection], why: str) -> None:
        for connection in connections:
            log.warning("connection closed, %s address=%s", why, connection.addr)
            self.server.post(connection.handle_close)

    def _has_read_too_little(self, silent_for_s: float) -> bool:
        """Whether the client has stopped reading an answer, or reads it too slowly."""
        if not self.unread_bytes:
            return False
        may_take_s = WHOLE_ANSWER_S + self._most_unread / SLOWEST_BYTES_PER_S
        is_slow = self.stage is not STREAMING and monotonic_s() - self._unread_since > may_take_s
        return silent_for_s > STALLED_S or is_slow

    # --- Input ----------------------------------------------------------------------------------------------------

    def _take_input(self, flags: int) -> None:
        if self._is_ready and self.readable():
            self.handle_read()
        elif self.stage not in (WAITING, STREAMING):
            self._mute(flags)
        elif self._has_hung_up_unseen():
            flags |= HANGUP
        else:
            self._mute(READ)
        self.proceed()
        if flags & HANGUP and self.is_open:
            self.notice_end()  # it may have come with the request itself

    def _has_hung_up_unseen(self) -> bool:
        """Look where the poller does not tell the end of input from input."""
        if self.server.sees_hangup:
            return False
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b""  # type: ignore[no-any-return]
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    def _mute(self, flags: int) -> None:
        """Leave input in the kernel until the request before it is answered: order kept, memory bounded."""
        self._watch_for(self.interest & ~(flags & (READ | HANGUP)))
        self.discount_input()

    def handle_read(self) -> None:
        super().handle_read()
        if self.request is not self._incomplete:
            self._incomplete = self.request
            self._incomplete_since = monotonic_s()
        if self.request is not None or self.incoming_bytes:
            self._note_incoming()

    # --- Requests -------------------------------------------------------------------------------------------------

    def _begin(self, request: Any) -> None:
        quick = request.quick if request.error is None else None
        if quick is None or request.body_bytes_received > MAX_QUICK_BODY_BYTES:
            self.stage = SERVED
            self.server.task_dispatcher.add_task(self)
        elif request.command == "GET" and (self.has_hung_up or self._has_hung_up_unseen()):
            # Given up before it was begun. Begun now, it would look like the newest wait of its client, which
            # may well wait again already, on another connection.
            self.handle_close()
        else:
            answer_quickly(self, quick, request)

    def service(self) -> None:
        """Run the handler; called in a worker thread, which afterwards has nothing to do with the connection."""
        self.slip = None
        try:
            super().service()
        except Park:
            pass  # the task has put its slip here
        finally:
            self.server.post(self.served)

    def served(self) -> None:
        slip, self.slip = self.slip, None
        self.stage = IDLE
        if not self.connected:  # the client left, or broke the connection, in the meantime
            if slip is not None:
                slip.withdraw()
            self.handle_close()
        elif slip is None:
            self.proceed()
        else:
            self.settle_in(slip)

    def settle_in(self, slip: Slip | None) -> None:
        """Wait as the handler wished."""
        if slip is not None and slip.parked is not None:
            self.park(slip.parked)
        elif slip is not None and slip.stream is not None:
            self._open_stream(slip.stream)

    def park(self, parked: Parked) -> None:
        self.stage = WAITING
        self.parked = parked
        parked.connection = self
        parked.deadline = self.server.deadlines.add(parked.due, parked.expire)
        self._watch_for(self.interest | READ | HANGUP)
        forget_details(self.requests[0])
        parked.later.add_done_callback(parked.woken)
        if self.server.has_released:
            parked.expire()

    def answer(self, parked: Parked) -> None:
        """Write the answer of the parked request."""
        if self.parked is not parked:
            return
        self._forget(parked)
        self.stage = IDLE
        self.write_answer(parked)
        parked.detach()
        self.proceed()

    def write_answer(self, parked: Parked) -> None:
        if not answer_plainly(self, parked):
            self.answering = parked
            self.serve_with(ReplyTask)
            self.answering = None

    def serve_with(self, task_class: Callable[[Connection, Any], Any]) -> bool:
        """Let Waitress serve the request at the head of the queue with another task; False if it parked again."""
        self.task_class = task_class
        try:
            super().service()
        except Park:
            return False
        finally:
            del self.task_class
        return True

    def _forget(self, parked: Parked) -> None:
        self.parked = None
        if parked.deadline is not None:
            self.server.deadlines.cancel(parked.deadline)
            parked.deadline = None

    # --- Streams --------------------------------------------------------------------------------------------------

    def _open_stream(self, stream: Stream) -> None:
        self.stage = STREAMING
        self.stream = stream
        if self.serve_with(StreamTask):  # a HEAD request has its whole answer already
            self.stage = IDLE
            self.stream = None
            self.proceed()
            return
        self._watch_for(self.interest | READ | HANGUP)
        stream.opened(self)

    def finish_stream(self) -> None:
        """Close the connection when the written bytes have been sent."""
        self._end_stream()
        self.stage = IDLE
        self.close_when_flushed = True
        self.requests = []

    def _end_stream(self) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.end()

    # --- Output ---------------------------------------------------------------------------------------------------

    def handle_write(self) -> None:
        """Flush; where this was the last answer, close in a way that leaves the client the time to read it."""
        ends_here, self.close_when_flushed = self.close_when_flushed, False
        super().handle_write()
        if self.stream is not None:
            self.stream.flushed(self.total_outbufs_len)
        if not ends_here or not self.is_open:
            return
        if self.total_outbufs_len:
            self.close_when_flushed = True
        elif self.deliveries or self.was_refused:
            self._linger()
        else:
            self.handle_close()

    # --- The end --------------------------------------------------------------------------------------------------

    def _linger(self) -> None:
        """Say that nothing follows, and read on until the client closes too.

        To close over unread input would reset the connection and might take the answer with it; and only the
        client's own end tells whether it took the answer.
        """
        self.stage = LINGERING
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.judge(Evidence.RESET)
            self.handle_close()
            return
        self._watch_for(READ | HANGUP)
        linger_s = LINGER_AT_SHUTDOWN_S if self.server.is_draining else LINGER_S
        self.server.deadlines.add(monotonic_s() + linger_s, self.handle_close)

    def begin_to_drain(self) -> None:
        if self.stage is LINGERING:
            self.server.deadlines.add(monotonic_s() + LINGER_AT_SHUTDOWN_S, self.handle_close)
        elif self._is_ready and self.readable() and unread_bytes(self.socket):
            self.handle_read()  # it was sent in time, and to close over it would reset the connection
        self.proceed()

    def _linger_on(self, flags: int) -> None:
        try:
            ended = not flags & READ or self.socket.recv(_DISCARD_BYTES) == b""
        except ConnectionError:
            self.judge(Evidence.RESET)
            ended = True
        if ended or flags & BROKEN:
            self.judge(Evidence.END)
            self.handle_close()

    def handle_close(self) -> None:
        """Close. What is parked here is cancelled, an answer not sent to its end is lost."""
        if self.stage is SERVED:
            # The worker finds out by `connected`; `served` closes when it has let go of the socket.
            self.connected = False
            self._leave_poller()
            return
        if not self.is_open:
            return
        parked = self.parked
        if parked is not None:
            self._forget(parked)
            parked.abandon()
        self._end_stream()
        self.judge_unfinished()
        self.stage = IDLE
        super().handle_close()
        for request in self.requests:
            request.close()
        self.requests = []

    def is_overdue(self, now: float, *, silent_s: float, request_s: float) -> bool:
        """Whether the client was given enough time to send the rest of a request, to read, or to ask again.

        now: `time.time()`, as Waitress notes activity.
        """
        if self.stage in (SERVED, WAITING, LINGERING) or (self.stage is STREAMING and not self.total_outbufs_len):
            return False
        if self._incomplete is not None and monotonic_s() - self._incomplete_since > request_s:
            return True
        silent_for_s: float = now - self.last_activity
        return silent_for_s > silent_s or self._has_read_too_little(silent_for_s)

    def cancel(self) -> None:
        """Waitress's dispatcher shuts down before a worker has come to this request."""
        super().cancel()
        log.warning("request dropped at shutdown address=%s since_s=%.1f", self.addr, time.time() - self.creation_time)
