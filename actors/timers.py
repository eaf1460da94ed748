"""Messages to actors that are due later: one thread and a heap, so that no actor ever waits.

Source: `timer:send_after` of Erlang/OTP. A message told after its reason has gone is the receiver's to ignore.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time

from .asking import Fact, Recipient

log = logging.getLogger(__name__)

# A wall clock moved by an operator or a test is noticed within this time.
_LOOK_AGAIN_S = 1.0


class Timers:
    """Tells facts when they are due. Start with `start()`, end with `stop()`; both may be called from any thread."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Recipient, Fact]] = []
        self._number = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="timers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(timeout=5.0)

    def tell_after(self, delay_s: float, recipient: Recipient, fact: Fact) -> None:
        """Tell `recipient` the fact in `delay_s` seconds (monotonic), or at once if that is not positive."""
        entry = (time.monotonic() + delay_s, next(self._number), recipient, fact)
        with self._changed:
            heapq.heappush(self._heap, entry)
            if self._heap[0] is entry:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and (not self._heap or self._heap[0][0] > time.monotonic()):
                    wait_s = self._heap[0][0] - time.monotonic() if self._heap else None
                    self._changed.wait(None if wait_s is None else min(wait_s, _LOOK_AGAIN_S))
                if self._stopped:
                    return
                _, _, recipient, fact = heapq.heappop(self._heap)
            recipient.tell(fact)
