"""BackgroundLoop: a thread that checks something repeatedly, and can be woken and stopped."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

_STOP_WITHIN_S = 5.0


class BackgroundLoop(ABC):
    """A daemon thread that runs `_run` from `start()` to `stop()`; both may be called from any thread.

    `_changed` guards the state that the thread shares with others, and is notified after each change.
    """

    def __init__(self, name: str) -> None:
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def _run(self) -> None:
        """Runs in the thread. Returns when `_stopped` is set."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(timeout=_STOP_WITHIN_S)
