"""Searches of the log that one message does not end: each goes on in its turn, with other messages in between."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from ...state.events.search import step_ends

# Goes on with a search until a perf_counter time, at least by one event; says whether it has ended. Raises nothing.
Step = Callable[[float], bool]


class Searches:
    """Those that have not ended, in the order in which they go on. Owned by the EventBus, used in its thread alone."""

    def __init__(self) -> None:
        self._steps: deque[Step] = deque()

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: Step) -> None:
        self._steps.append(step)

    def go_on(self) -> None:
        """As much as one message may do: a part of one search, or several that are nearly done."""
        until = step_ends()
        for _ in range(len(self._steps)):
            step = self._steps.popleft()
            if not step(until):
                self._steps.append(step)
            if time.perf_counter() >= until:
                return
