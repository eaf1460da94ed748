"""Delayed messages to actors: one thread and a heap, so that no actor ever waits.

Source: `timer:send_after` of Erlang/OTP. The receiver ignores a message whose reason has gone.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import time

from ...supervision.background import BackgroundLoop
from .asking import Fact, Recipient

log = logging.getLogger(__name__)

# A timer later than this means that the whole process did not run: it was stopped, or got no CPU.
GAP_S = 0.5

# A wall clock moved by an operator or a test is noticed within this time.
_LOOK_AGAIN_S = 1.0


class ClockGap(Fact, frozen=True):
    """The process did not run for `gap_s` seconds, or up to a second less. Sent before what became due meanwhile."""

    gap_s: float


class Timers(BackgroundLoop):
    """Sends facts when they are due."""

    def __init__(self) -> None:
        super().__init__("timers")
        self._heap: list[tuple[float, int, Recipient, Fact]] = []
        self._number = itertools.count()
        self._told_of_gaps: dict[str, Recipient] = {}

    def tell_after(self, delay_s: float, recipient: Recipient, fact: Fact) -> None:
        """Tell `recipient` the fact in `delay_s` seconds (monotonic), or at once if that is not positive."""
        entry = (time.monotonic() + delay_s, next(self._number), recipient, fact)
        with self._changed:
            heapq.heappush(self._heap, entry)
            if self._heap[0] is entry:
                self._changed.notify()

    def tell_gaps(self, recipient: Recipient) -> None:
        """Send `recipient` a ClockGap whenever the process did not run for a while."""
        self._told_of_gaps[recipient.name] = recipient

    def _run(self) -> None:
        awake_at = back_by = time.monotonic()  # back by then at the latest, unless the process does not run
        while True:
            with self._changed:
                if self._stopped:
                    return
                now = time.monotonic()
                due = heapq.heappop(self._heap) if self._heap and self._heap[0][0] <= now else None
                if due is None:
                    wait_s = min(self._heap[0][0] - now, _LOOK_AGAIN_S) if self._heap else None
                    awake_at, back_by = now, now + wait_s if wait_s is not None else math.inf
                    self._changed.wait(wait_s)
            now = time.monotonic()
            if now - back_by > GAP_S:
                self._tell_gap(now - awake_at)  # it may have been stopped as soon as it waited
            awake_at = back_by = now
            if due is not None:
                _, _, recipient, fact = due
                recipient.tell(fact)

    def _tell_gap(self, gap_s: float) -> None:
        log.warning("process did not run gap_s=%.1f", gap_s)
        for recipient in tuple(self._told_of_gaps.values()):
            recipient.tell(ClockGap(gap_s))
