"""MissingEvents: the events that readers of a log can no longer get, because retention dropped them or the log lost
them."""

from __future__ import annotations

from datetime import datetime

from ..models import EventId, event_seq
from .gap import BEGINNING, EventGap, GapReason
from .ids import EventIds


class MissingEvents:
    """dropped: the place of the newest event that retention dropped, which is how many it has dropped.

    last_dropped: the id of that event. ids: those of all logs; they know what was lost.
    """

    def __init__(self, ids: EventIds, *, dropped: int, last_dropped: EventId) -> None:
        self.dropped = dropped
        self.last_dropped = last_dropped
        self._ids = ids
        self._published_at: datetime | None = None  # of the newest dropped event; unknown after a restart
        self._reason: GapReason = "age"

    def drop(self, event_id: EventId, published_at: datetime, reason: GapReason) -> None:
        """Note that retention drops the oldest event."""
        self.dropped += 1
        self.last_dropped = event_id
        self._published_at = published_at
        self._reason = reason

    def after(self, place: int, event_id: EventId) -> EventGap | None:
        """What a reader that stands at `place`, after event `event_id`, can no longer be given."""
        missed = self.dropped - place
        return self._gap(event_id, missed) if missed > 0 else None

    def after_id(self, event_id: EventId) -> EventGap | None:
        """The same for a reader that knows only the id of the event it stands after; ids count all projects."""
        lost = self._ids.gap_after(event_id)
        if not self.dropped or event_id >= self.last_dropped:
            return lost
        between = (event_seq(self.last_dropped) or 0) - (event_seq(event_id) or 0)
        dropped = self._gap(event_id, min(between, self.dropped))
        return dropped if lost is None else dropped.joined(lost)

    def since(self, time: datetime) -> EventGap | None:
        """The same for a reader that wants everything from `time` on."""
        lost = self._ids.gap_since(time)
        if not self.dropped or (self._published_at is not None and time > self._published_at):
            return lost
        dropped = self._gap(BEGINNING, self.dropped)
        return dropped if lost is None else dropped.joined(lost)

    def lost_after(self, event_id: EventId) -> EventGap | None:
        """Events after `event_id` that the log has lost."""
        return self._ids.gap_after(event_id)

    def _gap(self, after: EventId, missed: int) -> EventGap:
        return EventGap(from_=after, to=self.last_dropped, dropped_at_most=missed, reason=self._reason)
