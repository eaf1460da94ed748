"""The events of one project: the newest `max_events` and `max_bytes`, none older than `max_age_s` or its own ttl.

Pure, takes now. Places count the project's events from 1 without a hole, so a mailbox is an integer and a gap is a
subtraction. Dropped events leave at the front only, and why they left is remembered.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta
from operator import attrgetter

import msgspec

from ..models import Event, EventId
from .gap import BEGINNING, GapReason
from .ids import EventIds
from .missing import MissingEvents
from .type_index import TypeIndex

# Deleting from the front of a list moves the rest; once per this many, or once per so many bytes that wait to be let
# go, it costs nothing that can be measured.
_COMPACT_AFTER = 1024
_COMPACT_AFTER_BYTES = 4 << 20

# Memory that an event takes besides its data: the record, its texts and its places in lists.
EVENT_OVERHEAD_BYTES = 1024


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a log. An event's own ttl can only shorten `max_age_s`. max_bytes: as `size_of` counts."""

    max_events: int = 10_000
    max_bytes: int = 256 << 20
    max_age_s: float = 86_400.0


def size_of(event: Event) -> int:
    """The size of an event in memory, in bytes, which is about its size in an answer."""
    return memoryview(event.data).nbytes + EVENT_OVERHEAD_BYTES


class EventLog:
    """The events of one project, oldest first. Append-only except for what retention drops.

    missing: what readers can no longer be given.
    dropped: how many events of this project had gone before the first that is appended here (after a restart).
    ids: those that the logs of all projects share.
    """

    def __init__(
        self,
        retention: Retention,
        *,
        dropped: int = 0,
        last_dropped: EventId = BEGINNING,
        ids: EventIds | None = None,
    ) -> None:
        self._retention = retention
        self._ids = ids or EventIds()
        self._events: list[Event] = []
        # When each was published, at the latest: one that was dated ahead was published before the event after it.
        self._times: list[datetime] = []
        self._bytes = 0  # of the retained ones
        self._dropped_bytes = 0  # of those that were dropped and still are in the list
        self._types = TypeIndex()
        self._head = 0  # index in _events of the oldest retained one
        self._before_list = dropped  # place of the event before _events[0]
        self._oldest_until: datetime | None = None  # how long the oldest retained one is kept; None: there is none
        self.missing = MissingEvents(self._ids, dropped=dropped, last_dropped=last_dropped)

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
        self._times.append(event.published_at)
        self._bytes += size_of(event)
        if len(self._times) - self._head > 1 and self._times[-2] > event.published_at:
            self._correct_times(event.published_at)
        elif self._oldest_until is None:
            self._oldest_until = self._kept_until(self._head)
        place = self._before_list + len(self._events)
        self._types.add(event.event_type, place)
        return place

    def _correct_times(self, newest: datetime) -> None:
        """Events that were dated ahead of the newest one were published before it: the clock had been ahead."""
        index = len(self._times) - 2
        while index >= self._head and self._times[index] > newest:
            self._times[index] = newest
            index -= 1
        self._oldest_until = self._kept_until(self._head)

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
        else:
            places = self._types.after(place, event_types)
        return ((found, self._events[found - self._before_list - 1]) for found in places)

    def place_of(self, event_id: EventId) -> int:
        """The place of the newest event with an id of at most `event_id`; `dropped` if all retained ones are newer."""
        index = bisect.bisect_right(self._events, event_id, lo=self._head, key=attrgetter("event_id"))
        return self._before_list + index

    def place_at(self, time: datetime) -> int:
        """The place of the newest event published before `time`."""
        index = bisect.bisect_left(self._times, time, lo=self._head)
        return self._before_list + index

    def has(self, place: int, event_id: EventId) -> bool:
        """Whether this event stands at `place`, as far as the log can tell."""
        return place <= self.dropped or (place <= self.last_place and self.at(place).event_id == event_id)

    def id_at(self, place: int) -> EventId:
        """The id of the event at `place`, or of the newest dropped one for every place before the retained."""
        return self.missing.last_dropped if place <= self.dropped else self.at(place).event_id

    def cursor_at(self, place: int) -> EventId:
        """The id up to which a reader at `place` has read; it already knows of any earlier loss."""
        return self.id_at(place) if place < self.last_place else max(self.id_at(place), self._ids.beyond_losses)

    @property
    def oldest_id(self) -> EventId | None:
        return self._events[self._head].event_id if len(self) else None

    def retains(self, event_id: EventId) -> bool:
        return self.oldest_id is not None and event_id >= self.oldest_id

    def expire(self, *, now: datetime) -> None:
        """Drop from the front what is over the count, too old, or past its own ttl."""
        limits = self._retention
        if self._oldest_until is None or (
            now <= self._oldest_until
            and len(self._events) - self._head <= limits.max_events
            and self._bytes <= limits.max_bytes
        ):
            return
        horizon = now - timedelta(seconds=limits.max_age_s)
        while len(self):
            reason: GapReason
            if len(self) > limits.max_events:
                reason = "count"
            elif self._bytes > limits.max_bytes:
                reason = "bytes"
            elif self._times[self._head] < horizon:
                reason = "age"
            elif self.is_past_ttl(self.dropped + 1, now=now):
                reason = "ttl"
            else:
                break
            event = self._events[self._head]
            self.missing.drop(event.event_id, self._times[self._head], reason)
            size = size_of(event)
            self._bytes -= size
            self._dropped_bytes += size
            self._head += 1
        self._oldest_until = self._kept_until(self._head) if len(self) else None
        if self._head >= _COMPACT_AFTER or self._dropped_bytes >= _COMPACT_AFTER_BYTES:
            self._compact()

    def _compact(self) -> None:
        """Free the memory of dropped events."""
        del self._events[: self._head]
        del self._times[: self._head]
        self._before_list += self._head
        self._head = self._dropped_bytes = 0
        self._types.forget_to(self.dropped)

    def _kept_until(self, index: int) -> datetime:
        return self._times[index] + timedelta(seconds=min(self._retention.max_age_s, self._events[index].ttl_s))

    def is_past_ttl(self, place: int, *, now: datetime) -> bool:
        """Whether the event at a retained place has outlived its own ttl; exactly `ttl_s` old it still lives."""
        index = place - self._before_list - 1
        return (now - self._times[index]).total_seconds() > self._events[index].ttl_s

    def place_after_loss(self, event_id: EventId) -> int:
        """As `place_of`; for an id beyond every one that was given, before all events of this life of the log.

        Such an id is from a life that is lost, or from another storage: its reader has seen none of the events.
        """
        return self.place_of(self._ids.life_began_after if self._ids.is_ahead(event_id) else event_id)
