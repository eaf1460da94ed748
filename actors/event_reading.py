"""Reading the log without a mailbox: `since=` for clients that keep their own place, and the list for operators."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from operator import attrgetter

import msgspec

from ..state.errors import EventsGone, InvalidRequest
from ..state.event_filter import compile_filter
from ..state.event_log import EventLog, Gap, is_past_ttl
from ..state.mailbox import Delivery
from ..state.models import Event, EventId, event_seq
from ..state.typed import convert
from .messages import ListEvents
from .replies import EventBatch, EventPage


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Where a stateless read stands, and what is missing before it."""

    place: int
    gap: Gap | None = None

    def batch(
        self,
        event_log: EventLog,
        event_types: Collection[str],
        matches: Callable[[Event], bool],
        *,
        limit: int,
        now: datetime,
    ) -> EventBatch | None:
        """The first `limit` matching events after the place, oldest first; None if there are none."""
        found: list[tuple[int, Event]] = []
        reached, more = event_log.last_place, False
        for place, event in event_log.after(self.place, event_types):
            if matches(event) and not is_past_ttl(event, now=now):
                if len(found) == limit:
                    reached, more = found[-1][0], True
                    break
                found.append((place, event))
        if not found:
            return None
        return EventBatch(
            deliveries=tuple(Delivery(event=event) for _, event in found),
            more_available=more,
            next_cursor=event_log.id_at(reached),
            timed_out=False,
            gap=self.gap,
        )


def read_since(event_log: EventLog, since: str, *, strict: bool) -> Reading:
    """Where `since` points to: an event id (exclusive), "earliest", "latest" or an RFC 3339 time (inclusive).

    strict: raise EventsGone where the gap would otherwise be told of. Raises InvalidRequest for anything else.
    """
    point = _point(since)
    if point == "earliest":
        return Reading(place=event_log.dropped)
    if point == "latest":
        return Reading(place=event_log.last_place)
    if isinstance(point, datetime):
        place = event_log.place_at(point)
        gap = event_log.gap_after_time(point)
    else:
        place = event_log.place_of(EventId(point))
        gap = event_log.gap_after_id(EventId(point))
    if gap is not None and strict:
        raise EventsGone(
            f"events after {since} are no longer retained",
            oldest=event_log.oldest_id,
            dropped_at_most=gap.dropped_at_most,
        )
    return Reading(place=place, gap=gap)


def _point(since: str) -> str | datetime:
    """A word or an event id as it is, anything else as a time. Raises InvalidRequest."""
    if since in ("earliest", "latest") or event_seq(since) is not None:
        return since
    try:
        time = convert(since, datetime)
    except msgspec.ValidationError:
        time = None
    if time is None or time.tzinfo is None:
        raise InvalidRequest(
            "since cannot be read",
            field="since",
            expected="an event id, earliest, latest, or an RFC 3339 time with its zone",
        )
    return time


def list_events(logs: Iterable[EventLog], request: ListEvents, *, now: datetime) -> EventPage:
    """A page of the logs, newest first. Raises InvalidFilter, InvalidRequest."""
    event_filter = compile_filter(request.filter)
    if request.since is not None:
        _point(request.since)  # a fault in it is one also where there are no events
    matching = [
        event
        for event_log in logs
        for event in _newest_first(event_log, request.since)
        if request.event_type in (None, event.event_type)
        and request.topic in (None, event.topic)
        and not is_past_ttl(event, now=now)
        and event_filter.matches(event)
    ]
    matching.sort(key=attrgetter("event_id"), reverse=True)
    page = [event for event in matching if request.before is None or event.event_id < request.before]
    shown = tuple(page[: request.limit])
    return EventPage(shown, shown[-1].event_id if len(page) > len(shown) > 0 else None, len(matching))


def _newest_first(event_log: EventLog, since: str | None) -> Iterator[Event]:
    place = 0 if since is None else read_since(event_log, since, strict=False).place
    return (event_log.at(p) for p in range(event_log.last_place, max(place, event_log.dropped), -1))
