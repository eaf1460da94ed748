"""A search of one project's log in steps: a filter over all retained events can take seconds.

Pure. Between two steps, events may be published, which the search will reach, or dropped before it reaches them,
which it reports as a gap. So it finds the events that a single look at its end would find, and those found before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import msgspec

from ..models import Event, EventId
from .gap import EventGap
from .log import EventLog, size_of

MAX_ANSWER_BYTES = 4 << 20  # of events in one answer; one event is given however large it is

# How long one step of a search may occupy its actor; at least one more event is examined in any case.
STEP_S = 0.004


def step_ends() -> float:
    """When a step that begins now has to end, in perf_counter seconds."""
    return time.perf_counter() + STEP_S


class Search(msgspec.Struct, kw_only=True):
    """The first `limit` matching events after a place, as far as they are known.

    place, place_id: everything up to there was looked at. found: places and events, ascending. more: there are more
    than were asked for.
    """

    place: int
    place_id: EventId
    limit: int
    found: list[tuple[int, Event]] = []
    size: int = 0
    more: bool = False

    @property
    def reached(self) -> int:
        """The place behind which the next search begins."""
        return self.found[-1][0] if self.more else self.place

    @property
    def reached_id(self) -> EventId:
        return self.found[-1][1].event_id if self.more else self.place_id

    def missed(self, log: EventLog) -> EventGap | None:
        """The events that retention dropped before they were searched. The search continues behind them."""
        gap = log.missing.after(self.place, self.place_id)
        if gap is not None:
            self.place, self.place_id = log.dropped, gap.to
        return gap

    def step(
        self, log: EventLog, event_types: Collection[str], wants: Callable[[int, Event], bool], *, until: float
    ) -> bool:
        """Continue, at most until then. Returns whether the search has ended. until: perf_counter seconds."""
        looked_at = 0
        for place, event in log.after(self.place, event_types):
            if looked_at and time.perf_counter() >= until:
                self._come_to(looked_at, log)
                return False
            if wants(place, event):
                size = self.size + size_of(event)
                if len(self.found) == self.limit or (self.found and size > MAX_ANSWER_BYTES):
                    self.more = True
                    return True
                self.found.append((place, event))
                self.size = size
            looked_at = place
        self._come_to(log.last_place, log)
        return True

    def _come_to(self, place: int, log: EventLog) -> None:
        self.place, self.place_id = place, log.id_at(place)
