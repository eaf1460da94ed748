"""ExitWatcher: sees every agent's process end, at once, and reaps it: one thread over all pidfds.

It may start the next incarnation itself, as the first thing it does, so that a busy sidecar does not delay it: a
thread that wakes from epoll holds the GIL until it waits again. Without pidfds it looks twenty times a second.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from .eager_calls import watch_no_more
from .process import HAS_PIDFD, ExitStatus, StartedProcess, exit_of_stranger, is_alive, reap, signal_group

log = logging.getLogger(__name__)

# A stranger's exit code can be read once its parent has reaped it. An init that does not is not waited for longer.
_STRANGER_WITHIN_S = 5.0
_LOOK_EVERY_S = 0.05

# Deaths come together, a few milliseconds apart. Nobody is told of a restart before no more have come for so long.
_MORE_WITHIN_S = 0.003
_TOLD_WITHIN_S = 0.1


class Succession(Protocol):
    """Prepared before a process ends, so that the next can be started at once."""

    def succeed(self, status: ExitStatus, at: float) -> object | None:
        """It ended so, at that monotonic time: start another if that is called for."""
        ...

    def close(self) -> None:
        """It is not needed any more."""
        ...


class Exited(msgspec.Struct, frozen=True):
    """An incarnation's process ended. at: monotonic seconds. succession: what `succeed` made of it, if it was asked."""

    agent_id: str
    incarnation: int
    status: ExitStatus
    at: float
    succession: object | None


class _Watched(msgspec.Struct):
    agent_id: str
    incarnation: int
    process: StartedProcess
    succeed: Succession | None = None
    kill_group: bool = True
    died_at: float = 0.0  # a stranger that is dead, whose exit code is not readable yet


class ExitWatcher:
    """Tells `on_exit`, in its own thread, of every watched process that ended. A pidfd given to `watch` is its own."""

    def __init__(self, on_exit: Callable[[Exited], None]) -> None:
        self._on_exit = on_exit
        self._lock = threading.Lock()
        self._watched: dict[int, _Watched] = {}  # by pidfd, or by pid where there are none
        self._stopped = False
        self._epoll = select.epoll() if HAS_PIDFD else None
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._epoll is not None:
            self._epoll.register(self._wake_r, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="exit-watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer; the processes stay as they are."""
        with self._lock:
            self._stopped = True
        os.write(self._wake_w, b"x")
        self._thread.join(timeout=5.0)
        with self._lock:
            for watched in self._watched.values():
                _disarm(watched)
                if watched.process.pidfd is not None:
                    os.close(watched.process.pidfd)
            self._watched.clear()
        if self._epoll is not None:
            self._epoll.close()
        os.close(self._wake_r)
        os.close(self._wake_w)

    def watch(self, agent_id: str, incarnation: int, process: StartedProcess) -> None:
        """From now on; one that has ended already is told of at once."""
        with self._lock:
            self._watched[self._key(process)] = _Watched(agent_id, incarnation, process)
        # Not under the lock, as nothing that lets go of the GIL: the watcher must not wait for who waits for that.
        if self._epoll is not None and process.pidfd is not None:
            self._epoll.register(process.pidfd, select.EPOLLIN)

    def prepare(self, process: StartedProcess, succeed: Succession) -> None:
        """Have it succeeded at once: `succeed` is called in the watcher's thread when the process has ended and its
        group is killed, and its answer goes into `Exited`. Closed here when that comes too late."""
        not_needed: Succession | None = succeed
        with self._lock:
            watched = self._watched.get(self._key(process))
            if watched is not None and watched.process is process and watched.kill_group:
                not_needed, watched.succeed = watched.succeed, succeed
        if not_needed is not None:
            not_needed.close()

    def let_stop(self, process: StartedProcess) -> None:
        """Its end is wanted: start no successor, and leave its group the time it was given.

        When this returns, either no successor will be started, or the `Exited` that has it is on its way.
        """
        not_needed: Succession | None = None
        with self._lock:
            watched = self._watched.get(self._key(process))
            if watched is not None and watched.process is process:
                not_needed, watched.succeed = watched.succeed, None
                watched.kill_group = False
        if not_needed is not None:
            not_needed.close()

    def signal(self, process: StartedProcess, number: int) -> None:
        """Signal its whole process group; nothing happens when it has ended."""
        with self._lock:
            watched = self._watched.get(self._key(process))
            # The pidfd of one that ended is closed, and its number may be another's by now.
            if watched is not None and watched.process is process:
                signal_group(process.pidfd, process.identity.pid, number)

    def _key(self, process: StartedProcess) -> int:
        return process.identity.pid if process.pidfd is None else process.pidfd

    def _run(self) -> None:
        while not self._stopped:
            for watched, exited in self._ended(self._wait()):
                _disarm(watched)
                if watched.process.pidfd is not None:
                    os.close(watched.process.pidfd)
                self._on_exit(exited)

    def _ended(self, ready: list[tuple[int, _Watched]]) -> list[tuple[_Watched, Exited]]:
        """Those that have ended. All that die together are restarted before the first of them is told of: who hears
        of it wants the GIL, too, to write down and to look for what is left."""
        ended: list[tuple[_Watched, Exited]] = []
        until = time.monotonic() + _TOLD_WITHIN_S
        while ready:
            with self._lock:
                found = [] if self._stopped else [(w, exited) for key, w in ready if (exited := self._look_at(key, w))]
            ended += found
            begun = any(exited.succession is not None for _, exited in found)
            ready = self._ready_within(_MORE_WITHIN_S) if begun and time.monotonic() < until else []
        return ended

    def _wait(self) -> list[tuple[int, _Watched]]:
        """Those that may have ended."""
        if self._epoll is None:
            select.select([self._wake_r], [], [], _LOOK_EVERY_S)
            return list(self._watched.items())
        dead_strangers = [(key, watched) for key, watched in list(self._watched.items()) if watched.died_at]
        ready = self._ready_within(_STRANGER_WITHIN_S if dead_strangers else None)
        overdue_since = time.monotonic() - _STRANGER_WITHIN_S
        return ready + [entry for entry in dead_strangers if entry[1].died_at <= overdue_since and entry not in ready]

    def _ready_within(self, timeout_s: float | None) -> list[tuple[int, _Watched]]:
        if self._epoll is None:
            return []
        return [(fd, self._watched[fd]) for fd, _ in self._epoll.poll(timeout_s) if fd in self._watched]

    def _look_at(self, key: int, watched: _Watched) -> Exited | None:
        """Under the lock, so that `let_stop` falls before or after the whole of it."""
        process = watched.process
        now = time.monotonic()
        if not HAS_PIDFD and is_alive(process.identity):
            return None
        if watched.kill_group:
            signal_group(process.pidfd, process.identity.pid, signal.SIGKILL)
        try:
            status = reap(process.identity.pid)
        except ChildProcessError:
            status = self._status_of_stranger(watched, now)
        if status is None:
            return None
        del self._watched[key]
        succession = self._succeed(watched, status, now)
        if self._epoll is not None and process.pidfd is not None:
            watch_no_more(self._epoll.fileno(), process.pidfd)
        return Exited(watched.agent_id, watched.incarnation, status, watched.died_at or now, succession)

    def _status_of_stranger(self, watched: _Watched, now: float) -> ExitStatus | None:
        """How a process ended that is not our child, or None while that may still become known: when it is reaped."""
        pidfd = watched.process.pidfd
        if pidfd is None or self._epoll is None:
            return ExitStatus()
        status = exit_of_stranger(watched.process.identity, pidfd)
        if status != ExitStatus() or watched.died_at:
            return status
        watched.died_at = now
        self._epoll.modify(pidfd, 0)  # leaves EPOLLHUP, which comes when it is reaped
        return None

    def _succeed(self, watched: _Watched, status: ExitStatus, now: float) -> object | None:
        if watched.succeed is None:
            return None
        try:
            return watched.succeed.succeed(status, now)
        except Exception:
            # The actor decides anew from `Exited`; nothing may end the thread that sees exits.
            log.exception("could not restart at once agent_id=%s", watched.agent_id)
            return None


def _disarm(watched: _Watched) -> None:
    if watched.succeed is not None:
        watched.succeed.close()
        watched.succeed = None
