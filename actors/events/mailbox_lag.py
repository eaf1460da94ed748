"""Counts the lag of each mailbox: events that match its question and that it has not taken yet."""

from __future__ import annotations

import msgspec

from ...state.errors import InvalidFilter
from ...state.events.filter import EventFilter, compile_filter
from ...state.events.log import EventLog, size_of
from ...state.events.mailbox import Mailbox, MailboxKey
from .waiters import concerns

# Events examined for one request, over all mailboxes: publishers wait meanwhile.
MAX_LOOKED_AT_BYTES = 2 << 20
# The cost of an event whose data is not examined: thousands of mailboxes may ask only for types and topics.
_UNREAD_BYTES = 128


class _Counted(msgspec.Struct):
    """A count so far: of the events between `position` and `to`, `count` match. skipped: the dead letters left out."""

    position: int
    skipped: frozenset[int]
    to: int
    count: int = 0


class Lags:
    """The lags of mailboxes. Counts are cached, so that an event is matched once per mailbox, unless the mailbox
    moves or gives up on an event."""

    def __init__(self) -> None:
        self._counted: dict[MailboxKey, _Counted] = {}
        self._budget = 0

    def begin(self) -> None:
        """Begin a request that asks for lags."""
        self._budget = MAX_LOOKED_AT_BYTES

    def of(self, mailbox: Mailbox, log: EventLog) -> int:
        """The mailbox's lag. Events beyond the limit of this request count as matching."""
        position, skipped = max(mailbox.position, log.dropped), mailbox.skipped
        counted = self._counted.get(mailbox.key)
        if counted is None or counted.position != position or counted.skipped != skipped:
            counted = self._counted[mailbox.key] = _Counted(position, skipped, to=position)
        if counted.to < log.last_place:
            self._look(mailbox, log, counted)
        return counted.count + log.last_place - counted.to

    def forget(self, kept: set[MailboxKey]) -> None:
        """Forget all but these."""
        self._counted = {key: counted for key, counted in self._counted.items() if key in kept}

    def _look(self, mailbox: Mailbox, log: EventLog, counted: _Counted) -> None:
        key = mailbox.key
        event_filter = _filter(key)
        for place, event in log.after(counted.to, key.event_types):
            self._budget -= size_of(event) if event_filter.terms else _UNREAD_BYTES
            if self._budget < 0:
                return
            counted.to = place
            if concerns((), key.topics, event) and place not in counted.skipped and event_filter.matches(event):
                counted.count += 1
        counted.to = log.last_place


def _filter(key: MailboxKey) -> EventFilter:
    try:
        return compile_filter(key.filter)
    except InvalidFilter:  # its canonical form repeats fields, and may be longer than a filter that a client sends
        return compile_filter("")
