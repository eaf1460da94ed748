"""The event log as Server-Sent Events: one stateless read of the bus after another, no thread and no mailbox."""

from __future__ import annotations

import logging
import threading
from typing import Any

import msgspec

from ...actors.messages import AwaitEvents
from ...actors.replies import EventBatch
from ...actors.runtime.asking import Later, Recipient
from ...state.errors import SidecarError
from ..routing import Sink
from ..wire.codec import encode
from ..wire.events import EventOut, GapOut

log = logging.getLogger(__name__)

READ_S = 30.0  # one read of the bus; the next follows at once
BATCH = 200


class EventStream:
    """Feeds a stream from where `first` ended. read: what is asked again and again, with another `since`."""

    def __init__(self, bus: Recipient, read: AwaitEvents, first: EventBatch, *, draining: threading.Event) -> None:
        self._bus = bus
        self._read = read
        self._first = first
        self._draining = draining
        self._reading: Later[EventBatch] | None = None
        self._sink: Sink | None = None

    def start(self, sink: Sink) -> None:
        self._sink = sink
        self._go_on(self._first)

    def stop(self) -> None:
        self._sink = None
        if self._reading is not None:
            self._reading.cancel()

    def _go_on(self, batch: EventBatch) -> None:
        """Send the events that were read and read on. In the bus's thread, except the first time."""
        sink = self._sink
        if sink is None:
            return
        data = as_text(batch)
        if data and not sink.send(data):
            return  # too slow a reader: it comes back with Last-Event-ID
        if self._draining.is_set():
            sink.close()
            return
        read = msgspec.structs.replace(self._read, since=batch.next_cursor, timeout_s=READ_S, strict=False)
        later = self._bus.request(read)
        self._reading = later
        if self._sink is None:  # stopped meanwhile
            later.cancel()
        later.add_done_callback(self._was_read)

    def _was_read(self, later: Later[Any]) -> None:
        if later.cancelled():
            return
        error = later.exception()
        if error is None:
            self._go_on(later.result())
            return
        if not isinstance(error, SidecarError):
            log.error("event stream ended", exc_info=error)
        if self._sink is not None:
            self._sink.close()


def as_text(batch: EventBatch) -> bytes:
    """One message an event, with its id; before them, where retention was faster, a message of type `gap`."""
    parts = [b"event: gap\n", _data(encode(GapOut.of(batch.gap)))] if batch.gap is not None else []
    for delivery in batch.deliveries:
        parts += [b"id: ", delivery.event.event_id.encode(), b"\n", _data(encode(EventOut.of(delivery.event)))]
    return b"".join(parts)


def _data(json: bytes) -> bytes:
    # Line breaks can only stand between the tokens of a client's JSON, never inside its strings.
    return b"data: " + json.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n\n"
