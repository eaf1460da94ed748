"""Reading the log without a mailbox: `since=` for clients that keep their own place, and the list for operators."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from functools import reduce
from operator import attrgetter

import msgspec

from ..state.errors import EventsGone, InvalidRequest
from ..state.event_filter import compile_filter
from ..state.event_gap import Gap
from ..state.event_log import EventLog, size_of
from ..state.mailbox import MAX_ANSWER_BYTES, Delivery
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
        reached, more, size = event_log.last_place, False, 0
        for place, event in event_log.after(self.place, event_types):
            if matches(event) and not event_log.is_past_ttl(place, now=now):
                size += size_of(event)
                if len(found) == limit or (found and size > MAX_ANSWER_BYTES):
                    reached, more = found[-1][0], True
                    break
                found.append((place, event))
        if not found:
            return None
        return EventBatch(
            deliveries=tuple(Delivery(event=event) for _, event in found),
            more_available=more,
            next_cursor=event_log.cursor_at(reached),
            timed_out=False,
            gap=self.gap,
        )


def read_since(event_log: EventLog, since: str, *, strict: bool) -> Reading:
    """Where `since` points to: an event id (exclusive), "earliest", "latest" or an RFC 3339 time (inclusive).

    strict: raise EventsGone where the gap would otherwise be told of. Raises InvalidRequest for anything else.
    """
    point = _point(since)
    if point == "earliest":
        # Without an earlier place to go on from, nothing is refused, but the loss is reported.
        return Reading(place=event_log.dropped, gap=event_log.loss_after(event_log.id_at(event_log.dropped)))
    if point == "latest":
        return Reading(place=event_log.last_place)
    if isinstance(point, datetime):
        place = event_log.place_at(point)
        gap = event_log.gap_after_time(point)
    else:
        place = event_log.place_after_loss(EventId(point))
        gap = event_log.gap_after_id(EventId(point))
    if gap is not None and strict:
        raise _gone(since, event_log, gap)
    return Reading(place=place, gap=gap)


def _gone(since: str, event_log: EventLog, gap: Gap) -> EventsGone:
    why = "the log has lost them, or it is another log" if gap.reason == "restart" else "they are no longer retained"
    return EventsGone(
        f"events after {since} are missing: {why}",
        oldest=event_log.oldest_id,
        dropped_at_most=gap.dropped_at_most,
        reason=gap.reason,
    )


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


def list_events(logs: Sequence[EventLog], request: ListEvents, *, now: datetime) -> EventPage:
    """A page of the logs, newest first. Raises InvalidFilter, InvalidRequest, EventsGone."""
    event_filter = compile_filter(request.filter)
    readings = [_reading(event_log, request) for event_log in logs]
    matching = [
        event
        for event_log, reading in zip(logs, readings, strict=True)
        for place, event in event_log.after(reading.place, () if request.event_type is None else (request.event_type,))
        if request.topic in (None, event.topic)
        and not event_log.is_past_ttl(place, now=now)
        and event_filter.matches(event)
    ]
    matching.sort(key=attrgetter("event_id"), reverse=True)
    page = [event for event in matching if request.before is None or event.event_id < request.before]
    shown = tuple(_first(page, request.limit))
    cursor = shown[-1].event_id if len(page) > len(shown) > 0 else None
    return EventPage(shown, cursor, len(matching), _joined(reading.gap for reading in readings))


def _reading(event_log: EventLog, request: ListEvents) -> Reading:
    if request.since is None:
        return Reading(place=0)
    return read_since(event_log, request.since, strict=request.strict)


def _first(events: Sequence[Event], limit: int) -> Iterator[Event]:
    """The events that fit into one answer, at least one."""
    size = 0
    for number, event in enumerate(events[:limit]):
        size += size_of(event)
        if number > 0 and size > MAX_ANSWER_BYTES:
            return
        yield event


def _joined(gaps: Iterable[Gap | None]) -> Gap | None:
    """All gaps as one; a loss that several logs share counts once."""
    distinct = sorted({gap for gap in gaps if gap is not None}, key=attrgetter("to"))
    return reduce(Gap.joined, distinct) if distinct else None
