"""The server: Waitress's, with one I/O thread that waits in a poller and writes every answer.

Other threads hand it work through `post` and `wake`. It sleeps until a socket is ready, work was handed over or a
deadline has passed. Idle connections cost nothing.

See docs/long-polling.md.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from .accepting import Acceptor
from .answers import RenderRefusal
from .backlog import MAX_INCOMING_BYTES, MAX_UNREAD_BYTES, MAX_UNREAD_BYTES_OF_ONE, Backlog
from .connection import Connection
from .deadlines import Deadlines, monotonic_s
from .handling import App, handler_of
from .handover import Handover
from .input_read import ReadTurns
from .open_files import fit_connection_limit
from .parking import Parked
from .poller import BROKEN, HANGUP, MAX_READY, READ, Poller, Watch, make_poller
from .request_parser import FindQuick, LimitOf, RequestParser, parser_of
from .stages import Stage
from .workers import Workers

log = logging.getLogger(__name__)

WAKES_A_TURN = 128  # about 3 ms of answers, then sockets are checked again: a fan-out must not delay publishes
CLEANUP_EVERY_S = 5
MAX_ANSWER_BYTES = 1 << 40  # no limit: Waitress would make a thread wait for a client that does not read

# Seconds. A silent keep-alive connection is closed; a request has to arrive whole; see Connection.is_overdue.
SILENT_S = 120
REQUEST_S = 60


class HttpServer(TcpWSGIServer):  # type: ignore[misc]  # waitress has no types
    """The HTTP server, created by `make_server`. `run` serves in the calling thread until another one calls
    `close`."""

    channel_class = Connection
    active_channels: dict[int, Connection]
    effective_port: int
    task_dispatcher: Workers
    is_draining = False  # nothing new is accepted, answers end their connections
    has_released = False  # nothing may park any more
    _is_running = False
    _has_ended = False
    _stops = False

    def __init__(
        self,
        app: App,
        sock: socket.socket,
        *,
        adjustments: Adjustments,
        dispatcher: Workers,
        poller: Poller,
        render_refusal: RenderRefusal | None,
        parser_class: type[RequestParser],
        after_input: Callable[[], None],
        every_second: Callable[[], None],
    ) -> None:
        # For connections
        self.poller = poller
        self.sees_hangup = hasattr(select, "epoll") and isinstance(poller, select.epoll)
        self.parser_class = parser_class
        self.handler = handler_of(app)
        self.render_refusal = render_refusal
        self.deadlines = Deadlines()
        self.unread = Backlog[Any](max_bytes=MAX_UNREAD_BYTES, max_bytes_of_one=MAX_UNREAD_BYTES_OF_ONE)
        self.incoming = Backlog[Any](max_bytes=MAX_INCOMING_BYTES, max_bytes_of_one=MAX_INCOMING_BYTES)
        # The end
        self._life = threading.Lock()  # guards _is_running and _has_ended
        self._is_down = threading.Event()
        # Each turn
        self._after_input = after_input
        self._every_second = every_second
        self._read_turns = ReadTurns()
        super().__init__(
            app,
            map={},
            _sock=sock,
            dispatcher=dispatcher,
            adj=adjustments,
            sockinfo=(sock.family, sock.type, sock.proto, sock.getsockname()),
            bind_socket=False,
        )
        self.effective_port = int(self.effective_port)
        self._listener: int = self._fileno
        self._acceptor = Acceptor(
            self,
            Watch(poller, self._listener, READ),
            most=self.adj.connection_limit,
            open_=lambda sock, address: self.channel_class(self, sock, address, self.adj, map=self._map),
        )
        poller.register(self.trigger._fileno, READ)
        self._handover = Handover(self.trigger.pull_trigger)
        self.post = self._handover.post
        self.wake = self._handover.wake

    # --- From any thread ------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        return self._is_running and not self._has_ended

    def when_read(self, act: Callable[[], None]) -> None:
        """Have `act` called in the I/O thread when all that has arrived by now is read. See InputRead."""
        self.post(partial(self._read_turns.add, act))

    def stages(self) -> Counter[Stage]:
        """How many connections are in each stage; one that comes or goes meanwhile may be missed."""
        return Counter(connection.stage for connection in list(self.active_channels.values()))

    def pull_trigger(self) -> None:
        """Waitress's way to say that some connection has changed; here each one says so itself."""

    def add_task(self, task: Connection) -> None:
        """Waitress's way to say that a request is complete; `Connection.proceed` looks for itself."""

    # --- The loop -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        with self._life:
            if self._has_ended:
                return
            self._is_running = True
        self.deadlines.every(CLEANUP_EVERY_S, lambda: self.maintenance(time.time()))
        self.deadlines.every(1.0, lambda: self._act(self._every_second))
        try:
            self._after_input()
            while not self._stops:
                self._turn()
        finally:
            self._shut()
            self._after_input()

    def _turn(self) -> None:
        ready, has_callers = [], False
        events = self._wait()
        for fd, flags in events:
            connection = self.active_channels.get(fd)
            if connection is not None:
                ready.append((connection, flags))
                if flags & (HANGUP | BROKEN):
                    connection.notice_end()
            elif fd == self._listener:
                has_callers = True
            elif fd == self.trigger._fileno:
                self.trigger.handle_read()
        # Before reading: a request sets an actor to work, and the two would take turns at every send.
        for _ in range(min(len(self._handover.wakes), WAKES_A_TURN)):
            self._answer(*self._handover.wakes.popleft())
        for connection, flags in ready:
            self._on_events(connection, flags)
        accepts_all = True
        if has_callers:  # last, because a new connection may get the descriptor of one that was closed just now
            accepts_all = self._acceptor.accept()
        if self._read_turns.asked:
            self._tell_read(is_whole=accepts_all and len(events) < MAX_READY)
        for _ in range(len(self._handover.posts)):
            self._act(self._handover.posts.popleft())
        for act in self.deadlines.pop_due(monotonic_s()):
            self._act(act)
        if self.is_draining:
            self._stops = self._stops or not self.active_channels
        elif self._acceptor.is_paused:
            self._acceptor.resume()
        self._after_input()

    def _tell_read(self, *, is_whole: bool) -> None:
        self._after_input()  # first: what was read is on its way to the actors
        for act in self._read_turns.turned(is_whole=is_whole):
            self._act(act)

    def _wait(self) -> list[tuple[int, int]]:
        if self._read_turns.asked or not self._handover.sleep():
            return self.poller.poll(0)
        due = self.deadlines.next_due()
        try:
            return self.poller.poll(-1 if due is None else max(due - monotonic_s(), 0.0))
        finally:
            self._handover.awake()

    def _on_events(self, connection: Connection, flags: int) -> None:
        try:
            if connection.is_open:
                connection.on_events(flags)
        except Exception:
            log.exception("connection failed address=%s stage=%s", connection.addr, connection.stage.name)
            self._act(connection.handle_close)

    def _act(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception:
            log.exception("work posted to the I/O thread failed act=%r", act)

    def _answer(self, connection: Connection, parked: Parked) -> None:
        try:
            connection.answer(parked)
        except Exception:
            log.exception("answer failed address=%s", connection.addr)
            self._act(connection.handle_close)

    # --- Connections ----------------------------------------------------------------------------------------------

    def maintenance(self, now: float) -> None:
        """Close connections that were silent, or had half a request or answer, for too long. now: `time.time()`."""
        for connection in list(self.active_channels.values()):
            if connection.is_overdue(now, silent_s=SILENT_S, request_s=REQUEST_S):
                self._act(connection.handle_close)

    # --- The end --------------------------------------------------------------------------------------------------

    def close(self, *, answer_waiters: Callable[[], object] | None = None, within_s: float = 10.0) -> None:
        """Stop accepting, answer every parked request, flush, close; returns when the loop has ended.

        answer_waiters: called in this thread once nothing new can be parked; requests still parked afterwards are
        cancelled. within_s: the total time for requests in workers and for clients that read.
        Call it from another thread than `run`.
        """
        if self._is_down.is_set():
            return
        with self._life:
            if not self._is_running:
                self._has_ended = True
        if not self._is_running:
            self._release()
            return
        until = monotonic_s() + within_s
        is_read = threading.Event()
        self.post(partial(self._begin_to_drain, is_read))
        is_read.wait(within_s)
        if answer_waiters is not None:
            answer_waiters()
        self.post(self._release_parked)
        if not self._is_down.wait(max(until - monotonic_s(), 0.0)):
            log.warning("connections cut at shutdown count=%d within_s=%g", len(self.active_channels), within_s)
            self.post(partial(setattr, self, "_stops", True))
            self._is_down.wait(within_s)

    def _begin_to_drain(self, is_read: threading.Event) -> None:
        self.is_draining = True
        self._acceptor.end()
        wasyncore.dispatcher.close(self)
        for connection in list(self.active_channels.values()):
            self.post(connection.begin_to_drain)
        self.post(is_read.set)

    def _release_parked(self) -> None:
        self.has_released = True
        for connection in list(self.active_channels.values()):
            pending = connection.pending
            if pending is not None:
                self._act(pending.expire if isinstance(pending, Parked) else pending.close)

    def _shut(self) -> None:
        for connection in list(self.active_channels.values()):
            self._act(connection.handle_close)
        self._handover.end()
        self._has_ended = True
        self._release()

    def _release(self) -> None:
        self.task_dispatcher.shutdown()
        while self._handover.posts:  # connections that workers were busy with
            self._act(self._handover.posts.popleft())
        for act in self._read_turns.rest():
            self._act(act)
        wasyncore.dispatcher.close(self)
        wasyncore.close_all(self._map)
        self.poller.close()
        self._is_down.set()


def make_server(
    app: App,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    sock: socket.socket | None = None,
    worker_threads: int = 8,
    connection_limit: int = 16_384,
    max_body_bytes: int = 16 << 20,
    render_refusal: RenderRefusal | None = None,
    limit_of: LimitOf | None = None,
    find_quick: FindQuick = lambda method, path: None,  # noqa: ARG005
    after_input: Callable[[], None] = lambda: None,
    every_second: Callable[[], None] = lambda: None,
    poller: Poller | None = None,
) -> HttpServer:
    """A listening server. `port` 0 picks a free port; `sock` is a socket that is already bound.

    app: a WSGI application, called in worker threads. connection_limit: cut to the limit on open files, see
    fit_connection_limit. max_body_bytes, limit_of: larger request bodies are refused before they reach the
    application. render_refusal: headers and body, from status, reason and the client's request id, for requests that
    never reach the application (malformed ones) or that failed in it. find_quick: by method and path, a handler that
    never waits and so may run in the I/O thread. after_input: called in the I/O thread at its start, and whenever it
    has read all input. every_second: called in the I/O thread about once a second.
    """
    if sock is None:
        sock = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    return HttpServer(
        app,
        sock,
        adjustments=_adjustments(sock, worker_threads, connection_limit, max_body_bytes),
        dispatcher=Workers(worker_threads),
        poller=poller or make_poller(),
        render_refusal=render_refusal,
        parser_class=parser_of(limit_of or (lambda method, path: max_body_bytes), find_quick),  # noqa: ARG005
        after_input=after_input,
        every_second=every_second,
    )


def _adjustments(sock: socket.socket, worker_threads: int, connection_limit: int, max_body_bytes: int) -> Adjustments:
    return _Adjustments(
        sockets=[sock],
        threads=worker_threads,
        connection_limit=fit_connection_limit(connection_limit),
        backlog=4096,
        ident="sidecar",
        max_request_header_size=64 << 10,
        max_request_body_size=max_body_bytes,
        inbuf_overflow=max_body_bytes,  # never a temporary file on the I/O thread
        outbuf_overflow=MAX_ANSWER_BYTES,
        outbuf_high_watermark=MAX_ANSWER_BYTES,
        clear_untrusted_proxy_headers=False,  # the application must see that there is a proxy
        log_socket_errors=False,
        expose_tracebacks=False,
    )


class _Adjustments(Adjustments):  # type: ignore[misc]  # waitress has no types
    """Waitress's settings, without a look-up of its default address, because the socket is given."""

    listen: tuple[str, ...] = ()
