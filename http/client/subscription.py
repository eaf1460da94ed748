"""Endless reading of a mailbox: each event is acknowledged when the next one is asked for."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from ...state.models import EventId, event_id
from .connections import BlockingConnections
from .errors import Superseded
from .records import Batch, Gap, ReceivedEvent
from .steps import Steps

log = logging.getLogger(__name__)


class Wait(Protocol):
    """One wait on the mailbox, with everything up to `ack` done."""

    def __call__(self, *, ack: EventId | None, timeout_s: float) -> Steps[Batch]: ...


class MailboxReader:
    """Reads a mailbox event by event, without I/O. gap: see Subscription. poll_s: how long one wait may take."""

    def __init__(self, wait: Wait, *, poll_s: float) -> None:
        self._wait = wait
        self._poll_s = poll_s
        self._waiting: deque[ReceivedEvent] = deque()
        # Acknowledging nothing says from the first wait on that nothing less than an acknowledgement counts.
        self._done: EventId | None = event_id(0)
        self._given: ReceivedEvent | None = None
        self.gap: Gap | None = None

    def next(self) -> Steps[ReceivedEvent]:
        """The next event, however long it takes. Raises Superseded when another reader took the mailbox over."""
        while not self._waiting:
            yield from self._acknowledge(self._poll_s)
        self._given = self._waiting.popleft()
        return self._given

    def ack(self) -> Steps[None]:
        """Mark the last event as done before asking for the next one."""
        if self._given is not None:
            yield from self._acknowledge(0.0)

    def _acknowledge(self, timeout_s: float) -> Steps[None]:
        if self._given is not None:
            self._done, self._given = self._given.event_id, None
        batch = yield from self._wait(ack=self._done, timeout_s=timeout_s)
        self._done = None
        if batch.superseded:
            raise Superseded("another wait on this mailbox took over; name a consumer to read the same events twice")
        if batch.gap is not None:
            self.gap = batch.gap
            log.warning(
                "events were lost before they were read at_most=%d reason=%s",
                batch.gap.dropped_at_most,
                batch.gap.reason,
            )
        # After an acknowledgement in the middle of a batch, the rest of it comes again.
        merged = {event.event_id: event for event in (*self._waiting, *batch.events)}
        self._waiting = deque(merged[event_id] for event_id in sorted(merged))


class Subscription(Iterator[ReceivedEvent]):
    """`for event in agent.events(…)`: delivers each event at least once, in the order of the log, without end.

    An event counts as done when the next one is asked for, so an event that killed the process is delivered again to
    the next incarnation. After leaving the loop, the last event is not done, unless you call `ack()`.
    """

    def __init__(self, reader: MailboxReader, connections: BlockingConnections) -> None:
        self._reader = reader
        self._connections = connections

    @property
    def gap(self) -> Gap | None:
        """The last events that were lost before they could be read; None as long as nothing was lost."""
        return self._reader.gap

    def __next__(self) -> ReceivedEvent:
        """The next event, however long it takes. Raises Superseded when another reader took the mailbox over."""
        return self._connections.run(self._reader.next())

    def ack(self) -> None:
        """Mark the last event as done before asking for the next one."""
        self._connections.run(self._reader.ack())
