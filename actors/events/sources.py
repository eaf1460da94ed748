"""The source of events for a waiting request: a mailbox, or a position in the log that the client keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ...state.clock import utc_now
from ...state.events.log import EventLog
from ...state.events.mailbox import Mailbox, MailboxKey
from ...state.events.mailboxes import Mailboxes
from ...state.events.search import Search
from ...state.models import Event
from ..replies import AnswerId, EventBatch
from .reading import Reading


class Source(Protocol):
    """What one waiter reads. key: of its mailbox, or None."""

    key: MailboxKey | None

    def has_news(self) -> bool:
        """Whether a search could find anything."""
        ...

    def search(self, *, limit: int) -> Search:
        """A search for the next events; `look` continues it."""
        ...

    def look(self, search: Search, matches: Callable[[Event], bool], *, until: float) -> bool:
        """Continue a search, at most until then (perf_counter seconds). Returns whether it has ended."""
        ...

    def batch(self, search: Search) -> EventBatch | None:
        """The answer with the events that a search has found; None if there are none."""
        ...

    def timed_out(self, *, is_superseded: bool) -> EventBatch:
        """The answer without events. is_superseded: a later wait reads the same mailbox now."""
        ...


class MailboxSource:
    """Reads from a mailbox. Each answer moves it; the move is written with the next commit of the mailboxes."""

    __slots__ = ("_log", "_mailbox", "_mailboxes", "key")

    def __init__(self, mailbox: Mailbox, mailboxes: Mailboxes, event_log: EventLog) -> None:
        self.key: MailboxKey | None = mailbox.key
        self._mailbox = mailbox
        self._mailboxes = mailboxes
        self._log = event_log

    def has_news(self) -> bool:
        return self._mailbox.place != self._log.last_place or bool(self._mailbox.replays)

    def search(self, *, limit: int) -> Search:
        return self._mailbox.search(limit=limit)

    def look(self, search: Search, matches: Callable[[Event], bool], *, until: float) -> bool:
        return self._mailbox.look(self._log, search, matches, now=utc_now(), until=until)

    def batch(self, search: Search) -> EventBatch | None:
        mailbox = self._mailbox
        deliveries = mailbox.hand_out(search, incarnation=self._incarnation())
        self._mailboxes.changed(mailbox)
        if mailbox.handed is None:
            return None
        return EventBatch(
            deliveries=deliveries,
            more_available=search.more,
            next_cursor=self._log.cursor_at(mailbox.handed.reached),
            timed_out=False,
            gap=mailbox.gap,
            answer=AnswerId(mailbox.key, mailbox.handed.number),
        )

    def timed_out(self, *, is_superseded: bool) -> EventBatch:
        mailbox = self._mailbox
        gap, answer, place = None, None, mailbox.place
        if mailbox.gap is not None and not is_superseded:
            number = mailbox.time_out(incarnation=self._incarnation())
            gap, answer = mailbox.gap, AnswerId(mailbox.key, number)
            self._mailboxes.changed(mailbox)
        return EventBatch(
            deliveries=(),
            more_available=False,
            next_cursor=self._log.cursor_at(place),
            timed_out=True,
            superseded=is_superseded,
            gap=gap,
            answer=answer,
        )

    def _incarnation(self) -> int:
        return self._mailboxes.agents.incarnation(self._mailbox.key.agent_id)


class ReadingSource:
    """Reads from a position that the client keeps, and leaves no trace. event_types: none means every type."""

    __slots__ = ("_event_types", "_log", "_reading", "key")

    def __init__(self, reading: Reading, event_log: EventLog, event_types: frozenset[str]) -> None:
        self.key: MailboxKey | None = None
        self._event_types = event_types
        self._reading = reading
        self._log = event_log

    def has_news(self) -> bool:
        return True

    def search(self, *, limit: int) -> Search:
        return self._reading.search(self._log, limit=limit)

    def look(self, search: Search, matches: Callable[[Event], bool], *, until: float) -> bool:
        event_log, now = self._log, utc_now()
        self._reading = self._reading.missing(search.missed(event_log))

        def wants(place: int, event: Event) -> bool:
            return matches(event) and not event_log.is_past_ttl(place, now=now)

        is_over = search.step(event_log, self._event_types, wants, until=until)
        if not search.found:
            self._reading = self._reading.behind(search)
        return is_over

    def batch(self, search: Search) -> EventBatch | None:
        return self._reading.batch(self._log, search) if search.found else None

    def timed_out(self, *, is_superseded: bool) -> EventBatch:
        return EventBatch(
            deliveries=(),
            more_available=False,
            next_cursor=self._log.cursor_at(self._reading.place),
            timed_out=True,
            superseded=is_superseded,
            gap=self._reading.gap,
        )
