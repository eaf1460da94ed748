"""ExitWatcher: sees the end of every agent's process at once, and reaps it, with a few threads over one set of all
pidfds.

It may start the next incarnation itself, as the first thing it does, so that a busy sidecar does not delay it. All of
its threads wake for an end, and the first that gets the GIL sees to it. Without pidfds one looks twenty times a second.

See docs/supervision.md, "How a restart is fast".
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import msgspec

from .eager_calls import watch_no_more
from .process import StartedProcess
from .process_exit import ExitStatus, end_of_child, exit_of_stranger, reap
from .process_identity import HAS_PIDFD, is_alive, signal_group

log = logging.getLogger(__name__)

# A stranger's exit code can be read once its parent has reaped it. An init that does not is not waited for longer.
_STRANGER_WITHIN_S = 5.0
_LOOK_EVERY_S = 0.05

# A thread that times out while it waits for the GIL of a busy process begins to wait again, behind all others; one of
# several gets it sooner. Each costs a restart some 0.05 ms where nothing is busy, for all of them wake.
_THREADS = 3

# Delay notifications until no further exit has been seen for this long, so that restarts come first.
_MORE_WITHIN_S = 0.003
_REPORTED_WITHIN_S = 0.1


S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)


class PreparedRestart(Protocol[S_co]):
    """A restart that is prepared before the process ends, so that the next incarnation can start at once."""

    def restart(self, status: ExitStatus, at: float) -> S_co:
        """Start the next incarnation at once, if the policy says so. at: when the process ended, monotonic seconds."""
        ...

    def close(self) -> None:
        """Release its files: it is no longer needed."""
        ...


class Exited(msgspec.Struct, Generic[S], frozen=True):
    """The end of an incarnation's process. at: monotonic seconds. restart: the result of a PreparedRestart, or None."""

    agent_id: str
    incarnation: int
    status: ExitStatus
    at: float
    restart: S | None


class _Watched(msgspec.Struct, Generic[S]):
    """A watched process. died_at: of a stranger that is dead, whose exit code cannot be read yet."""

    agent_id: str
    incarnation: int
    process: StartedProcess
    prepared: PreparedRestart[S] | None = None
    kill_group: bool = True
    died_at: float = 0.0


class ExitWatcher(Generic[S]):
    """Calls `on_exit`, in a thread of its own, for each watched process that ended. Closes the pidfds it is given.

    S: what a PreparedRestart results in.
    """

    def __init__(self, on_exit: Callable[[Exited[S]], None]) -> None:
        self._on_exit = on_exit
        self._lock = threading.Lock()
        self._watched: dict[int, _Watched[S]] = {}  # by pidfd, or by pid where there are none
        self._stopped = False
        self._epoll = select.epoll() if HAS_PIDFD else None
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        if self._epoll is not None:
            self._epoll.register(self._wake_r, select.EPOLLIN)
        self._removed = 0  # from the set, so far
        self._dead_strangers: set[int] = set()
        self._restarted_at = 0.0
        count = 1 if self._epoll is None else _THREADS
        self._threads = [threading.Thread(target=self._run, name=f"exits-{n}", daemon=True) for n in range(count)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Watch no longer; the processes stay as they are."""
        with self._lock:
            self._stopped = True
        os.write(self._wake_w, b"x")
        for thread in self._threads:
            thread.join(timeout=5.0)
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
        """Watch a process from now on; one that has ended already is reported at once."""
        with self._lock:
            self._watched[self._key(process)] = _Watched(agent_id, incarnation, process)
        # Not under the lock, like everything that releases the GIL: the watcher must not wait for a waiting thread.
        if self._epoll is not None and process.pidfd is not None:
            self._epoll.register(process.pidfd, select.EPOLLIN)

    def prepare(self, process: StartedProcess, prepared: PreparedRestart[S]) -> None:
        """Have the process restarted at once: a thread of the watcher calls `restart` when it has ended and its group
        is killed, and puts the result into `Exited`. Closes `prepared` if the process has ended already."""
        not_needed: PreparedRestart[S] | None = prepared
        with self._lock:
            watched = self._watched.get(self._key(process))
            if watched is not None and watched.process is process and watched.kill_group:
                not_needed, watched.prepared = watched.prepared, prepared
        if not_needed is not None:
            not_needed.close()

    def let_stop(self, process: StartedProcess) -> None:
        """Restart it no longer, and leave its group the time that it was given: its end is wanted.

        When this returns, either it will not be restarted, or the `Exited` with the restart is on its way.
        """
        not_needed: PreparedRestart[S] | None = None
        with self._lock:
            watched = self._watched.get(self._key(process))
            if watched is not None and watched.process is process:
                not_needed, watched.prepared = watched.prepared, None
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
        unreported: list[tuple[_Watched[S], Exited[S]]] = []  # that this thread has seen
        while not self._stopped:
            removed = self._removed
            ready = self._wait(unreported)
            with self._lock:
                # Where another thread has removed one meanwhile, its number may be another process's by now; what
                # is ready is said again.
                if removed == self._removed and not self._stopped:
                    unreported += self._ended(ready)
            if unreported and self._report_at(unreported) <= time.monotonic():
                self._report(unreported)
        self._report(unreported)

    def _report(self, unreported: list[tuple[_Watched[S], Exited[S]]]) -> None:
        for watched, exited in unreported:
            _disarm(watched)
            if watched.process.pidfd is not None:
                os.close(watched.process.pidfd)
            self._on_exit(exited)
        unreported.clear()

    def _report_at(self, unreported: list[tuple[_Watched[S], Exited[S]]]) -> float:
        """Restart all processes that die together before the first death is reported: its listeners want the GIL,
        too, to write down and to look for what is left."""
        if not any(exited.restart is not None for _, exited in unreported):
            return 0.0
        return min(unreported[0][1].at + _REPORTED_WITHIN_S, self._restarted_at + _MORE_WITHIN_S)

    def _wait(self, unreported: list[tuple[_Watched[S], Exited[S]]]) -> list[tuple[int, int]]:
        """The keys of processes that may have ended, each with its epoll events."""
        if self._epoll is None:
            select.select([self._wake_r], [], [], _LOOK_EVERY_S)
            return [(pid, 0) for pid in list(self._watched)]
        if unreported:
            timeout_s: float | None = max(0.0, self._report_at(unreported) - time.monotonic())
        else:
            timeout_s = _STRANGER_WITHIN_S if self._dead_strangers else None
        return self._epoll.poll(timeout_s) + [(key, 0) for key in list(self._dead_strangers)]

    def _ended(self, ready: list[tuple[int, int]]) -> list[tuple[_Watched[S], Exited[S]]]:
        """The processes that have ended. Under the lock, so that `let_stop` falls before or after the whole of it."""
        ended = []
        for key, event in ready:
            watched = self._watched.get(key)
            if watched is not None and (exited := self._look_at(key, watched, event)) is not None:
                ended.append((watched, exited))
        return ended

    def _look_at(self, key: int, watched: _Watched[S], event: int) -> Exited[S] | None:
        process = watched.process
        now = time.monotonic()
        if not HAS_PIDFD and is_alive(process.identity):
            return None
        if watched.kill_group and not watched.died_at:
            signal_group(process.pidfd, process.identity.pid, signal.SIGKILL)
        is_reaped_later = self._epoll is not None
        try:
            status = end_of_child(process.identity.pid) if is_reaped_later else reap(process.identity.pid)
        except ChildProcessError:
            is_reaped_later = False
            status = self._status_of_stranger(
                key, watched, now, is_reaped=self._epoll is not None and bool(event & select.EPOLLHUP)
            )
        if status is None:
            return None
        del self._watched[key]
        self._removed += 1
        self._dead_strangers.discard(key)
        restart = self._restart(watched, status, now)
        if restart is not None:
            self._restarted_at = time.monotonic()
        if is_reaped_later:
            reap(process.identity.pid)
        if self._epoll is not None and process.pidfd is not None:
            watch_no_more(self._epoll.fileno(), process.pidfd)
        return Exited(watched.agent_id, watched.incarnation, status, watched.died_at or now, restart)

    def _status_of_stranger(self, key: int, watched: _Watched[S], now: float, *, is_reaped: bool) -> ExitStatus | None:
        """How a process ended that is not our child, or None while that may still become known: when it is reaped."""
        pidfd = watched.process.pidfd
        if pidfd is None or self._epoll is None:
            return ExitStatus()
        status = exit_of_stranger(watched.process.identity, pidfd)
        if status != ExitStatus() or is_reaped:
            return status
        if not watched.died_at:
            watched.died_at = now
            self._dead_strangers.add(key)
            self._epoll.modify(pidfd, 0)  # leaves EPOLLHUP, which comes when it is reaped
        return status if now >= watched.died_at + _STRANGER_WITHIN_S else None

    def _restart(self, watched: _Watched[S], status: ExitStatus, now: float) -> S | None:
        if watched.prepared is None:
            return None
        try:
            return watched.prepared.restart(status, now)
        except Exception:
            # The actor decides again from `Exited`; nothing may end the thread that sees exits.
            log.exception("could not restart at once agent_id=%s", watched.agent_id)
            return None


def _disarm(watched: _Watched[S]) -> None:
    if watched.prepared is not None:
        watched.prepared.close()
        watched.prepared = None
