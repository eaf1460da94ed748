"""Starts and stops all: `running(config)` is a sidecar, from the bound port to the last closed file; `serve` runs one.

Started top to bottom, stopped in reverse. The port is bound before agents can be started, since each gets its URL.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from ipaddress import ip_address
from types import FrameType

from .. import __version__
from ..actors.messages import AnswerWaiters, Drain
from ..actors.runtime.actor_supervisor import ActorSupervisor
from ..actors.runtime.asking import Later, ask
from ..actors.runtime.timers import GAP_S, Timers
from ..state.clock import utc_now
from ..state.errors import ConfigError, InvalidRequest, SidecarError, Unavailable
from ..state.identity import Revocations, TokenKey
from ..supervision.known_state import reset_signals
from ..supervision.sole_instance import SoleInstance
from .access.auth import Authenticator
from .access.holds import Holds
from .access.limits import Limiter
from .access.proving import AddressProofs
from .access.sessions import Sessions
from .address import url_of
from .app import ROUTES, Application
from .config import Config
from .errors import describe
from .exchange import request_id_of
from .log_texts import LogTexts
from .logs import set_up_logging
from .loop import io_loop
from .loop.input_read import InputRead
from .observe.auditing import SIDECAR
from .observe.connections import Connections
from .observe.last_numbers import LastNumbers
from .observe.observing import observing
from .references import check_references
from .routes.results import MAX_RESULT_BYTES
from .routing import JSON, Server, too_large
from .storage import announced, locked, note_whole, prepare, require_whole, token_key
from .wire.codec import encode
from .wiring import Wiring

log = logging.getLogger(__name__)

# The shares of the ten seconds a shutdown may take.
DRAIN_S = 6.0
CLOSE_S = 2.0
ASK_S = 1.0

WORKER_THREADS = 8  # waits hold none; these ask actors and read bodies

# By default a restart would have to wait 5 ms for each busy thread. Once it has got its turn it takes 0.2 ms until its
# process starts, and must not be made to let others go first.
SWITCH_INTERVAL_S = 0.0005


class Sidecar:
    """A sidecar that runs. failure: why an actor was given up, which ends the sidecar, or None."""

    def __init__(self, config: Config, *, host: str, port: int, key: TokenKey, server: Server) -> None:
        self.config = config
        self.host = host
        self.port = port
        self.key = key
        self.server = server
        self.failure: str | None = None
        self._ends: queue.SimpleQueue[None] = queue.SimpleQueue()

    @property
    def url(self) -> str:
        """Where agents on this machine reach it, without `/api`."""
        return url_of(self.host, self.port)

    def gave_up(self, actor: str, reason: str) -> None:
        self.failure = f"actor {actor} was given up: {reason}"
        self.end()

    def end(self) -> None:
        """Let `wait` return."""
        self._ends.put(None)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until it is to end; False when it is not by then."""
        try:
            self._ends.get(timeout=timeout_s)
        except queue.Empty:
            return False
        return True


@contextmanager
def running(config: Config) -> Iterator[Sidecar]:
    """A whole sidecar; on leaving, it drains within ten seconds.

    Raises ConfigError, StorageInUse, StorageDamaged and others of the family before anything is served.
    """
    check_references(config)
    with ExitStack() as stack:
        prepare(config.storage)
        storage = stack.enter_context(locked(config.storage))
        # Whatever refuses the start does so before anything is opened for writing.
        sole = SoleInstance()
        stack.callback(sole.release)
        if (instance := require_whole(config.storage)) is not None:
            sole.take(instance)
        sock = stack.enter_context(bind(config.host, config.port))
        observers = stack.enter_context(observing(config.storage, config.environ))
        auditor, everyone = observers.auditor, observers.everyone
        key = token_key(config.storage, config.environ, minted=everyone.minted)
        host, port = sock.getsockname()[:2]
        timers = Timers()
        timers.start()
        stack.callback(timers.stop)
        revocations = Revocations()
        sidecar: Sidecar | None = None

        def gave_up(actor: str, reason: str) -> None:
            if sidecar is not None:
                sidecar.gave_up(actor, reason)

        supervisor = ActorSupervisor(gave_up=gave_up, restarted=everyone.restarted, asked=observers.asked)
        wiring = Wiring(
            config=config,
            supervisor=supervisor,
            timers=timers,
            key=key,
            revocations=revocations,
            observers=observers,
            url=url_of(host, port),
            draining=threading.Event(),
            input_read=InputRead(),
            sole=sole,
            storage=storage,
        )
        server = _server(wiring, Authenticator(key, revocations), AddressProofs(key, host, port))
        revocations.watch(server.holds.revoked)
        sidecar = Sidecar(config, host=host, port=port, key=key, server=server)
        stack.callback(supervisor.stop)
        supervisor.start()
        server.last_numbers.look()  # so that the first to ask for the health finds them
        if sole.name is not None:
            note_whole(config.storage, instance=sole.name)
        application = Application(
            server,
            hosts=_served_hosts(host, port),
            private_paths={str(config.storage): "<storage>"},
        )
        stack.enter_context(announced(config.storage, sidecar.url))
        stack.enter_context(_serving(application, sock, sidecar, wiring.input_read))
        log.info("sidecar started url=%s storage=%s version=%s", sidecar.url, config.storage, __version__)
        auditor.record("sidecar_started", by=SIDECAR, version=__version__, process_id=os.getpid())
        yield sidecar
        auditor.record("sidecar_stopping", by=SIDECAR)
        log.info("sidecar draining url=%s", sidecar.url)
    log.info("sidecar stopped url=%s", sidecar.url)


def _server(wiring: Wiring, authenticator: Authenticator, proofs: AddressProofs) -> Server:
    config, supervisor = wiring.config, wiring.supervisor
    sessions = Sessions()
    actors = wiring.actors()
    return Server(
        actors=actors,
        profiles=config.profiles,
        projects=config.projects,
        observers=wiring.observers,
        last_numbers=LastNumbers(
            spawner=actors.spawner,
            bus=actors.bus,
            results=actors.results,
            contexts=actors.contexts,
            statuses=supervisor.statuses,
        ),
        connections=Connections(),
        storage=config.storage,
        started_at_s=time.monotonic(),
        max_wait_s=config.events.max_wait_ms / 1000,
        draining=wiring.draining,
        authenticator=authenticator,
        limiter=Limiter(config.limits),
        holds=Holds(authenticator, sessions),
        log_texts=LogTexts(),
        proofs=proofs,
        sessions=sessions,
        actor_statuses=supervisor.statuses,
        actor_handling=supervisor.handling,
        restart_actor=supervisor.restart,
        api_description=_describe_api,
    )


@cache
def _describe_api() -> bytes:
    from .routes import openapi  # few ask for it

    return openapi.description(ROUTES)


@contextmanager
def _serving(application: Application, sock: socket.socket, sidecar: Sidecar, input_read: InputRead) -> Iterator[None]:
    """Answer requests in threads of their own; on leaving, drain.

    Agents that are told to stop still hand in what they have, so the port closes only when they have ended.
    """
    server = sidecar.server
    http = make_server(application, sock, after_input=server.actors.bus.flush, every_second=server.holds.look)
    server.connections.watch(http)
    input_read.watch(http)
    loop = threading.Thread(target=http.run, name="http", daemon=True)
    loop.start()
    try:
        yield
    finally:
        server.draining.set()
        until = time.monotonic() + DRAIN_S + CLOSE_S
        _answer_waiters(server)
        _ended_in_time("agents", lambda: _drain(sidecar))
        http.close(answer_waiters=lambda: _answer_waiters(server), within_s=max(until - time.monotonic(), CLOSE_S))
        loop.join(timeout=CLOSE_S)


def make_server(
    application: Application,
    sock: socket.socket,
    *,
    after_input: Callable[[], None],
    every_second: Callable[[], None] = lambda: None,
) -> io_loop.Server:
    """The HTTP server over a socket that listens. It parks requests that wait: see parking.py."""
    return io_loop.make_server(
        application,
        sock=sock,
        worker_threads=WORKER_THREADS,
        max_body_bytes=MAX_RESULT_BYTES,
        render_refusal=render_refusal,
        limit_of=application.router.body_limit,
        find_quick=application.find_quick,
        after_input=after_input,
        every_second=every_second,
    )


def _drain(sidecar: Sidecar) -> int:
    """Stop the agents; where an actor was given up, leave them: whoever starts us again has them taken over.

    Asked again as often as the Spawner is restarted meanwhile. Raises Unavailable.
    """
    left_s = DRAIN_S
    while True:
        later = sidecar.server.actors.spawner.request(Drain(timeout_s=left_s, leave=sidecar.failure is not None))
        left_s = _wait_running(later, left_s)
        try:
            return later.result(timeout=ASK_S)
        except TimeoutError:
            later.cancel()
            raise Unavailable(f"the agents did not end within {DRAIN_S + ASK_S:g} s") from None
        except Unavailable:
            if left_s == 0 or sidecar.failure is not None:  # it may be the Spawner that was given up
                raise


def _wait_running(later: Later[int], left_s: float) -> float:
    """Wait for an answer. Returns the time left, of which a pause of the sidecar takes nothing: see Timers."""
    is_done = False
    while left_s > 0 and not is_done:
        began_at, step_s = time.monotonic(), min(GAP_S / 2, left_s)
        is_done = later.wait(step_s)
        left_s -= min(time.monotonic() - began_at, step_s)
    return max(0.0, left_s)


def _answer_waiters(server: Server) -> None:
    _ended_in_time("waiting requests", lambda: ask(server.actors.bus, AnswerWaiters(), timeout_s=ASK_S))


def _ended_in_time(what: str, end: Callable[[], int]) -> None:
    try:
        log.info("%s ended count=%d", what, end())
    except SidecarError as error:  # the way down goes on whatever happens
        log.error("%s did not end in time: %s", what, error)


def render_refusal(status: int, reason: str, asked_id: str | None) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and body for what the application never sees: a request that cannot be read, or is too large.

    reason: Waitress's words, or for a body that is too large the most bytes it may have. asked_id: the request id that
    the client sent, if its head could be read.
    """
    error: BaseException
    if status == 413:
        error = too_large(int(reason))
    elif status < 500 or status == 501:
        error = InvalidRequest(f"the request cannot be read: {reason}", field="request", expected="HTTP/1.1")
    else:
        error = RuntimeError(reason)
    request_id = request_id_of(asked_id)
    described = describe(error, request_id=request_id, now=utc_now(), to_operator=False)
    return [*described.headers, ("Content-Type", JSON), ("X-Request-Id", request_id)], encode(described.body)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises ConfigError when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=4096)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            why = "is in use: name another with --port, or 0 for any that is free"
            raise ConfigError(f"port {port} of {host} {why}", field="port") from None
        raise ConfigError(f"port {port} of {host} cannot be listened on: {error}", field="host") from None


def _served_hosts(host: str, port: int) -> frozenset[str] | None:
    """The Host headers that are answered on a loopback address; None where the network may know us by any name."""
    if not ip_address(host).is_loopback:
        return None
    names = ("localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host)
    with_port = {f"{name}:{port}" for name in names}
    return frozenset(with_port | set(names) if port == 80 else with_port)


def serve(config: Config) -> int:
    """Run until SIGTERM, SIGINT or SIGHUP; a second SIGTERM or SIGINT ends at once.

    The exit code: 0, or 1 when an actor was given up.
    """
    reset_signals()
    set_up_logging(config.log_level, config.log_format)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with running(config) as sidecar:
        _on_signals(sidecar)
        gc.freeze()  # what was made so far stays; collections need not look at it again
        gc.enable()
        # In one piece: the log of another thread would come between the line and its end on a terminal.
        print(f"sidecar listens on {sidecar.url}\n", end="", flush=True)
        sidecar.wait()
    if sidecar.failure is not None:
        log.critical("sidecar ended: %s", sidecar.failure)
        return 1
    return 0


def _on_signals(sidecar: Sidecar) -> None:
    """End it at the first SIGTERM, SIGINT or SIGHUP, and at once at the second SIGTERM or SIGINT.

    A terminal that closes may send SIGHUP twice. Where the parent ignored it, as nohup does, it stays ignored.

    A Python handler runs in the main thread, when that does: not while it waits for a lock, where the signal came to
    another thread or in the moment before the wait. What the interpreter's own handler writes is read by a thread.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    heeded = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        heeded.append(signal.SIGHUP)
    for number in heeded:
        signal.signal(number, _heeded_elsewhere)
    threading.Thread(target=_heed, args=(sidecar, told), name="signals", daemon=True).start()


def _heeded_elsewhere(number: int, frame: FrameType | None) -> None:
    """The interpreter's own handler is there only where there is one in Python."""


def _heed(sidecar: Sidecar, told: int) -> None:
    (number,) = os.read(told, 1)
    log.info("signal received signal=%s", signal.Signals(number).name)
    sidecar.end()
    while (number := os.read(told, 1)[0]) == signal.SIGHUP:
        pass  # it ends already
    _end_at_once(sidecar, number)


def _end_at_once(sidecar: Sidecar, number: int) -> None:
    """Agents that were to be stopped are killed now: none outlives a sidecar that was told twice to end."""
    try:
        ask(sidecar.server.actors.spawner, Drain(timeout_s=0.0), timeout_s=ASK_S)
    except SidecarError as error:
        log.error("agents did not end at once: %s", error)
    finally:
        os._exit(128 + number)
