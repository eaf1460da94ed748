"""Waitress's channel, which also watches the fate of answers with a receipt.

It counts every byte in both directions itself: Waitress swallows send errors and then sets its own counters to zero.
Reading, writing and judging all happen in the I/O thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from waitress.channel import HTTPChannel

from .delivery import AnswerDelivery, Evidence, has_error, unacknowledged_bytes, unread_bytes
from .output import Output


class NoLock:
    """Stands in for the Condition that guards a channel's output: only the I/O thread writes, and nobody waits."""

    def acquire(self, blocking: bool = True) -> bool:  # noqa: ARG002  # as Waitress calls it
        return True

    def release(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> None:
        """Nothing is taken."""

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""

    def notify(self) -> None:
        """Nobody waits."""


_NO_LOCK = NoLock()


class WatchedChannel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """A channel that counts its bytes, and settles receipts by them."""

    socket: Any
    total_outbufs_len: int
    bytes_in = 0
    bytes_out = 0
    deliveries: tuple[AnswerDelivery, ...] = ()
    # Waitress takes a new buffer of its own where this count is high; one Output does for all answers.
    current_outbuf_count = property(lambda _: 0, lambda *_: None)

    def __init__(self, server: Any, sock: Any, address: Any, adjustments: Any, map: Any = None) -> None:
        super().__init__(server, sock, address, adjustments, map)
        self.outbuf_lock = _NO_LOCK
        self.output = Output()
        self.outbufs = [self.output]

    def expect_verdict(self, receipt: Callable[[bool], None], answer_bytes: int) -> None:
        """Watch what becomes of an answer of that many bytes that is written next."""
        delivery = AnswerDelivery(
            receipt,
            end=self.bytes_out + self.total_outbufs_len + answer_bytes,
            read_until=self.bytes_in + unread_bytes(self.socket),
        )
        self.deliveries = (*self.deliveries, delivery)

    def send(self, data: bytes | memoryview, do_close: bool = True) -> int:
        sent: int = super().send(data, do_close)
        self.bytes_out += sent
        return sent

    def recv(self, buffer_size: int) -> bytes:
        """Waitress closes the connection at the end of its input; here the evidence is looked at before that."""
        try:
            data: bytes = self.socket.recv(buffer_size)
        except ConnectionError:
            self.judge(Evidence.RESET)
            self.handle_close()
            return b""
        self.bytes_in += len(data)
        self.judge(Evidence.NEXT_REQUEST if data else Evidence.END)
        if not data:
            self.handle_close()
        return data

    def discount_input(self) -> None:
        """Ignore input that arrived before the answers could be read to their end: it proves nothing."""
        if self.deliveries:
            read_until = self.bytes_in + unread_bytes(self.socket)
            for delivery in self.deliveries:
                delivery.read_until = read_until

    def judge(self, evidence: Evidence) -> None:
        """Settle every delivery that the evidence decides."""
        if not self.deliveries or self.socket is None:
            return
        if evidence is Evidence.END and has_error(self.socket):
            evidence = Evidence.RESET
        unacknowledged = unacknowledged_bytes(self.socket) if evidence is Evidence.END else 0
        deliveries, self.deliveries = self.deliveries, ()
        for delivery in deliveries:
            taken = delivery.verdict(
                evidence, sent=self.bytes_out, unacknowledged=unacknowledged, received=self.bytes_in
            )
            if taken is None:
                self.deliveries = (*self.deliveries, delivery)
            else:
                delivery.settle(taken)

    def judge_unfinished(self) -> None:
        """The connection is being closed from this side: an answer not sent to its end is lost, others stay unknown."""
        for delivery in self.deliveries:
            if self.bytes_out < delivery.end:
                delivery.settle(False)
        self.deliveries = ()
