"""Starts and stops a sidecar: `running` is a sidecar from the bound port to the last closed file; `serve` runs one.

It starts from top to bottom of `running`, and stops in reverse order. The port is bound before agents can start,
because each gets its URL.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from .. import __version__
from ..actors.runtime.actor_supervisor import ActorSupervisor
from ..actors.runtime.timers import Timers
from ..state.clock import utc_now
from ..state.errors import ConfigError, InvalidRequest
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
from .draining import answer_waiters, end_agents, kill_agents
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
from .stop_signals import watch_stop_signals
from .storage import LockedStorage, announced, locked, note_whole, prepare, require_whole, token_key
from .wire.codec import encode
from .wiring import Wiring

log = logging.getLogger(__name__)

# The shares of the ten seconds a shutdown may take.
DRAIN_S = 6.0
CLOSE_S = 2.0

WORKER_THREADS = 8  # waits hold none; these ask actors and read bodies

# By default a restart would have to wait 5 ms for each busy thread. Once it has got its turn it takes 0.2 ms until its
# process starts, and must not be made to let others go first.
SWITCH_INTERVAL_S = 0.0005


class Sidecar:
    """A running sidecar. failure: why an actor was given up, which ends the sidecar; or None."""

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
        """Its URL for agents on this machine, without `/api`."""
        return url_of(self.host, self.port)

    def gave_up(self, actor: str, reason: str) -> None:
        self.failure = f"actor {actor} was given up: {reason}"
        self.end()

    def end(self) -> None:
        """Let `wait` return."""
        self._ends.put(None)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; False if it has not come by then."""
        try:
            self._ends.get(timeout=timeout_s)
        except queue.Empty:
            return False
        return True


@contextmanager
def running(config: Config, *, before_agents: Callable[[Sidecar], None] = lambda _: None) -> Iterator[Sidecar]:
    """A complete sidecar. On exit, it drains within ten seconds.

    before_agents: called before an agent can run. Raises ConfigError, StorageInUse, StorageDamaged and others of the
    family before anything is served.
    """
    check_references(config)
    with ExitStack() as stack:
        storage, sole = _claim(config.storage, stack)
        sock = stack.enter_context(bind(config.host, config.port))
        observers = stack.enter_context(observing(config.storage, config.environ))
        wiring = Wiring(
            config=config,
            supervisor=ActorSupervisor(
                gave_up=lambda actor, reason: sidecar.gave_up(actor, reason),
                restarted=observers.everyone.restarted,
                asked=observers.asked,
            ),
            timers=stack.enter_context(_timers()),
            key=token_key(config.storage, config.environ, minted=observers.everyone.minted),
            revocations=Revocations(),
            observers=observers,
            url=url_of(*sock.getsockname()[:2]),
            draining=threading.Event(),
            input_read=InputRead(),
            sole=sole,
            storage=storage,
        )
        sidecar = _sidecar(wiring, sock)
        before_agents(sidecar)
        stack.callback(wiring.supervisor.stop)
        wiring.supervisor.start()
        sidecar.server.last_numbers.look()  # so that the first request for /health finds them
        if sole.name is not None:
            note_whole(config.storage, instance=sole.name)
        stack.enter_context(announced(config.storage, sidecar.url))
        stack.enter_context(_serving(sock, sidecar, wiring.input_read))
        log.info("sidecar started url=%s storage=%s version=%s", sidecar.url, config.storage, __version__)
        observers.auditor.record("sidecar_started", by=SIDECAR, version=__version__, process_id=os.getpid())
        yield sidecar
        observers.auditor.record("sidecar_stopping", by=SIDECAR)
        log.info("sidecar draining url=%s", sidecar.url)
    log.info("sidecar stopped url=%s", sidecar.url)


def _claim(storage: Path, stack: ExitStack) -> tuple[LockedStorage, SoleInstance]:
    """Claim the storage and its name for this process. A start is refused before anything is written."""
    prepare(storage)
    claimed = stack.enter_context(locked(storage))
    sole = SoleInstance()
    stack.callback(sole.release)
    if (instance := require_whole(storage)) is not None:
        sole.take(instance)
    return claimed, sole


@contextmanager
def _timers() -> Iterator[Timers]:
    timers = Timers()
    timers.start()
    try:
        yield timers
    finally:
        timers.stop()


def _sidecar(wiring: Wiring, sock: socket.socket) -> Sidecar:
    host, port = sock.getsockname()[:2]
    server = _server(wiring, Authenticator(wiring.key, wiring.revocations), AddressProofs(wiring.key, host, port))
    wiring.revocations.watch(server.holds.revoked)
    return Sidecar(wiring.config, host=host, port=port, key=wiring.key, server=server)


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
    from .routes import openapi  # rarely used

    return openapi.description(ROUTES)


@contextmanager
def _serving(sock: socket.socket, sidecar: Sidecar, input_read: InputRead) -> Iterator[None]:
    """Answer requests in their own threads. On exit, drain.

    Stopping agents still store their results, so the port closes only when they have ended.
    """
    server = sidecar.server
    application = Application(
        server,
        hosts=_served_hosts(sidecar.host, sidecar.port),
        private_paths={str(server.storage): "<storage>"},
    )
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
        answer_waiters(server.actors)
        end_agents(server, within_s=DRAIN_S, has_failed=lambda: sidecar.failure is not None)
        http.close(
            answer_waiters=lambda: answer_waiters(server.actors), within_s=max(until - time.monotonic(), CLOSE_S)
        )
        loop.join(timeout=CLOSE_S)


def make_server(
    application: Application,
    sock: socket.socket,
    *,
    after_input: Callable[[], None],
    every_second: Callable[[], None] = lambda: None,
) -> io_loop.HttpServer:
    """The HTTP server over a socket that listens. It parks requests that wait: see parking.py."""
    return io_loop.make_server(
        application,
        sock=sock,
        worker_threads=WORKER_THREADS,
        max_body_bytes=MAX_RESULT_BYTES,
        render_refusal=render_refusal,
        limit_of=application.body_limit,
        find_quick=application.find_quick,
        after_input=after_input,
        every_second=every_second,
    )


def render_refusal(status: int, reason: str, asked_id: str | None) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and body for a request that the application never sees: unreadable, or too large.

    reason: Waitress's message, or the limit for a body that is too large. asked_id: the client's request id, if its
    headers could be read.
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
    """A listening socket. Raises ConfigError if the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=4096)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            why = "is in use: name another with --port, or 0 for any that is free"
            raise ConfigError(f"port {port} of {host} {why}", field="port") from None
        raise ConfigError(f"port {port} of {host} cannot be listened on: {error}", field="host") from None


def _served_hosts(host: str, port: int) -> frozenset[str] | None:
    """The Host headers that are served on a loopback address; None on a network, which may use any name."""
    if not ip_address(host).is_loopback:
        return None
    names = ("localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host)
    with_port = {f"{name}:{port}" for name in names}
    return frozenset(with_port | set(names) if port == 80 else with_port)


def serve(config: Config) -> int:
    """Run until a signal ends it: see stop_signals.py. Returns the exit code: 0, or 1 if an actor was given up."""
    reset_signals()
    set_up_logging(config.log_level, config.log_format)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with running(config, before_agents=_end_at_signals) as sidecar:
        gc.freeze()  # objects made so far stay; collections need not look at them again
        gc.enable()
        # In one piece: the log of another thread would come between the line and its end on a terminal.
        print(f"sidecar listens on {sidecar.url}\n", end="", flush=True)
        sidecar.wait()
    if sidecar.failure is not None:
        log.critical("sidecar ended: %s", sidecar.failure)
        return 1
    return 0


def _end_at_signals(sidecar: Sidecar) -> None:
    def end_at_once(number: int) -> None:
        try:
            kill_agents(sidecar.server.actors)
        finally:
            os._exit(128 + number)

    watch_stop_signals(sidecar.end, end_at_once)
