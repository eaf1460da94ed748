"""The server: Waitress's, with one I/O thread that waits in epoll and also writes the answers of parked requests.

Other threads hand it work through `post` and `wake`; it sleeps until a socket is ready, something was posted or a
deadline has passed. Connections cost nothing while they are idle.
"""

from __future__ import annotations

import errno
import logging
import resource
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from ...actors.runtime.asking import once_together
from .backlog import MAX_INCOMING_BYTES, MAX_UNREAD_BYTES, MAX_UNREAD_BYTES_OF_ONE, Backlog
from .connection import STREAMING, WAITING, Connection
from .deadlines import Deadlines, monotonic_s
from .input_read import ReadTurns
from .parking import Headers, Parked
from .poller import BROKEN, HANGUP, MAX_READY, READ, Poller, make_poller
from .request_parser import FindQuick, LimitOf, RequestParser, parser_of
from .workers import Workers

log = logging.getLogger(__name__)

WAKES_A_TURN = 128  # about 3 ms of answers, then sockets are looked at again: a fan-out must not hold up publishes
ACCEPTS_A_TURN = 128
ACCEPT_AGAIN_S = 1.0  # after the system ran out of file descriptors or memory
CLEANUP_EVERY_S = 5
RESERVED_FILES = 256  # journals, agents' pipes, sources being read
MAX_ANSWER_BYTES = 1 << 40  # no limit: Waitress would make a worker wait for a client that does not read

# Seconds. A silent keep-alive connection is closed; a request has to arrive whole; see Connection.is_overdue.
SILENT_S = 120
REQUEST_S = 60

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

App = Callable[[dict[str, Any], Callable[..., Any]], Any]
RenderRefusal = Callable[[int, str, str | None], tuple[Headers, bytes]]


class Server(TcpWSGIServer):  # type: ignore[misc]  # waitress has no types
    """Made by `make_server`. `run` serves in the calling thread until another one calls `close`."""

    channel_class = Connection
    active_channels: dict[int, Connection]
    effective_port: int

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
        self.poller = poller
        self._after_input = after_input
        self._every_second = every_second
        self.parser_class = parser_class
        self.sees_hangup = hasattr(select, "epoll") and isinstance(poller, select.epoll)
        self.render_refusal = render_refusal
        self.deadlines = Deadlines()
        self.unread = Backlog(max_bytes=MAX_UNREAD_BYTES, max_bytes_of_one=MAX_UNREAD_BYTES_OF_ONE)
        self.incoming = Backlog(max_bytes=MAX_INCOMING_BYTES, max_bytes_of_one=MAX_INCOMING_BYTES)
        self.is_draining = False  # nothing new is accepted, answers end their connections
        self.has_released = False  # nothing may park any more
        self._posts: deque[Callable[[], None]] = deque()
        self._wakes: deque[Parked] = deque()
        self._wake_lock = threading.Lock()
        self._is_asleep = False
        self._has_ended = False
        self._is_down = threading.Event()
        self._is_running = False
        self._read_turns = ReadTurns()
        self._stops = False
        self._accepts = True
        self._accept_at = 0.0
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
        self.poller.register(self._listener, READ)
        self.poller.register(self.trigger._fileno, READ)

    # --- From any thread ------------------------------------------------------------------------------------------

    def post(self, act: Callable[[], None]) -> None:
        """Have `act` called in the I/O thread, soon."""
        self._posts.append(act)
        self._rouse()

    def wake(self, parked: Parked) -> None:
        """Have a parked request answered, a slice of all that are due at a time."""
        self._wakes.append(parked)
        once_together(self._rouse)

    @property
    def is_running(self) -> bool:
        return self._is_running and not self._has_ended

    def when_read(self, act: Callable[[], None]) -> None:
        """Have `act` called in the I/O thread when all that has arrived by now is read. See InputRead."""
        self.post(partial(self._read_turns.add, act))

    def _rouse(self) -> None:
        if self._is_asleep:
            with self._wake_lock:  # once the loop has ended, the trigger's descriptor may be another file's
                if self._is_asleep:
                    self._is_asleep = False
                    self.trigger.pull_trigger()

    def pull_trigger(self) -> None:
        """Waitress's way to say that some connection has changed; here each one says so itself."""

    def add_task(self, task: Connection) -> None:
        """Waitress's way to say that a request is complete; `Connection.proceed` looks for itself."""

    # --- The loop -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        with self._wake_lock:
            if self._has_ended:
                return
            self._is_running = True
        self._clean_up()
        self._tick()
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
            if connection is None:
                has_callers = self._on_own_event(fd) or has_callers
            else:
                ready.append((connection, flags))
                if flags & (HANGUP | BROKEN):
                    connection.notice_end()
        # Before anything is read: what is read sets an actor to work, and the two would take turns at every send.
        for _ in range(min(len(self._wakes), WAKES_A_TURN)):
            self._answer(self._wakes.popleft())
        for connection, flags in ready:
            self._on_events(connection, flags)
        accepts_all = True
        if has_callers:  # last, because a new connection may get the descriptor of one that was closed just now
            accepts_all = self._accept()
        if self._read_turns:
            self._tell_read(is_whole=accepts_all and len(events) < MAX_READY)
        for _ in range(len(self._posts)):
            self._act(self._posts.popleft())
        for act in self.deadlines.pop_due(monotonic_s()):
            self._act(act)
        self._look_after_connections()
        self._after_input()

    def _tell_read(self, *, is_whole: bool) -> None:
        self._after_input()  # first: what was read is on its way to the actors
        for act in self._read_turns.turned(is_whole=is_whole):
            self._act(act)

    def _wait(self) -> list[tuple[int, int]]:
        self._is_asleep = True
        if self._posts or self._wakes or self._read_turns:
            self._is_asleep = False
            return self.poller.poll(0)
        due = self.deadlines.next_due()
        try:
            return self.poller.poll(-1 if due is None else max(due - monotonic_s(), 0.0))
        finally:
            self._is_asleep = False

    def _on_own_event(self, fd: int) -> bool:
        """True if it is the listener's: somebody wants to connect."""
        if fd == self.trigger._fileno:
            self.trigger.handle_read()
        return fd == self._listener

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

    def _answer(self, parked: Parked) -> None:
        connection = parked.connection
        if connection is not None:
            try:
                connection.answer(parked)
            except Exception:
                log.exception("answer failed address=%s", connection.addr)
                self._act(connection.handle_close)

    # --- Connections ----------------------------------------------------------------------------------------------

    def _accept(self) -> bool:
        """Accept who wants to connect; False if somebody may be left for the next turn."""
        for _ in range(ACCEPTS_A_TURN):
            if len(self.active_channels) >= self.adj.connection_limit:
                self._pause_accepting("connection limit reached, accepting paused limit=%d", self.adj.connection_limit)
                return False
            try:
                pair = self.accept()
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._accept_at = monotonic_s() + ACCEPT_AGAIN_S
                    self._pause_accepting("connection not accepted, accepting paused: %s", error)
                    return False
                log.info("connection not accepted: %s", error)
                continue
            if pair is None:
                return True
            self._open(*pair)
        return False

    def _open(self, sock: socket.socket, address: tuple[Any, ...]) -> None:
        try:
            self.set_socket_options(sock)
        except OSError as error:  # macOS: the client has gone again already
            log.info("connection not opened address=%s: %s", address, error)
            sock.close()
            return
        self.channel_class(self, sock, address, self.adj, map=self._map)

    def _pause_accepting(self, message: str, *args: object) -> None:
        log.warning(message, *args)
        self._accepts = False
        self.poller.modify(self._listener, 0)

    def _look_after_connections(self) -> None:
        if not self._accepts and not self.is_draining:
            has_room = len(self.active_channels) < self.adj.connection_limit
            if has_room and monotonic_s() >= self._accept_at:
                log.info("accepting again connections=%d", len(self.active_channels))
                self._accepts = True
                self.poller.modify(self._listener, READ)
        if self.is_draining and not self.active_channels:
            self._stops = True

    def _clean_up(self) -> None:
        self.maintenance(time.time())
        self.deadlines.add(monotonic_s() + CLEANUP_EVERY_S, self._clean_up)

    def _tick(self) -> None:
        self._act(self._every_second)
        self.deadlines.add(monotonic_s() + 1.0, self._tick)

    def maintenance(self, now: float) -> None:
        """Close what has been silent, half a request or half an answer for too long. now: `time.time()`."""
        for connection in list(self.active_channels.values()):
            if connection.is_overdue(now, silent_s=SILENT_S, request_s=REQUEST_S):
                self._act(connection.handle_close)

    # --- The end --------------------------------------------------------------------------------------------------

    def close(self, *, answer_waiters: Callable[[], object] | None = None, within_s: float = 10.0) -> None:
        """Stop accepting, answer every parked request, flush, close; returns when the loop has ended.

        answer_waiters: called in this thread once nothing new can be parked; whoever is still parked afterwards is
        cancelled. within_s: how long requests that a worker is busy with, and clients that read, may take in all.
        Call it from another thread than `run`.
        """
        if self._is_down.is_set():
            return
        with self._wake_lock:
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
            self.post(self._stop)
            self._is_down.wait(within_s)

    def _begin_to_drain(self, is_read: threading.Event) -> None:
        self.is_draining = True
        self.poller.unregister(self._listener)
        wasyncore.dispatcher.close(self)
        for connection in list(self.active_channels.values()):
            self.post(connection.begin_to_drain)
        self.post(is_read.set)

    def _release_parked(self) -> None:
        self.has_released = True
        for connection in list(self.active_channels.values()):
            if connection.stage is WAITING and connection.parked is not None:
                self._act(connection.parked.expire)
            elif connection.stage is STREAMING and connection.stream is not None:
                self._act(connection.stream.close)

    def _stop(self) -> None:
        self._stops = True

    def _shut(self) -> None:
        for connection in list(self.active_channels.values()):
            self._act(connection.handle_close)
        with self._wake_lock:
            self._is_asleep = False
            self._has_ended = True
        self._release()

    def _release(self) -> None:
        self.task_dispatcher.shutdown()
        while self._posts:  # connections that workers were busy with
            self._act(self._posts.popleft())
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
) -> Server:
    """A server that listens from now on; `port` 0 picks a free one, `sock` is one that is bound already.

    connection_limit: cut to what the process may have open, see fit_connection_limit. max_body_bytes, limit_of: larger
    request bodies are refused before they reach the application. render_refusal: headers and body, from status, reason
    and the request id that was asked for, for what never reaches the application (malformed requests) or what it let
    fail. find_quick: by method and path, a function that never waits for anything and so may answer in the I/O thread.
    after_input: called in the I/O thread when it begins, and whenever it has read what there was to read. every_second:
    called in the I/O thread about that often.
    """
    if sock is None:
        sock = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    adjustments = _Adjustments(
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
        clear_untrusted_proxy_headers=False,  # the application counts on seeing that there is a proxy
        log_socket_errors=False,
        expose_tracebacks=False,
    )
    return Server(
        app,
        sock,
        adjustments=adjustments,
        dispatcher=Workers(worker_threads),
        poller=poller or make_poller(),
        render_refusal=render_refusal,
        parser_class=parser_of(limit_of or (lambda method, path: max_body_bytes), find_quick),  # noqa: ARG005
        after_input=after_input,
        every_second=every_second,
    )


class _Adjustments(Adjustments):  # type: ignore[misc]  # waitress has no types
    listen: tuple[str, ...] = ()  # Waitress would look its default address up although the socket is given


def fit_connection_limit(wanted: int) -> int:
    """Raise the soft limit on open files for `wanted` connections; returns how many fit, RESERVED_FILES left over."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
        except (OSError, ValueError) as error:  # macOS has a further limit that getrlimit does not tell
            log.info("limit on open files not raised wanted=%d: %s", raised, error)
    fits = wanted if soft == resource.RLIM_INFINITY else max(min(wanted, soft - RESERVED_FILES), 1)
    if fits < wanted:
        log.warning("connection limit cut, raise the limit on open files limit=%d wanted=%d", fits, wanted)
    return fits
