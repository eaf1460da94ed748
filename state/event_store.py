"""All events on one journal: a log for each project, ids that rise across restarts, repeats recognised by their key.

An event is appended into the journal's buffer and appears in its log only once `commit` has made it durable.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import msgspec

from .event_log import EventLog, Retention
from .journal import Durability, Journal
from .models import Event, EventId, Priority, event_id, event_seq
from .typed import LateDecoder


class NewEvent(msgspec.Struct, kw_only=True):
    """An event before it has an id, and as the journal keeps it: the id is its record's sequence number.

    place: its place in the project's log; `append` fills it in, and may move published_at. key, digest: the
    publisher's idempotency key and what it was used for.
    """

    project_id: str
    event_type: str
    publisher: str
    publisher_type: str
    topic: str
    data: msgspec.Raw
    correlation_id: str | None
    priority: Priority
    ttl_s: int
    published_at: datetime
    place: int = 0
    key: str | None = None
    digest: str | None = None
    traceparent: str | None = None

    def event(self, seq: int) -> Event:
        return Event(
            event_id=event_id(seq),
            project_id=self.project_id,
            event_type=self.event_type,
            publisher=self.publisher,
            publisher_type=self.publisher_type,
            topic=self.topic,
            data=self.data,
            correlation_id=self.correlation_id,
            priority=self.priority,
            ttl_s=self.ttl_s,
            published_at=self.published_at,
            traceparent=self.traceparent,
        )


OnceKey = tuple[str, str, str]  # project, publisher, idempotency key


class EventStore:
    """The logs of all projects. Raises StorageInUse, StorageDamaged when opened; StorageUnavailable when written."""

    def __init__(self, directory: Path, retention: Retention, durability: Durability) -> None:
        self._retention = retention
        self._journal = Journal.open(directory, durability=durability)
        self._logs: dict[str, EventLog] = {}
        self._once: dict[OnceKey, tuple[str, Event]] = {}
        self._buffered: list[tuple[NewEvent, Event]] = []
        self._newest: datetime | None = None
        reader = LateDecoder(NewEvent)
        for entry in self._journal.entries():
            self._take_in(reader.decode(entry.record), entry.seq)

    def _take_in(self, record: NewEvent, seq: int) -> None:
        # A view into what was read would keep the whole segment in memory.
        event = msgspec.structs.replace(record, data=msgspec.Raw(bytes(record.data))).event(seq)
        if record.project_id not in self._logs:
            self._logs[record.project_id] = EventLog(
                self._retention, dropped=record.place - 1, last_dropped=event_id(seq - 1)
            )
        self._enter(record, event)

    def _enter(self, record: NewEvent, event: Event) -> None:
        self.log(event.project_id).append(event)
        self._newest = event.published_at
        if record.key is not None:
            self._once[(event.project_id, event.publisher, record.key)] = (record.digest or "", event)

    def log(self, project_id: str) -> EventLog:
        """The project's log; empty if nothing was ever published there."""
        if project_id not in self._logs:
            self._logs[project_id] = EventLog(self._retention)
        return self._logs[project_id]

    def logs(self, project_id: str | None) -> tuple[EventLog, ...]:
        """One project's log, or (None) all of them."""
        if project_id is not None:
            return (self.log(project_id),)
        return tuple(self._logs.values())

    @property
    def newest_id(self) -> EventId:
        """Of the newest event that was ever kept, whichever project's; events after it have greater ids."""
        return event_id(self._journal.last_seq)

    def published_before(self, key: OnceKey) -> tuple[str, Event] | None:
        """The digest and the event that an idempotency key stands for, as long as the event is retained."""
        return self._once.get(key)

    def append(self, record: NewEvent) -> Event:
        """Put an event into the journal's buffer. Its time is moved up to that of its predecessor if it lies before."""
        same_project = (other.place for other, _ in reversed(self._buffered) if other.project_id == record.project_id)
        newest = self._buffered[-1][1].published_at if self._buffered else self._newest
        record.place = next(same_project, self.log(record.project_id).last_place) + 1
        if newest is not None and newest > record.published_at:
            record.published_at = newest
        event = record.event(self._journal.append([msgspec.json.encode(record)]))
        self._buffered.append((record, event))
        return event

    def commit(self) -> tuple[Event, ...]:
        """Make buffered events durable and enter them into their logs, in order.

        Raises StorageUnavailable: then none of them was kept.
        """
        buffered, self._buffered = self._buffered, []
        self._journal.commit()
        for record, event in buffered:
            self._enter(record, event)
            self.log(event.project_id).expire(now=event.published_at)
        return tuple(event for _, event in buffered)

    def expire(self, *, now: datetime) -> None:
        """Drop what retention no longer keeps, from memory and, by whole segments, from the disk."""
        for event_log in self._logs.values():
            event_log.expire(now=now)
        self._once = {
            key: (digest, event)
            for key, (digest, event) in self._once.items()
            if self.log(event.project_id).retains(event.event_id)
        }
        oldest = _seqs(event_log.oldest_id for event_log in self._logs.values())
        self._journal.drop_before(min(oldest, default=self._journal.last_seq + 1))

    def close(self) -> None:
        self._journal.close()


def _seqs(ids: Iterable[str | None]) -> list[int]:
    return [seq for id_ in ids if id_ is not None and (seq := event_seq(id_)) is not None]
