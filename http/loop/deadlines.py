"""Deadlines of one thread: a heap that forgets cancelled entries before they pile up.

A woken long poll leaves its deadline behind; at 5,000 wakes a second and 120 s each that would be 600,000 dead
entries, every one holding on to a connection.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable


def monotonic_s(clock: Callable[[], float] = time.monotonic) -> float:
    """Seconds of a clock that neither an operator nor a test can move.

    As a default argument freezegun does not find it: a test that moves time by a day must not end every long poll.
    """
    return clock()


class Deadline:
    """Something to be done at `due` (seconds of `monotonic_s`), unless it is cancelled before."""

    __slots__ = ("act", "due")

    def __init__(self, due: float, act: Callable[[], None]) -> None:
        self.due = due
        self.act: Callable[[], None] | None = act


class Deadlines:
    """Not for more than one thread. Times are `monotonic_s` seconds."""

    _FEW = 64  # below this many dead entries a clean-up is not worth its while

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Deadline]] = []
        self._number = itertools.count()
        self._dead = 0

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def add(self, due: float, act: Callable[[], None]) -> Deadline:
        deadline = Deadline(due, act)
        heapq.heappush(self._heap, (due, next(self._number), deadline))
        return deadline

    def every(self, period_s: float, act: Callable[[], None]) -> None:
        """Have `act` called now, and again each time that `period_s` seconds have passed since the last call."""

        def again() -> None:
            self.add(monotonic_s() + period_s, again)
            act()

        again()

    def cancel(self, deadline: Deadline) -> None:
        """Forget it; nothing happens if it has passed or was cancelled before."""
        if deadline.act is None:
            return
        deadline.act = None
        self._dead += 1
        if self._dead > self._FEW and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].act is not None]
            heapq.heapify(self._heap)
            self._dead = 0

    def next_due(self) -> float | None:
        """When the loop has to look again; may be that of a cancelled deadline."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> list[Callable[[], None]]:
        """The entries that are due at `now`, earliest first; each is returned once."""
        due: list[Callable[[], None]] = []
        while self._heap and self._heap[0][0] <= now:
            _, _, deadline = heapq.heappop(self._heap)
            if deadline.act is None:
                self._dead -= 1
            else:
                due.append(deadline.act)
                deadline.act = None
        return due
