"""Requests that another thread may cancel, for the asyncio client; threads without a Cancellation notice nothing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar


class Cancelled(Exception):
    """The request was cancelled; its connection is closed, so that the server does not take its answer for taken."""


class Cancellation:
    """Ends whatever its thread is waiting for, from another thread. Made current by the waiting thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_cancelled = threading.Event()
        self._socket: socket.socket | None = None

    def cancel(self) -> None:
        with self._lock:
            self._is_cancelled.set()
            if self._socket is not None:
                with suppress(OSError):  # the other side was quicker
                    self._socket.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def guards(self, connected: socket.socket) -> Iterator[None]:
        with self._lock:
            if self._is_cancelled.is_set():
                raise Cancelled
            self._socket = connected
        try:
            yield
        finally:
            with self._lock:
                self._socket = None
            if self._is_cancelled.is_set():
                raise Cancelled

    def sleep(self, duration_s: float) -> None:
        if self._is_cancelled.wait(duration_s):
            raise Cancelled


_current: ContextVar[Cancellation | None] = ContextVar("cancellation", default=None)


def use(cancellation: Cancellation) -> None:
    """From now on this thread's requests end when `cancellation` says so."""
    _current.set(cancellation)


def is_cancellable() -> bool:
    """Whether this thread's requests can be cancelled."""
    return _current.get() is not None


def cancellable(connected: socket.socket) -> AbstractContextManager[None]:
    """What happens on this connection ends, with Cancelled, when this thread's request is cancelled."""
    by = _current.get()
    return nullcontext() if by is None else by.guards(connected)


def sleep(duration_s: float) -> None:
    """Sleep, unless this thread's request is cancelled. Raises Cancelled."""
    by = _current.get()
    if by is None:
        time.sleep(duration_s)
    else:
        by.sleep(duration_s)
