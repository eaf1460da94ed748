"""The events of one project: the newest `max_events` and `max_bytes`, none older than `max_age_s` or its own ttl.

Pure, takes now. Places count the project's events from 1 without a hole, so a mailbox is an integer and a gap is a
subtraction. Dropped events leave at the front only, and why they left is remembered.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta
from operator import attrgetter

import msgspec

from ..models import Event, EventId, event_seq
from .gap import BEGINNING, Gap, GapReason
from .ids import EventIds

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
    """Append-only except for what retention drops.

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
        self._of_type: dict[str, list[int]] = {}  # places, ascending; may begin with some that were dropped
        self._head = 0  # index in _events of the oldest retained one
        self._before_list = dropped  # place of the event before _events[0]
        self._last_dropped = last_dropped
        self._oldest_until: datetime | None = None  # how long the oldest retained one is kept; None: there is none
        self._dropped_until: datetime | None = None  # unknown after a restart
        self._drop_reason: GapReason = "age"

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
        self._of_type.setdefault(event.event_type, []).append(self.last_place)
        return self.last_place

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
        index = bisect.bisect_left(self._times, time, lo=self._head)
        return self._before_list + index

    def has(self, place: int, event_id: EventId) -> bool:
        """Whether this event stands at `place`, as far as the log can tell."""
        return place <= self.dropped or (place <= self.last_place and self.at(place).event_id == event_id)

    def id_at(self, place: int) -> EventId:
        """The id of the event at `place`, or of the newest dropped one for every place before the retained."""
        return self._last_dropped if place <= self.dropped else self.at(place).event_id

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
        if self._oldest_until is None or (now <= self._oldest_until and not self._is_over()):
            return
        horizon = now - timedelta(seconds=self._retention.max_age_s)
        while len(self):
            event = self._events[self._head]
            if len(self) > self._retention.max_events:
                self._drop_reason = "count"
            elif self._bytes > self._retention.max_bytes:
                self._drop_reason = "bytes"
            elif self._times[self._head] < horizon:
                self._drop_reason = "age"
            elif self._is_past_ttl(self._head, now=now):
                self._drop_reason = "ttl"
            else:
                break
            self._last_dropped = event.event_id
            self._dropped_until = self._times[self._head]
            size = size_of(event)
            self._bytes -= size
            self._dropped_bytes += size
            self._head += 1
        self._oldest_until = self._kept_until(self._head) if len(self) else None
        if self._head >= _COMPACT_AFTER or self._dropped_bytes >= _COMPACT_AFTER_BYTES:
            self._compact()

    def _is_over(self) -> bool:
        return len(self) > self._retention.max_events or self._bytes > self._retention.max_bytes

    def _compact(self) -> None:
        """Free the memory of dropped events."""
        del self._events[: self._head]
        del self._times[: self._head]
        self._before_list += self._head
        self._head = self._dropped_bytes = 0
        self._of_type = {
            event_type: kept
            for event_type, places in self._of_type.items()
            if (kept := places[bisect.bisect_right(places, self.dropped) :])
        }

    def _kept_until(self, index: int) -> datetime:
        return self._times[index] + timedelta(seconds=min(self._retention.max_age_s, self._events[index].ttl_s))

    def is_past_ttl(self, place: int, *, now: datetime) -> bool:
        """Whether the event at a retained place has outlived its own ttl; exactly `ttl_s` old it still lives."""
        return self._is_past_ttl(place - self._before_list - 1, now=now)

    def _is_past_ttl(self, index: int, *, now: datetime) -> bool:
        return (now - self._times[index]).total_seconds() > self._events[index].ttl_s

    def gap_after(self, place: int, event_id: EventId) -> Gap | None:
        """What a reader that stands at `place`, after event `event_id`, can no longer be given."""
        missed = self.dropped - place
        if missed <= 0:
            return None
        return self._gap(event_id, missed)

    def gap_after_id(self, event_id: EventId) -> Gap | None:
        """The same for a reader that knows only the id of the event it stands after; ids count all projects."""
        lost = self._ids.gap_after(event_id)
        if not self.dropped or event_id >= self._last_dropped:
            return lost
        between = (event_seq(self._last_dropped) or 0) - (event_seq(event_id) or 0)
        dropped = self._gap(event_id, min(between, self.dropped))
        return dropped if lost is None else dropped.joined(lost)

    def gap_after_time(self, time: datetime) -> Gap | None:
        """The same for a reader that wants everything from `time` on."""
        lost = self._ids.gap_since(time)
        if not self.dropped or (self._dropped_until is not None and time > self._dropped_until):
            return lost
        dropped = self._gap(BEGINNING, self.dropped)
        return dropped if lost is None else dropped.joined(lost)

    def loss_after(self, event_id: EventId) -> Gap | None:
        """Events after `event_id` that the log has lost."""
        return self._ids.gap_after(event_id)

    def place_after_loss(self, event_id: EventId) -> int:
        """As `place_of`; for an id beyond every one that was given, before all events of this life of the log.

        Such an id is from a life that is lost, or from another storage: its reader has seen none of the events.
        """
        return self.place_of(self._ids.life_began_after if self._ids.is_ahead(event_id) else event_id)

    def _gap(self, after: EventId, missed: int) -> Gap:
        return Gap(from_=after, to=self._last_dropped, dropped_at_most=missed, reason=self._drop_reason)
