"""Accepts connections, and pauses where no more fit or the system has no room for another."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable, Sized
from typing import Any, Protocol

from .deadlines import monotonic_s
from .poller import READ, Watch

log = logging.getLogger(__name__)

ACCEPTS_A_TURN = 128
ACCEPT_AGAIN_S = 1.0  # after the system ran out of file descriptors or memory

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listener(Protocol):
    """Waitress's server, as far as it accepts. active_channels: the connections that are open."""

    @property
    def active_channels(self) -> Sized: ...

    def accept(self) -> tuple[socket.socket, Any] | None: ...

    def set_socket_options(self, conn: socket.socket) -> None: ...


class Acceptor:
    """Accepts for a listener, as long as there are fewer than `most` connections.

    watch: over the listener's socket. open_: serves a client that was accepted.
    """

    def __init__(
        self, listener: Listener, watch: Watch, *, most: int, open_: Callable[[socket.socket, Any], object]
    ) -> None:
        self._listener = listener
        self._watch = watch
        self._most = most
        self._open = open_
        self._again_at = 0.0
        self.is_paused = False

    def accept(self) -> bool:
        """Accept all that are waiting; False if some may be left for the next turn."""
        for _ in range(ACCEPTS_A_TURN):
            if not self._has_room():
                self._pause("connection limit reached, accepting paused limit=%d", self._most)
                return False
            try:
                pair = self._listener.accept()
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._again_at = monotonic_s() + ACCEPT_AGAIN_S
                    self._pause("connection not accepted, accepting paused: %s", error)
                    return False
                log.info("connection not accepted: %s", error)
                continue
            if pair is None:
                return True
            self._begin(*pair)
        return False

    def _begin(self, sock: socket.socket, address: Any) -> None:
        try:
            self._listener.set_socket_options(sock)
        except OSError as error:  # macOS: the client has gone again already
            log.info("connection not opened address=%s: %s", address, error)
            sock.close()
        else:
            self._open(sock, address)

    def _has_room(self) -> bool:
        return len(self._listener.active_channels) < self._most

    def _pause(self, message: str, *args: object) -> None:
        log.warning(message, *args)
        self.is_paused = True
        self._watch.change(0)

    def resume(self) -> None:
        """Accept again, if there is room. Call it after each turn in which `is_paused`."""
        if self._has_room() and monotonic_s() >= self._again_at:
            log.info("accepting again connections=%d", len(self._listener.active_channels))
            self.is_paused = False
            self._watch.change(READ)

    def end(self) -> None:
        """Accept no more."""
        self._watch.end()
