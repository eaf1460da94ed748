"""InputRead: calls back when everything that clients had sent by a certain moment has been read.

The Spawner uses it before it ends a silent agent: after a pause of the whole process, heartbeats of that time are
still in the kernel, in open connections and in those that are not accepted yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .deadlines import monotonic_s

# The first whole turn reads the open connections and accepts the waiting ones; the second reads those.
TURNS = 2
WITHIN_S = 2.0  # the latest time: a server that never catches up must not keep every silent agent alive


class InputReader(Protocol):
    """The server that reads the input."""

    @property
    def is_running(self) -> bool: ...

    def when_read(self, act: Callable[[], None]) -> None:
        """Have `act` called in the I/O thread when all that has arrived by now is read."""


class InputRead:
    """Call it, in any thread, with a callback. `watch` names the server, which is made after its callers.

    `act` is called in the I/O thread when all requests that had arrived by now have been read, and those of quick
    routes handed to their actors; at the latest after WITHIN_S. Called at once where no server runs. Of a request
    that is longer than 8 KiB only the beginning may have been read.
    """

    def __init__(self) -> None:
        self._server: InputReader | None = None

    def watch(self, server: InputReader) -> None:
        self._server = server

    def __call__(self, act: Callable[[], None]) -> None:
        if self._server is None or not self._server.is_running:
            act()
        else:
            self._server.when_read(act)


class ReadTurns:
    """Counts the turns of the I/O loop for each caller. For the I/O thread."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, float, Callable[[], None]]] = []  # turns to go, the latest time, what to do

    def add(self, act: Callable[[], None]) -> None:
        self.asked.append((TURNS, monotonic_s() + WITHIN_S, act))

    def turned(self, *, is_whole: bool) -> list[Callable[[], None]]:
        """The callbacks that are due. is_whole: everything that was ready in this turn was read."""
        now = monotonic_s()
        counted = [(turns - is_whole, until, act) for turns, until, act in self.asked]
        self.asked = [asked for asked in counted if asked[0] > 0 and now < asked[1]]
        return [act for turns, until, act in counted if turns <= 0 or now >= until]

    def rest(self) -> list[Callable[[], None]]:
        """All remaining callbacks: the loop has ended."""
        asked, self.asked = self.asked, []
        return [act for _, _, act in asked]
