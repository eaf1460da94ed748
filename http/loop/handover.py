"""Work that other threads hand to the I/O thread, and the trigger that wakes it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ...actors.runtime.asking import once_together


class Handover:
    """Two queues, of calls to make and of answers to write. Used by every thread.

    pull_trigger: makes the poller return, from any thread.
    """

    def __init__(self, pull_trigger: Callable[[], None]) -> None:
        self._pull_trigger = pull_trigger
        self._lock = threading.Lock()
        self._is_asleep = False
        self.posts: deque[Callable[[], None]] = deque()
        self.wakes: deque[tuple[Any, Any]] = deque()

    def post(self, act: Callable[[], None]) -> None:
        """Have `act` called in the I/O thread, soon."""
        self.posts.append(act)
        self._rouse()

    def wake(self, connection: Any, parked: Any, _: object = None) -> None:
        """Have the answer of a parked request written, a slice of all known answers at a time."""
        self.wakes.append((connection, parked))
        once_together(self._rouse)

    def _rouse(self) -> None:
        if self._is_asleep:
            with self._lock:  # after the end of the loop, the trigger's descriptor may belong to another file
                if self._is_asleep:
                    self._is_asleep = False
                    self._pull_trigger()

    # The I/O thread's half.

    def sleep(self) -> bool:
        """From now on, wake for work that is handed over. False, and still awake, if there is some already."""
        self._is_asleep = True
        if self.posts or self.wakes:
            self._is_asleep = False
        return self._is_asleep

    def awake(self) -> None:
        self._is_asleep = False

    def end(self) -> None:
        """Never pull the trigger again."""
        with self._lock:
            self._is_asleep = False
