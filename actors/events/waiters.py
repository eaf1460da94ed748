"""The requests that wait for events, by project and event type. Ended by a deadline or a lost client. No I/O."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator

from ...state.events.filter import EventFilter
from ...state.events.mailbox import MailboxKey
from ...state.events.search import Search
from ...state.models import Event
from ..messages import AwaitEvents
from ..replies import EventBatch
from ..runtime.asking import Later
from .sources import Source

_EVERY_TYPE = ""  # no event type is empty


class Waiter:
    """A waiting request. source: where its events come from.

    search: its unfinished search of the log. gone: called with its number when its client has gone away.
    """

    __slots__ = (
        "deadline",
        "event_filter",
        "gone",
        "is_superseded",
        "later",
        "number",
        "request",
        "search",
        "source",
    )

    def __init__(
        self,
        number: int,
        request: AwaitEvents,
        later: Later[EventBatch],
        event_filter: EventFilter,
        source: Source,
        deadline: float,
    ) -> None:
        self.number = number
        self.request = request
        self.event_filter = event_filter
        self.source = source
        self.deadline = deadline
        self.later = later
        self.is_superseded = False
        self.gone: Callable[[int], None] | None = None
        self.search: Search | None = None

    def __str__(self) -> str:
        return f"project_id={self.request.project_id} agent_id={self.request.agent_id}"

    def is_searching(self) -> bool:
        """Whether its search of the log has not ended."""
        return self.search is not None

    def ended(self, later: Later[EventBatch]) -> None:
        if self.gone is not None and later.cancelled():
            self.gone(self.number)


def concerns(event_types: frozenset[str] | tuple[str, ...], topics: Iterable[str], event: Event) -> bool:
    """Whether types and topics match the event; an empty set matches every event."""
    return (not event_types or event.event_type in event_types) and (not topics or event.topic in topics)


class Waiters:
    """All waiting requests. Deadlines are monotonic seconds."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._all: dict[int, Waiter] = {}
        self._by_type: dict[tuple[str, str], dict[int, Waiter]] = {}
        self._of_mailbox: dict[MailboxKey, Waiter] = {}
        self._deadlines: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(tuple(self._all.values()))

    def add(
        self,
        request: AwaitEvents,
        later: Later[EventBatch],
        event_filter: EventFilter,
        source: Source,
        deadline: float,
    ) -> Waiter:
        """Let `request` wait. It supersedes an older waiter on the same mailbox, which gets nothing more."""
        waiter = Waiter(next(self._numbers), request, later, event_filter, source, deadline)
        self._all[waiter.number] = waiter
        for event_type in request.event_types or (_EVERY_TYPE,):
            self._by_type.setdefault((request.project_id, event_type), {})[waiter.number] = waiter
        if source.key is not None:
            older = self._of_mailbox.get(source.key)
            if older is not None:
                older.is_superseded = True
            self._of_mailbox[source.key] = waiter
        heapq.heappush(self._deadlines, (deadline, waiter.number))
        return waiter

    def remove(self, number: int) -> Waiter | None:
        """Forget a waiter; None if it was answered or forgotten before."""
        waiter = self._all.pop(number, None)
        if waiter is None:
            return None
        waiter.search = None
        for event_type in waiter.request.event_types or (_EVERY_TYPE,):
            same_type = self._by_type[(waiter.request.project_id, event_type)]
            del same_type[number]
            if not same_type:
                del self._by_type[(waiter.request.project_id, event_type)]
        key = waiter.source.key
        if key is not None and self._of_mailbox.get(key) is waiter:
            del self._of_mailbox[key]
        # Answered waiters leave their deadlines behind, and a long poll that is often woken would pile them up.
        if len(self._deadlines) > 64 + 2 * len(self._all):
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._all]
            heapq.heapify(self._deadlines)
        return waiter

    def concerned(self, event: Event) -> list[Waiter]:
        """Waiters for the event's type and topic, in order of arrival; filters are not checked."""
        found: list[Waiter] = []
        for event_type in (event.event_type, _EVERY_TYPE):
            waiters = self._by_type.get((event.project_id, event_type))
            if waiters is not None:
                topic = event.topic
                found += [w for w in waiters.values() if not w.request.topics or topic in w.request.topics]
        return found

    def is_waited_on(self, key: MailboxKey) -> bool:
        return key in self._of_mailbox

    def next_deadline(self) -> float | None:
        while self._deadlines and self._deadlines[0][1] not in self._all:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def prolong(self, waiter: Waiter, *, until: float) -> None:
        """Have one that was overdue named again then."""
        heapq.heappush(self._deadlines, (until, waiter.number))

    def overdue(self, *, now: float) -> list[Waiter]:
        """Waiters whose time is up, each returned once; the caller removes them."""
        found = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            found.append(self._all[heapq.heappop(self._deadlines)[1]])
        return found
