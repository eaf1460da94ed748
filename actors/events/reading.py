"""Reads the log without a mailbox: `since=` for clients that keep their own position, and the list for operators."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial, reduce
from operator import attrgetter

import msgspec

from ...state.errors import EventsGone, InvalidRequest, SidecarError
from ...state.events.filter import compile_filter
from ...state.events.gap import EventGap
from ...state.events.log import EventLog, size_of
from ...state.events.mailbox import Delivery
from ...state.events.search import MAX_ANSWER_BYTES, Search
from ...state.models import Event, EventId, event_seq
from ...state.typed import convert
from ..messages import ListEvents
from ..replies import EventBatch, EventPage
from ..runtime.asking import Later

log = logging.getLogger(__name__)


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The position of a stateless read, and the events missing before it."""

    place: int
    gap: EventGap | None = None

    def search(self, event_log: EventLog, *, limit: int) -> Search:
        """A search for the first events after the position. Events dropped before its start were reported before."""
        place = max(self.place, event_log.dropped)
        return Search(place=place, place_id=event_log.id_at(place), limit=limit)

    def missing(self, gap: EventGap | None) -> Reading:
        """The same with one gap more."""
        if gap is None:
            return self
        return Reading(place=self.place, gap=gap if self.gap is None else self.gap.joined(gap))

    def behind(self, search: Search) -> Reading:
        """The position reached by a search that has found nothing."""
        return Reading(place=max(self.place, search.place), gap=self.gap)

    def batch(self, event_log: EventLog, search: Search) -> EventBatch:
        """The events that a search has found, oldest first."""
        return EventBatch(
            deliveries=tuple(Delivery(event=event) for _, event in search.found),
            more_available=search.more,
            next_cursor=event_log.cursor_at(search.reached),
            timed_out=False,
            gap=self.gap,
        )


def read_since(event_log: EventLog, since: str, *, strict: bool) -> Reading:
    """Where `since` points to: an event id (exclusive), "earliest", "latest" or an RFC 3339 time (inclusive).

    strict: raise EventsGone if the answer would have a gap. Raises InvalidRequest for anything else.
    """
    point = _point(since)
    if point == "earliest":
        # Without an earlier position to continue from, nothing is refused, but the loss is reported.
        return Reading(place=event_log.dropped, gap=event_log.missing.lost_after(event_log.id_at(event_log.dropped)))
    if point == "latest":
        return Reading(place=event_log.last_place)
    if isinstance(point, datetime):
        place = event_log.place_at(point)
        gap = event_log.missing.since(point)
    else:
        place = event_log.place_after_loss(EventId(point))
        gap = event_log.missing.after_id(EventId(point))
    if gap is not None and strict:
        raise _gone(since, event_log, gap)
    return Reading(place=place, gap=gap)


def _gone(since: str, event_log: EventLog, gap: EventGap) -> EventsGone:
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


class EventListing:
    """A page of the logs, newest first, searched in steps. Raises InvalidFilter, InvalidRequest, EventsGone."""

    def __init__(self, logs: Sequence[EventLog], request: ListEvents, *, now: datetime) -> None:
        self._request = request
        self._now = now
        self._filter = compile_filter(request.filter)
        self._types = () if request.event_type is None else (request.event_type,)
        readings = [_reading(event_log, request) for event_log in logs]
        self._gaps = [reading.gap for reading in readings]
        self._left = deque(
            (event_log, reading.search(event_log, limit=0)) for event_log, reading in zip(logs, readings, strict=True)
        )
        self._total = 0
        self._older = 0  # of these, those that the page may begin with
        self._newest: list[Event] = []  # of these again, of the logs that were looked through

    def step(self, *, until: float) -> EventPage | None:
        """Continue, at most until then (perf_counter seconds). Returns the page when everything was searched."""
        while self._left:
            event_log, search = self._left[0]
            if (gap := search.missed(event_log)) is not None:
                self._missed(event_log, gap)
            of_log: deque[Event] = deque(maxlen=self._request.limit)
            is_over = search.step(event_log, self._types, partial(self._take, event_log, of_log), until=until)
            self._newest = sorted([*self._newest, *of_log], key=attrgetter("event_id"))[-self._request.limit :]
            if is_over:
                self._left.popleft()
            if self._left and time.perf_counter() >= until:
                return None
        return self._page()

    def answer(self, later: Later[EventPage], until: float) -> bool:
        """Continue like `step`, and answer. Returns whether it is done, or no longer wanted."""
        if later.cancelled():
            return True
        try:
            page = self.step(until=until)
        except Exception as error:
            if not isinstance(error, SidecarError):
                log.exception("list of events failed")
            later.refuse(error)
            return True
        if page is not None:
            later.answer(page)
        return page is not None

    def _missed(self, event_log: EventLog, gap: EventGap) -> None:
        if self._request.since is None:
            return  # a reader that asks only for retained events misses none
        if self._request.strict:
            raise _gone(self._request.since, event_log, gap)
        self._gaps.append(gap)

    def _take(self, event_log: EventLog, of_log: deque[Event], place: int, event: Event) -> bool:
        """Count an event that matches; the search itself need not keep it."""
        request = self._request
        if (
            request.topic in (None, event.topic)
            and not event_log.is_past_ttl(place, now=self._now)
            and self._filter.matches(event)
        ):
            self._total += 1
            if request.before is None or event.event_id < request.before:
                self._older += 1
                of_log.append(event)
        return False

    def _page(self) -> EventPage:
        shown = tuple(_first(self._newest[::-1], self._request.limit))
        cursor = shown[-1].event_id if self._older > len(shown) > 0 else None
        return EventPage(shown, cursor, self._total, _joined(self._gaps))


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


def _joined(gaps: Iterable[EventGap | None]) -> EventGap | None:
    """All gaps as one; a loss that several logs share counts once."""
    distinct = sorted({gap for gap in gaps if gap is not None}, key=attrgetter("to"))
    return reduce(EventGap.joined, distinct) if distinct else None
