"""All events on one journal: a log for each project, ids that are never used twice, repeats recognised by their key.

An event is appended into the journal's buffer and appears in its log only once `commit` has made it durable.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from ..errors import StorageUnavailable
from ..journal.journal import Durability, Journal
from ..models import Event, EventId, Priority, event_id, event_seq
from ..typed import LateDecoder
from .gap import BEGINNING
from .ids import UNSYNCED_AT_MOST, EventIds, Loss
from .log import EventLog, Retention
from .log_end import KnownEnd, LogEnd, this_boot


class EventRecord(msgspec.Struct, kw_only=True):
    """An event before it has an id, and as the journal keeps it.

    place: its place in the project's log; number: that of its id, 0 in a log of version 0.1, where it is the record's
    sequence number. `append` fills both in, and may move published_at. key, digest: the sender's idempotency key and
    what it was used for. sender: the agent whose token published it; "" for the sidecar itself.
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
    number: int = 0
    sender: str | None = None

    def event(self) -> Event:
        return Event(
            event_id=event_id(self.number),
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


OnceKey = tuple[str, str, str]  # project, sender, idempotency key

SIDECAR = ""  # the sender of what the sidecar publishes itself; no agent's id is empty

# An event is dated by the newest before it where the clock is behind that one by no more than this: clocks are
# corrected in small steps. Behind by more, the clock had been ahead, and later events must not be dated by that.
SMALL_STEP = timedelta(seconds=1)

_NOTHING = msgspec.Raw(b"{}")
_KEYS_AT_LEAST = 1024  # below that, looking through them is not worth it


class EventStore:
    """The logs of all projects. journal: for the caller that syncs it.

    Raises StorageInUse, StorageDamaged when opened; StorageUnavailable when written.
    """

    def __init__(self, directory: Path, retention: Retention, durability: Durability) -> None:
        self._retention = retention
        self._is_new = next(directory.glob("seg-*"), None) is None
        self.journal = Journal.open(directory, durability=durability)
        self._ids = EventIds()
        self._logs: dict[str, EventLog] = {}
        self._once: dict[OnceKey, tuple[str, Event]] = {}
        self._forget_keys_at = _KEYS_AT_LEAST
        self._buffered: list[tuple[EventRecord, Event]] = []
        self._buffered_to: dict[str, int] = {}  # the last place among them, by project
        self._newest: datetime | None = None
        self._is_of_0_1 = False
        try:
            self._end = LogEnd(directory.with_name(f"{directory.name}-end"))
        except OSError as error:
            self.journal.close()
            raise StorageUnavailable(f"{directory}-end cannot be opened: {error.strerror or error}") from error
        reader = LateDecoder(EventRecord)
        for entry in self.journal.entries():
            self._take_in(reader.decode(entry.record), entry.seq)

    def _take_in(self, record: EventRecord, seq: int) -> None:
        self._is_of_0_1 = record.number == 0
        record.number = record.number or seq
        # A view into what was read would keep the whole segment in memory.
        event = msgspec.structs.replace(record, data=msgspec.Raw(bytes(record.data))).event()
        self._ids.took(record.number, seq)
        if record.project_id not in self._logs:
            before = event_id(record.number - 1) if record.place > 1 else BEGINNING
            self._logs[record.project_id] = EventLog(
                self._retention, dropped=record.place - 1, last_dropped=before, ids=self._ids
            )
        self._enter(record, event)

    def _enter(self, record: EventRecord, event: Event) -> None:
        event_log = self.log(event.project_id)
        event_log.append(event)
        event_log.expire(now=event.published_at)
        self._newest = event.published_at
        if record.key is not None:
            # Without its data: the log may drop the event long before this is looked through.
            known = msgspec.structs.replace(event, data=_NOTHING)
            self._once[(event.project_id, _sender(record), record.key)] = (record.digest or "", known)
            if len(self._once) > self._forget_keys_at:
                self._forget_keys()

    def begin_life(self, known: EventId, *, now: datetime) -> Loss | None:
        """Start to give ids. Returns the loss of the log since it was last open, or None.

        known: the newest id that is known anywhere in the storage. losses: those that were noticed before.
        """
        end = self._end.known
        if self._ids.newest == 0 and end is not None and end.seq == self.journal.last_seq > 0:
            self._ids.newest = end.number  # retention has dropped them all
        loss = self._loss(event_seq(known) or 0, now)
        last = self._ids.newest
        above = max(last, event_seq(known) or 0, *(event_seq(each.to) or 0 for each in self._ids.losses))
        if loss is not None:
            above += UNSYNCED_AT_MOST
        self._ids.begin(max(above + 1, int(now.timestamp() * 1e6)), self.journal.last_seq + 1)
        if loss is not None:
            # What was lost before and lies after the same events is lost with it.
            before = [each for each in self._ids.losses if each.after >= loss.after]
            count = loss.lost_at_most + sum(each.lost_at_most for each in before)
            loss = msgspec.structs.replace(loss, to=event_id(self._ids.newest), lost_at_most=count)
            self.knew((*self._ids.losses, loss))
        return loss

    def _loss(self, known: int, now: datetime) -> Loss | None:
        last, end, losses = self._ids.newest, self._end.known, self._ids.losses
        told_to = max((event_seq(loss.to) or 0 for loss in losses), default=0)
        # After a loss that was noticed, the end is that of the new life, unless the log has lost more since.
        is_news = end is not None and (end.number > told_to or any(event_id(last) < loss.after for loss in losses))
        missing = end.seq - self.journal.last_seq if end is not None and is_news else 0
        if self._may_have_lost(end):
            count = UNSYNCED_AT_MOST
        elif missing > 0:
            count = missing
        elif known > max(last, told_to):
            count = known - last
        else:
            return None
        return Loss(after=event_id(last), to=event_id(last), lost_at_most=count, noticed_at=now)

    def _may_have_lost(self, end: KnownEnd | None) -> bool:
        """Whether the log may have lost an unknown number of events: in a power loss, or since a backup was made."""
        if end is None:
            return not self._is_new and not self._is_of_0_1
        is_power_loss = not end.is_closed and end.boot_id != this_boot()
        return is_power_loss and self.journal.durability is Durability.OS

    def life_began(self) -> None:
        """Note that the findings of `begin_life` are on the disk: the next start need not repeat them."""
        self._end.note(self._ids.newest, self.journal.last_seq)

    def knew(self, losses: Iterable[Loss]) -> None:
        """The losses that may still concern a reader, oldest first; known before `begin_life`, too.

        One that lies within a later one is part of that.
        """
        kept: list[Loss] = []
        for loss in losses:
            kept = [*(each for each in kept if each.after < loss.after), loss]
        self._ids.losses = tuple(kept)

    def place_after_loss(self, id_: EventId) -> EventId:
        """`id_`, or where this life of the log began if the log has never come as far as that."""
        return self._ids.life_began_after if self._ids.is_ahead(id_) else id_

    def log(self, project_id: str) -> EventLog:
        """The project's log; empty if nothing was ever published there."""
        if project_id not in self._logs:
            self._logs[project_id] = EventLog(self._retention, ids=self._ids)
        return self._logs[project_id]

    def logs(self, project_id: str | None) -> tuple[EventLog, ...]:
        """One project's log, or (None) all of them; at least one."""
        if project_id is not None:
            return (self.log(project_id),)
        return tuple(self._logs.values()) or (EventLog(self._retention, ids=self._ids),)

    @property
    def newest_id(self) -> EventId:
        """Of the newest event that was ever kept, whichever project's, or above it; later events have greater ids."""
        return event_id(self._ids.newest)

    def published_before(self, key: OnceKey) -> tuple[str, Event] | None:
        """The digest and the event that an idempotency key stands for, as long as the event is retained."""
        return self._once.get(key)

    def append(self, record: EventRecord) -> Event:
        """Put an event into the journal's buffer. Its time may move up to that of its predecessor: see SMALL_STEP."""
        newest = self._buffered[-1][1].published_at if self._buffered else self._newest
        record.place = (self._buffered_to.get(record.project_id) or self.log(record.project_id).last_place) + 1
        record.number = self._ids.newest + len(self._buffered) + 1
        if newest is not None and record.published_at < newest <= record.published_at + SMALL_STEP:
            record.published_at = newest
        event = record.event()
        self.journal.append([msgspec.json.encode(record)])
        self._buffered.append((record, event))
        self._buffered_to[record.project_id] = record.place
        return event

    def commit(self) -> list[Event]:
        """Make buffered events durable and add them to their logs, in order.

        Raises StorageUnavailable; then none of them was stored.
        """
        buffered, self._buffered = self._buffered, []
        self._buffered_to.clear()
        self.journal.commit()
        self._ids.newest += len(buffered)
        self._end.note(self._ids.newest, self.journal.last_seq)
        for record, event in buffered:
            self._enter(record, event)
        return [event for _, event in buffered]

    def expire(self, *, now: datetime) -> None:
        """Drop events beyond retention, from memory and, by whole segments, from disk."""
        for event_log in self._logs.values():
            event_log.expire(now=now)
        self._forget_keys()
        oldest = _numbers(event_log.oldest_id for event_log in self._logs.values())
        self.journal.drop_before(self._ids.seq_of(min(oldest)) if oldest else self.journal.last_seq + 1)

    def _forget_keys(self) -> None:
        """Forget idempotency keys of events that are not retained any more."""
        self._once = {
            key: (digest, event)
            for key, (digest, event) in self._once.items()
            if self.log(event.project_id).retains(event.event_id)
        }
        self._forget_keys_at = 2 * len(self._once) + _KEYS_AT_LEAST

    def close(self) -> None:
        """Everything is on the disk when this returns. Raises StorageUnavailable."""
        try:
            self.journal.close()
            self._end.note(self._ids.newest, self.journal.last_seq, is_closed=True)
        finally:
            self._end.close()


def _numbers(ids: Iterable[str | None]) -> list[int]:
    return [number for id_ in ids if id_ is not None and (number := event_seq(id_)) is not None]


def _sender(record: EventRecord) -> str:
    if record.sender is not None:
        return record.sender
    # Version 0.1 kept an agent's keys under what it called itself, and its own among them.
    is_own = record.publisher == "sidecar" or record.event_type == "result_stored"
    return SIDECAR if is_own else record.publisher
