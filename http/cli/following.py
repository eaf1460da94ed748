"""Following events without an end, through restarts of the sidecar: each one once, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ...state.models import EventId
from ..client.client import MAX_WAIT_S, Client
from ..client.records import Batch
from .reconnect import Patience


class EventFollower:
    """Follows events: `next()` gives what came since the last one, as soon as something came; it may hold no events.

    since: read from there without a mailbox; None: the mailbox, so that another run of the command goes on from it.
    question: the further arguments of `Client.wait`.

    Nothing is acknowledged: what this process has read was printed. So an answer of the mailbox that was under way
    when the sidecar died may be lost, and one that was read may come again. After a loss the log is read without the
    mailbox, from the last known place on; what the mailbox gives of that part is left out.
    """

    def __init__(
        self, client: Client, event_types: Sequence[str], since: str | None, question: Mapping[str, Any]
    ) -> None:
        self._client = client
        self._event_types = tuple(event_types)
        self._question = dict(question)
        self._patience = Patience(client)
        self._begins_at = since
        self._place: EventId | None = None  # everything up to here was given out
        self._losses_mended = 0
        self._read_up_to: EventId | None = None  # without the mailbox

    def next(self) -> Batch:
        if self._place is None:
            # A look that waits for nothing tells the place. A server that is not there at all is an error.
            return self._given_out(self._wait(since=self._begins_at, timeout_s=0.0))
        return self._patience.ask(self._go_on)

    def _go_on(self) -> Batch:
        if self._begins_at is not None:
            return self._given_out(self._wait(since=self._place, timeout_s=MAX_WAIT_S))
        losses = self._patience.losses
        if losses == self._losses_mended:
            return self._given_out(self._wait(since=None, timeout_s=MAX_WAIT_S))
        batch = self._given_out(self._wait(since=self._place, timeout_s=0.0))
        self._read_up_to = self._place
        if not batch.more_available:
            self._losses_mended = losses
        return batch

    def _wait(self, *, since: str | None, timeout_s: float) -> Batch:
        batch = self._client.wait(*self._event_types, since=since, timeout_s=timeout_s, **self._question)
        read = self._read_up_to
        if since is not None or read is None:
            return batch
        return msgspec.structs.replace(batch, events=tuple(event for event in batch.events if event.event_id > read))

    def _given_out(self, batch: Batch) -> Batch:
        if batch.next_cursor is not None:
            self._place = batch.next_cursor if self._place is None else max(self._place, batch.next_cursor)
        return batch
