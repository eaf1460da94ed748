"""Output: the unsent bytes of a connection, kept without a copy and freed when sent.

It replaces Waitress's buffers, which keep everything until the connection closes: a client that fetches a page of a
megabyte a hundred times over one connection would hold a hundred megabytes.
"""

from __future__ import annotations

FEW_BYTES = 4096  # up to here it is cheaper to join pieces than to send each by itself


class Output:
    """A queue of pieces. held_bytes: size of all pieces that are not sent completely."""

    __slots__ = ("_length", "_pieces", "_sent", "held_bytes")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # few; a deque takes 700 bytes more, for each of ten thousand connections
        self._sent = 0  # bytes of the first piece
        self._length = 0
        self.held_bytes = 0

    def __len__(self) -> int:
        return self._length

    def append(self, data: bytes) -> None:
        if data:
            if self._pieces and len(self._pieces[-1]) + len(data) <= FEW_BYTES:
                self._pieces[-1] += data
            else:
                self._pieces.append(data)
            self._length += len(data)
            self.held_bytes += len(data)

    def get(self, most: int) -> bytes | memoryview:
        """The next bytes, up to this number."""
        if not self._pieces:
            return b""
        first = self._pieces[0]
        if len(self._pieces) == 1 or len(first) - self._sent >= min(most, FEW_BYTES):
            return memoryview(first)[self._sent : self._sent + most]
        return (first[self._sent :] + self._pieces[1][:FEW_BYTES])[:most]

    def skip(self, count: int, allow_prune: bool = False) -> None:  # noqa: ARG002  # as Waitress calls it
        """Drop `count` bytes that were sent."""
        self._length -= count
        self._sent += count
        while self._pieces and self._sent >= len(self._pieces[0]):
            piece = self._pieces.pop(0)
            self._sent -= len(piece)
            self.held_bytes -= len(piece)

    def close(self) -> None:
        self._pieces.clear()
        self._sent = self._length = self.held_bytes = 0
