"""The events of one project: the newest `max_events`, none older than `max_age_s` or its own ttl; pure, takes now.

Places count the project's events from 1 without a hole, so a mailbox is an integer and a gap is a subtraction.
Places are never reused; dropped events leave at the front only, and why they left is remembered.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Literal

import msgspec

from .models import Event, EventId, event_seq

DropReason = Literal["count", "age", "ttl"]

# Deleting from the front of a list moves the rest; once per this many it costs nothing that can be measured.
_COMPACT_AFTER = 1024

BEGINNING = EventId("evt-0000000000000000")


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """What a log keeps. An event's own ttl can only shorten `max_age_s`."""

    max_events: int = 10_000
    max_age_s: float = 86_400.0


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Events that retention dropped before a mailbox was given them; at most `dropped_at_most` were for it.

    from_: the last event before the gap, "evt-0000000000000000" at the beginning of the log; to: the last missing one.
    """

    from_: EventId
    to: EventId
    dropped_at_most: int
    reason: DropReason

    def joined(self, later: Gap) -> Gap:
        """This gap and a later one, as one; the reason is that of the later."""
        return Gap(
            from_=min(self.from_, later.from_),
            to=max(self.to, later.to),
            dropped_at_most=self.dropped_at_most + later.dropped_at_most,
            reason=later.reason,
        )


class EventLog:
    """Append-only but for what retention drops.

    dropped: how many events of this project had gone before the first that is appended here (after a restart).
    """

    def __init__(self, retention: Retention, *, dropped: int = 0, last_dropped: EventId = BEGINNING) -> None:
        self._retention = retention
        self._events: list[Event] = []
        self._of_type: dict[str, list[int]] = {}  # places, ascending; may begin with some that were dropped
        self._head = 0  # index in _events of the oldest retained one
        self._before_list = dropped  # place of the event before _events[0]
        self._last_dropped = last_dropped
        self._oldest_until: datetime | None = None  # how long the oldest retained one is kept; None: there is none
        self._dropped_until: datetime | None = None  # unknown after a restart
        self._drop_reason: DropReason = "age"

    def __len__(self) -> int:
        return len(self._events) - self._head

    @property
    def last_place(self) -> int:
        """The place of the newest event ever appended."""
        return self._before_list + len(self._events)

    @property
    def dropped(self) -> int:
        """The place of the newest event that retention dropped; everything after it is retained."""
        return self._before_list + self._head

    def append(self, event: Event) -> int:
        """Returns the event's place."""
        self._events.append(event)
        if self._oldest_until is None:
            self._oldest_until = self._kept_until(event)
        self._of_type.setdefault(event.event_type, []).append(self.last_place)
        return self.last_place

    def at(self, place: int) -> Event:
        """The event at a retained place."""
        if not self.dropped < place <= self.last_place:
            raise IndexError(f"place {place} is not within {self.dropped + 1}..{self.last_place}")
        return self._events[place - self._before_list - 1]

    def after(self, place: int, event_types: Collection[str] = ()) -> Iterator[tuple[int, Event]]:
        """Retained events after `place`, oldest first, with their places; also those past their ttl.

        event_types: only events of these types; none means every type. Costs nothing for events of others.
        """
        place = max(place, self.dropped)
        if not event_types:
            places: Iterable[int] = range(place + 1, self.last_place + 1)
        elif len(event_types) == 1:
            places = self._places_of(next(iter(event_types)), after=place)
        else:
            places = heapq.merge(*(self._places_of(event_type, after=place) for event_type in event_types))
        return ((found, self._events[found - self._before_list - 1]) for found in places)

    def _places_of(self, event_type: str, *, after: int) -> Iterator[int]:
        places = self._of_type.get(event_type, [])
        return itertools.islice(places, bisect.bisect_right(places, after), None)

    def place_of(self, event_id: EventId) -> int:
        """The place of the newest event with an id of at most `event_id`; `dropped` if all retained ones are newer."""
        index = bisect.bisect_right(self._events, event_id, lo=self._head, key=attrgetter("event_id"))
        return self._before_list + index

    def place_at(self, time: datetime) -> int:
        """The place of the newest event published before `time`."""
        index = bisect.bisect_left(self._events, time, lo=self._head, key=attrgetter("published_at"))
        return self._before_list + index

    def id_at(self, place: int) -> EventId:
        """The id of the event at `place`, or of the newest dropped one for every place before the retained."""
        return self._last_dropped if place <= self.dropped else self.at(place).event_id

    @property
    def oldest_id(self) -> EventId | None:
        return self._events[self._head].event_id if len(self) else None

    def retains(self, event_id: EventId) -> bool:
        return self.oldest_id is not None and event_id >= self.oldest_id

    def expire(self, *, now: datetime) -> None:
        """Drop from the front what is over the count, too old, or past its own ttl."""
        if self._oldest_until is None or (now <= self._oldest_until and len(self) <= self._retention.max_events):
            return
        horizon = now - timedelta(seconds=self._retention.max_age_s)
        while len(self):
            event = self._events[self._head]
            if len(self) > self._retention.max_events:
                self._drop_reason = "count"
            elif event.published_at < horizon:
                self._drop_reason = "age"
            elif is_past_ttl(event, now=now):
                self._drop_reason = "ttl"
            else:
                break
            self._last_dropped = event.event_id
            self._dropped_until = event.published_at
            self._head += 1
        self._oldest_until = self._kept_until(self._events[self._head]) if len(self) else None
        if self._head >= _COMPACT_AFTER:
            del self._events[: self._head]
            self._before_list += self._head
            self._head = 0
            self._of_type = {
                event_type: kept
                for event_type, places in self._of_type.items()
                if (kept := places[bisect.bisect_right(places, self.dropped) :])
            }

    def _kept_until(self, event: Event) -> datetime:
        return event.published_at + timedelta(seconds=min(self._retention.max_age_s, event.ttl_s))

    def gap_after(self, place: int, event_id: EventId) -> Gap | None:
        """What a reader that stands at `place`, after event `event_id`, can no longer be given."""
        missed = self.dropped - place
        if missed <= 0:
            return None
        return self._gap(event_id, missed)

    def gap_after_id(self, event_id: EventId) -> Gap | None:
        """The same for a reader that knows only the id of the event it stands after; ids count all projects."""
        if not self.dropped or event_id >= self._last_dropped:
            return None
        between = (event_seq(self._last_dropped) or 0) - (event_seq(event_id) or 0)
        return self._gap(event_id, min(between, self.dropped))

    def gap_after_time(self, time: datetime) -> Gap | None:
        """The same for a reader that wants everything from `time` on."""
        if not self.dropped or (self._dropped_until is not None and time > self._dropped_until):
            return None
        return self._gap(BEGINNING, self.dropped)

    def _gap(self, after: EventId, missed: int) -> Gap:
        return Gap(from_=after, to=self._last_dropped, dropped_at_most=missed, reason=self._drop_reason)


def is_past_ttl(event: Event, *, now: datetime) -> bool:
    """Whether the event has outlived its own ttl; exactly `ttl_s` old it still lives."""
    return (now - event.published_at).total_seconds() > event.ttl_s
