"""One client connection: its requests, one after the other, each answered, parked or refused.

Only the I/O thread reads, writes, changes the stage (see stages.py) and closes. A worker only runs the handler of a
request, and hands over what came out. The next pipelined request starts when the last answer is flushed, so no worker
ever waits for a client that does not read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from .answers import RenderRefusal, fail, finish_request, refuse, write_answer, write_stream_head
from .deadlines import monotonic_s
from .delivery import Evidence, unread_bytes
from .handling import Handler, Outcome, outcome_of
from .parking import ACCOUNT, Parked, forget_details
from .polled_channel import LINGER_AT_SHUTDOWN_S, PolledChannel, PollingLoop
from .poller import BROKEN, HANGUP, READ, WRITE
from .request_parser import MAX_QUICK_BODY_BYTES, RequestParser
from .stages import Move, Stage, is_patient
from .streaming import Stream
from .workers import Workers

log = logging.getLogger(__name__)


class ConnectionLoop(PollingLoop, Protocol):
    """The part of the server that a connection uses. handler: of requests that are not quick; a worker runs it.

    has_released: nothing may park any more. wake: have the answer of a parked request written.
    """

    task_dispatcher: Workers
    parser_class: type[RequestParser]
    handler: Handler
    render_refusal: RenderRefusal | None
    has_released: bool
    wake: Callable[..., None]


class Connection(PolledChannel):
    """A connection of a client. pending: what the first request of the queue waits for, if it was parked."""

    server: ConnectionLoop
    pending: Parked | Stream | None = None
    has_hung_up = False
    _incomplete: Any = None  # the request that is half received, and since when
    _incomplete_since = 0.0

    @property
    def parser_class(self) -> type[RequestParser]:
        """The parser of the next request; Waitress makes one for each."""
        return self.server.parser_class

    # --- What the poller reports --------------------------------------------------------------------------------------

    def notice_end(self) -> None:
        """The peer will send no more, or the connection broke.

        The server calls it for all such connections before it looks at anyone's input: a client's next request, on
        whichever connection, must find it known that an answer was lost or a wait given up.
        """
        self.has_hung_up = True
        self.judge(Evidence.END)
        if self.pending is not None:
            self.handle_close()  # a half-closed connection counts as given up too

    def on_events(self, flags: int) -> None:
        """The poller says that the socket is ready."""
        if self.stage is Stage.LINGERING:
            self.linger_on(flags)
            return
        if flags & BROKEN:
            self.judge(Evidence.END)
            self.handle_close()
            return
        if flags & WRITE:
            self.handle_write()
            if isinstance(self.pending, Stream):
                self.pending.flushed(self.total_outbufs_len)
        if flags & (READ | HANGUP) and self.is_open:
            self._take_input(flags)
        else:
            self.proceed()

    def _take_input(self, flags: int) -> None:
        if self._is_ready and self.readable():
            self.handle_read()
        elif self.pending is None:
            self.mute(flags)
        elif self.has_hung_up_unseen():
            flags |= HANGUP
        else:
            self.mute(READ)
        self.proceed()
        if flags & HANGUP and self.is_open:
            self.notice_end()  # it may have come with the request itself

    def handle_read(self) -> None:
        super().handle_read()
        if self.request is not self._incomplete:
            self._incomplete = self.request
            self._incomplete_since = monotonic_s()
        if self.request is not None or self.held.incoming_bytes:
            self.note_incoming()

    # --- Requests -----------------------------------------------------------------------------------------------------

    def proceed(self) -> None:
        """Do what comes next on this connection: the next request, the rest of an answer, or its end."""
        if self.requests and not self.close_when_flushed and self._is_ready:
            self._begin(self.requests[0])
        if self.will_close or self.close_when_flushed:
            if self._is_ready:
                self.handle_write()
        elif self.server.is_draining and not self.requests and self._is_ready:
            self.handle_close()
        if self.watch.flags >= 0:
            self.update_interest()

    @property
    def _is_ready(self) -> bool:
        return self.stage is Stage.IDLE and self._fileno is not None and not self.total_outbufs_len

    def _begin(self, request: Any) -> None:
        if request.error is not None:
            refuse(self, request.error, self.server.render_refusal)
        elif request.quick is None or request.body_bytes_received > MAX_QUICK_BODY_BYTES:
            self.move(Move.SERVE)
            self.server.task_dispatcher.add_task(self)
        elif request.command == "GET" and (self.has_hung_up or self.has_hung_up_unseen()):
            # Given up before it was begun. Begun now, it would look like the newest wait of its client, which
            # may well wait again already, on another connection.
            self.handle_close()
        else:
            environ = request.environ(self)
            outcome = outcome_of(request.quick, environ)
            self._settle(outcome, environ)
            if self.requests and self.pending is None:
                self.server.post(self.proceed)  # not at once: a client that pipelines has to take turns

    def service(self) -> None:
        """Run the handler; called in a worker thread, which afterwards has nothing to do with the connection."""
        outcome, environ = None, {}
        try:
            environ = self.requests[0].environ(self)
            outcome = outcome_of(self.server.handler, environ)
        finally:
            self.server.post(partial(self._served, outcome, environ))

    def _served(self, outcome: Outcome, environ: dict[str, Any]) -> None:
        self.move(Move.RETURN)
        if self.connected:
            self._settle(outcome, environ)
            if self.pending is None:
                self.proceed()
        else:  # the client left, or broke the connection, in the meantime
            if isinstance(outcome, Parked | Stream):
                outcome.abandon()
            self.handle_close()

    def _settle(self, outcome: Outcome, environ: dict[str, Any]) -> None:
        """Answer the first request, or let it wait, as its handler said."""
        self.account = environ.get(ACCOUNT)
        if outcome is None:
            fail(self, self.server.render_refusal)
        elif isinstance(outcome, Parked):
            self.move(Move.PARK)
            self.pending = outcome
            self.watch_input()
            forget_details(self.requests[0])
            outcome.begin(self.server, partial(self.server.wake, self, outcome))
        elif isinstance(outcome, Stream):
            self._open_stream(outcome)
        else:
            self._answer(lambda: outcome)

    def answer(self, parked: Parked) -> None:
        """Write the answer of the parked request, which is known now."""
        if self.pending is not parked:
            return
        self.pending = None
        parked.end(self.server)
        self.move(Move.ANSWER)
        self._answer(parked.reply, parked.receipt())
        self.proceed()

    def _answer(self, render: Callable[[], Any], receipt: Callable[[bool], None] | None = None) -> None:
        write_answer(
            self,
            render,
            is_last=self.server.is_draining,
            render_refusal=self.server.render_refusal,
            receipt=receipt,
        )

    # --- Streams ------------------------------------------------------------------------------------------------------

    def _open_stream(self, stream: Stream) -> None:
        self.move(Move.STREAM)
        self.pending = stream
        head = write_stream_head(self, stream.headers)
        if self.requests[0].command == "HEAD":  # it has its whole answer already
            self.finish_stream()
            return
        self.watch_input()
        stream.is_chunked = head.is_chunked
        stream.begin(self, self.server)

    def finish_stream(self) -> None:
        """Close the connection when the written bytes have been sent."""
        stream, self.pending = self.pending, None
        if stream is not None:
            stream.abandon()
        self.move(Move.END)
        finish_request(self, is_last=True)

    # --- The end ------------------------------------------------------------------------------------------------------

    def begin_to_drain(self) -> None:
        """The server goes down: take what was sent in time, then close as soon as it is answered."""
        if self.stage is Stage.LINGERING:
            self.close_within(LINGER_AT_SHUTDOWN_S)
        elif self._is_ready and self.readable() and unread_bytes(self.socket):
            self.handle_read()  # to close over it would reset the connection
        self.proceed()

    def handle_close(self) -> None:
        """Close. What is parked here is cancelled, an answer not sent to its end is lost."""
        if self.stage is Stage.SERVED:
            # The worker learns it from `connected`; `_served` closes when the worker has released the socket.
            self.connected = False
            self.watch.end()
            return
        if not self.is_open:
            return
        pending, self.pending = self.pending, None
        if isinstance(pending, Parked):
            pending.end(self.server)
        if pending is not None:
            pending.abandon()
        self.judge_unfinished()
        self.move(Move.CLOSE)
        super().handle_close()
        for request in self.requests:
            request.close()
        self.requests = []

    def is_overdue(self, now: float, *, silent_s: float, request_s: float) -> bool:
        """Whether the client was given enough time to send the rest of a request, to read, or to ask again.

        now: `time.time()`, as Waitress notes activity.
        """
        if is_patient(self.stage, has_output=self.total_outbufs_len > 0):
            return False
        if self._incomplete is not None and monotonic_s() - self._incomplete_since > request_s:
            return True
        silent_for_s: float = now - self.last_activity
        is_endless = self.stage is Stage.STREAMING
        return silent_for_s > silent_s or self.held.is_read_too_slowly(silent_for_s, is_endless=is_endless)

    def cancel(self) -> None:
        """Waitress's dispatcher shuts down before a worker has come to this request."""
        super().cancel()
        log.warning("request dropped at shutdown address=%s since_s=%.1f", self.addr, time.time() - self.creation_time)
