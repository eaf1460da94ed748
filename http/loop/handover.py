"""Work that other threads hand to the I/O thread, and the trigger that wakes it from its sleep."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ...actors.runtime.asking import once_together


class Handover:
    """Two queues, of things to do and of answers that are known; used by every thread.

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
        """Have the answer of a parked request written, a slice of all that are known at a time."""
        self.wakes.append((connection, parked))
        once_together(self._rouse)

    def _rouse(self) -> None:
        if self._is_asleep:
            with self._lock:  # once the loop has ended, the trigger's descriptor may be another file's
                if self._is_asleep:
                    self._is_asleep = False
                    self._pull_trigger()

    # The I/O thread's half.

    def sleep(self) -> bool:
        """Be woken from now on by what is handed over; False, and awake, if something is there already."""
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
