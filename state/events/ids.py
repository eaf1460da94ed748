"""The ids that the event log has given in all its lives, and the events that are known to be lost.

An id is never used for two events, although a log may lose its newest events (a power loss, a restored backup) and
with them the knowledge of which ids they had. So each time the log is opened its ids go on from the time in
microseconds since 1970, which no id has reached that was given before: nobody publishes a million events a second. A
clock that was set back is no danger as long as the id is known anywhere in the storage.

Between two lives there is a hole of ids that were never given, or whose events are gone. A reader that is
at an id in a hole, or beyond the newest, has read events that the log has lost.
"""

from __future__ import annotations

import bisect
from datetime import datetime
from operator import attrgetter

import msgspec

from ..models import EventId, event_id, event_seq
from .gap import BEGINNING, EventGap

# More than anybody publishes between two syncs of the log: so many events a power loss takes at most.
UNSYNCED_AT_MOST = 1_000_000


class Loss(msgspec.Struct, frozen=True, kw_only=True, tag="log_lost"):
    """One loss of newest events. after: the newest event left; to: the last id that a lost event may have had."""

    after: EventId
    to: EventId
    lost_at_most: int
    noticed_at: datetime

    def gap(self) -> EventGap:
        return EventGap(from_=self.after, to=self.to, dropped_at_most=self.lost_at_most, reason="restart")


class _Life(msgspec.Struct, frozen=True):
    """A life of the log: ids without a hole. first: the number of its first id. seq: that id's record in the journal.

    after: the number of the newest id before it; 0 for none.
    """

    first: int
    seq: int
    after: int


class EventIds:
    """All lives. newest: the number of the newest id that was given, or that a new life skips. losses: oldest first."""

    def __init__(self) -> None:
        self.newest = 0
        self.losses: tuple[Loss, ...] = ()
        self._lives: list[_Life] = []

    def took(self, number: int, seq: int) -> None:
        """Record an event with this number, at `seq` of the journal; called in order."""
        if not self._lives or number != self.newest + 1:
            # Of what lies before the first record nothing is known, unless it is the first there ever was.
            after = self.newest if self._lives or seq == 1 else number - 1
            self._lives.append(_Life(number, seq, after))
        self.newest = number

    def begin(self, first: int, seq: int) -> None:
        """Begin a new life: the next event gets the number `first`, which is above all others."""
        self._lives.append(_Life(first, seq, self.newest))
        self.newest = first - 1

    @property
    def life_began_after(self) -> EventId:
        """The newest event of earlier lives."""
        return event_id(self._lives[-1].after) if self._lives else BEGINNING

    @property
    def beyond_losses(self) -> EventId:
        """The lowest id that a reader can be at and know of every loss."""
        return self.losses[-1].to if self.losses else BEGINNING

    def seq_of(self, number: int) -> int:
        """The journal's record number of the event with this number."""
        life = self._lives[bisect.bisect_right(self._lives, number, key=attrgetter("first")) - 1]
        return life.seq + number - life.first

    def is_ahead(self, id_: EventId) -> bool:
        """Whether the id is beyond every id that was given."""
        return (event_seq(id_) or 0) > self.newest

    def gap_after(self, id_: EventId) -> EventGap | None:
        """The lost events that concern a reader which has read up to this id, as one gap; None if there are none."""
        gap = self._gap_around(id_)
        for loss in self.losses:
            if id_ <= loss.after:
                gap = loss.gap() if gap is None else gap.joined(loss.gap())
        return gap

    def gap_since(self, time: datetime) -> EventGap | None:
        """The lost events that concern a reader which wants everything from a time on, as one gap; None if none."""
        gap = None
        for loss in self.losses:
            if time <= loss.noticed_at:
                gap = loss.gap() if gap is None else gap.joined(loss.gap())
        return gap

    def _gap_around(self, id_: EventId) -> EventGap | None:
        number = event_seq(id_) or 0
        if number > self.newest:
            after = event_seq(self.life_began_after) or 0
        else:
            hole = self._hole_with(number)
            if hole is None:
                return None
            after = hole.after
        loss = next((loss for loss in self.losses if loss.after == event_id(after)), None)
        if loss is not None and id_ <= loss.to:
            return loss.gap()
        return EventGap(from_=event_id(after), to=id_, dropped_at_most=number - after, reason="restart")

    def _hole_with(self, number: int) -> _Life | None:
        """The life after the hole that the number lies in."""
        index = bisect.bisect_right(self._lives, number, key=attrgetter("first"))
        if index == len(self._lives):
            return None
        life = self._lives[index]
        # The number before its first stands for its beginning: a reader that is there has missed nothing of it.
        return life if life.after < number < life.first - 1 else None
