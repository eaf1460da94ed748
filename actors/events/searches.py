"""Searches of the log that take longer than one message: each continues in turn, with other messages in between."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from ...state.events.search import step_ends

# Continues a search until a perf_counter time, by at least one event. Returns whether it has ended. Raises nothing.
Step = Callable[[float], bool]


class Searches:
    """The unfinished searches, in the order in which they continue. Owned by the EventBus, used only in its
    thread."""

    def __init__(self) -> None:
        self._steps: deque[Step] = deque()

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: Step) -> None:
        self._steps.append(step)

    def go_on(self) -> None:
        """Do the work of one message: a part of one search, or several that are nearly done."""
        until = step_ends()
        for _ in range(len(self._steps)):
            step = self._steps.popleft()
            if not step(until):
                self._steps.append(step)
            if time.perf_counter() >= until:
                return
