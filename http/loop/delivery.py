"""Judges the fate of an answer: taken by the client, lost, or not known yet, by the evidence of the socket.

Two traps make this more than "all bytes were sent and then the client hung up": a client that gave up *before* the
answer was written hangs up in the same way, and a send error leaves no trace in Waitress's counters.

See docs/long-polling.md, "Taken or lost".
"""

from __future__ import annotations

import fcntl
import logging
import socket
import sys
import termios
from collections.abc import Callable
from enum import Enum

log = logging.getLogger(__name__)

_INT_BYTES = 4


class Evidence(Enum):
    """The observations on a connection."""

    NEXT_REQUEST = "the client sent more after the answer"
    END = "the client closed its side"
    RESET = "reset, send error, or closed before the last byte"


class AnswerDelivery:
    """An answer with a receipt, whose fate is not known yet.

    end: its last byte's place in all that the connection ever sent; read_until: input up to this place was sent
    before the answer could have been read, so that it proves nothing (a pipelined request).
    """

    __slots__ = ("end", "read_until", "receipt")

    def __init__(self, receipt: Callable[[bool], None], *, end: int, read_until: int) -> None:
        self.receipt = receipt
        self.end = end
        self.read_until = read_until

    def verdict(self, evidence: Evidence, *, sent: int, unacknowledged: int, received: int) -> bool | None:
        """Taken (True), lost (False) or not known (None).

        sent, received: bytes of the connection's whole life; unacknowledged: bytes that the peer's kernel has not
        confirmed. A client that closed before the answer reached it sends its FIN without acknowledging the answer,
        and RFC 9293 has its kernel reset a connection that is closed over unread data; so FIN, all bytes
        acknowledged and no error together mean that the application has read everything.
        """
        if evidence is Evidence.RESET or (evidence is Evidence.END and (sent < self.end or unacknowledged)):
            return False
        if evidence is Evidence.END:
            return True
        return True if sent >= self.end and received > self.read_until else None

    def settle(self, taken: bool) -> None:
        tell_receipt(self.receipt, taken)


def tell_receipt(receipt: Callable[[bool], None], taken: bool) -> None:
    """Call a receipt of the application's; what it raises is logged here, where it would stop the I/O thread."""
    try:
        receipt(taken)
    except Exception:
        log.exception("receipt failed taken=%s", taken)


def unread_bytes(sock: socket.socket) -> int:
    """Bytes that have arrived and were not read yet."""
    return _ask_kernel(sock, termios.FIONREAD)


def unacknowledged_bytes(sock: socket.socket) -> int:
    """Bytes sent that the peer has not acknowledged (Linux, SIOCOUTQ); 0 where the system does not say."""
    return _ask_kernel(sock, termios.TIOCOUTQ) if sys.platform == "linux" else 0


def has_error(sock: socket.socket) -> bool:
    """Whether the connection was reset or broke. Asking clears it."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


def _ask_kernel(sock: socket.socket, what: int) -> int:
    return int.from_bytes(fcntl.ioctl(sock.fileno(), what, bytes(_INT_BYTES)), sys.byteorder)
