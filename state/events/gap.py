"""A gap: events that a reader does not get because the log no longer has them. Every such reader gets the gap."""

from __future__ import annotations

from typing import Literal

import msgspec

from ..models import EventId

# count, age, ttl, bytes: retention dropped them. restart: the log lost its newest events (a power loss, an old backup).
GapReason = Literal["count", "age", "ttl", "bytes", "restart"]

BEGINNING = EventId("evt-0000000000000000")


class EventGap(msgspec.Struct, frozen=True, kw_only=True):
    """Events that were gone before a reader got them; at most `dropped_at_most` would have matched.

    from_: the last event before the gap, "evt-0000000000000000" at the beginning of the log; to: the last missing one.
    """

    from_: EventId
    to: EventId
    dropped_at_most: int
    reason: GapReason

    def joined(self, later: EventGap) -> EventGap:
        """This gap and a later one, as one; the reason is that of the later."""
        return EventGap(
            from_=min(self.from_, later.from_),
            to=max(self.to, later.to),
            dropped_at_most=self.dropped_at_most + later.dropped_at_most,
            reason=later.reason,
        )
