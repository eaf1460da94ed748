"""Wire names of events: what is published, awaited and listed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ...actors.replies import EventBatch, EventPage, MailboxStatus, PublishedEvent
from ...state.events.dead_letters import DeadLetter
from ...state.events.gap import EventGap
from ...state.events.mailbox import Delivery
from ...state.models import Event, EventId, Priority
from .codec import Body, Nothing, Timed
from .shapes import (
    EventRef,
    Filter,
    Identifier,
    Identifiers,
    MaybeEventRef,
    MaybeIdentifier,
    Moment,
    Payload,
    Place,
    described_range,
)

MAX_BATCH = 1000
TTL_MIN_S, TTL_MAX_S = 1, 86400


class NewEvent(Body, frozen=True, kw_only=True):
    """`event_type` repeats the path; `publisher` is the token's agent id or agent type."""

    data: Payload
    event_type: Identifier | None = None
    publisher: Identifier | None = None
    topic: Identifier | None = None
    correlation_id: Annotated[str, Meta(max_length=256)] | None = None
    ttl_seconds: Annotated[int, described_range(TTL_MIN_S, TTL_MAX_S)] | None = None
    priority: Priority | None = None


class EventPublished(Timed, frozen=True, kw_only=True):
    """The answer to a publish. subscribers_notified: agents that wait for the event, or subscribe to its topic."""

    event_id: EventId
    published: bool
    subscribers_notified: tuple[str, ...]
    subscriber_count: int
    topic: str
    ttl_seconds: int

    @classmethod
    def of(cls, published: PublishedEvent) -> EventPublished:
        return cls(
            event_id=published.event_id,
            published=True,
            subscribers_notified=tuple(published.subscribers),
            subscriber_count=len(published.subscribers),
            topic=published.topic,
            ttl_seconds=published.ttl_s,
            timestamp=published.published_at,
        )


class WaitQuery(Nothing, frozen=True, kw_only=True):
    """How to wait for events.

    timeout: milliseconds.
    """

    timeout: Annotated[int, Meta(ge=0)] = 30_000
    filter: Filter = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_BATCH)] = 100
    ack: MaybeEventRef | None = None
    since: Place | None = None
    consumer: MaybeIdentifier = ""
    strict: bool = False


class WaitManyQuery(WaitQuery, frozen=True, kw_only=True):
    """How to wait for events of several types or topics.

    types, topics: comma lists; left out means every one.
    """

    types: Identifiers = ""
    topics: Identifiers = ""


class StreamQuery(Nothing, frozen=True, kw_only=True):
    """Which events to stream.

    types, topics: comma-separated; default: all. since: as for a wait; default: from now.

    strict: 410 if `since` or `Last-Event-ID` would begin with a gap.
    """

    types: Identifiers = ""
    topics: Identifiers = ""
    filter: Filter = ""
    since: Place = "latest"
    strict: bool = False


class ListQuery(Nothing, frozen=True, kw_only=True):
    """Which events to list.

    since: only events after this one. cursor: only events before this one; use the last page's next_cursor.

    strict: 410 if the answer would have a gap.
    """

    topic: Identifier | None = None
    type: Identifier | None = None
    since: Place | None = None
    cursor: EventRef | None = None
    filter: Filter = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_BATCH)] = 100
    strict: bool = False


class EventOut(Timed, frozen=True, kw_only=True, omit_defaults=True):
    """One event. replayed: older than the agent. redelivered: delivered before, but the answer was lost."""

    event_id: EventId
    event_type: str
    publisher: str
    publisher_type: str
    topic: str
    data: Payload
    correlation_id: str | None
    priority: Priority
    ttl_seconds: int
    project_id: str
    replayed: bool = False
    redelivered: bool = False
    traceparent: str | None = None

    @classmethod
    def of(cls, event: Event, delivery: Delivery | None = None) -> EventOut:
        return cls(
            event_id=event.event_id,
            event_type=event.event_type,
            publisher=event.publisher,
            publisher_type=event.publisher_type,
            topic=event.topic,
            data=event.data,
            correlation_id=event.correlation_id,
            priority=event.priority,
            ttl_seconds=event.ttl_s,
            project_id=event.project_id,
            timestamp=event.published_at,
            replayed=delivery.replayed if delivery else False,
            redelivered=delivery.redelivered if delivery else False,
            traceparent=event.traceparent,
        )


class GapOut(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """Events that were removed before the reader got them.

    reason: count, bytes, age or ttl: retention removed them. restart: the log lost its newest events, in a power loss
    or because a backup was restored, or it never had the requested position.
    """

    from_: EventId
    to: EventId
    dropped_at_most: int
    reason: str

    @classmethod
    def of(cls, gap: EventGap) -> GapOut:
        return cls(gap.from_, gap.to, gap.dropped_at_most, gap.reason)


class EventsAwaited(Timed, frozen=True, kw_only=True):
    """The answer to a wait.

    timeout: no event came in time. superseded: another wait of the same mailbox took its place.
    """

    events: list[EventOut]
    more_available: bool
    next_cursor: EventId
    timeout: bool
    superseded: bool | UnsetType = UNSET
    gap: GapOut | UnsetType = UNSET

    @classmethod
    def of(cls, batch: EventBatch, *, now: datetime) -> EventsAwaited:
        return cls(
            events=[EventOut.of(delivery.event, delivery) for delivery in batch.deliveries],
            more_available=batch.more_available,
            next_cursor=batch.next_cursor,
            timeout=batch.timed_out,
            superseded=True if batch.superseded else UNSET,
            gap=GapOut.of(batch.gap) if batch.gap is not None else UNSET,
            timestamp=now,
        )


class EventsListed(Timed, frozen=True, kw_only=True):
    """A page of events, newest first. gap: removed events after `since`."""

    events: list[EventOut]
    next_cursor: str | None
    total: int
    gap: GapOut | UnsetType = UNSET

    @classmethod
    def of(cls, page: EventPage, *, now: datetime) -> EventsListed:
        return cls(
            events=[EventOut.of(event) for event in page.events],
            next_cursor=page.next_cursor,
            total=page.total,
            gap=GapOut.of(page.gap) if page.gap is not None else UNSET,
            timestamp=now,
        )


class MailboxOut(msgspec.Struct, frozen=True, kw_only=True):
    """A mailbox: its owner, its question, its position in the log."""

    project_id: str
    agent_id: str
    event_types: tuple[str, ...]
    topics: tuple[str, ...]
    filter: str
    consumer: str
    position: EventId
    lag: int
    deliveries: int
    waited_on: bool
    gap: GapOut | None
    last_used_at: Moment

    @classmethod
    def of(cls, mailbox: MailboxStatus) -> MailboxOut:
        return cls(
            project_id=mailbox.project_id,
            agent_id=mailbox.agent_id,
            event_types=mailbox.event_types,
            topics=mailbox.topics,
            filter=mailbox.filter,
            consumer=mailbox.consumer,
            position=mailbox.position,
            lag=mailbox.lag,
            deliveries=mailbox.deliveries,
            waited_on=mailbox.is_waited_on,
            gap=GapOut.of(mailbox.gap) if mailbox.gap else None,
            last_used_at=mailbox.last_used_at,
        )


class MailboxesListed(Timed, frozen=True, kw_only=True):
    """Every mailbox of the project, or of all projects for operators."""

    mailboxes: list[MailboxOut]


class DeadLetterOut(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a mailbox gave up on after too many deliveries to agents that died with it."""

    event: EventOut
    agent_id: str
    event_types: tuple[str, ...]
    topics: tuple[str, ...]
    filter: str
    consumer: str
    given_up_at: Moment
    replayed_at: Moment | None

    @classmethod
    def of(cls, letter: DeadLetter) -> DeadLetterOut:
        return cls(
            event=EventOut.of(letter.event),
            agent_id=letter.mailbox.agent_id,
            event_types=tuple(sorted(letter.mailbox.event_types)),
            topics=tuple(sorted(letter.mailbox.topics)),
            filter=letter.mailbox.filter,
            consumer=letter.mailbox.consumer,
            given_up_at=letter.given_up_at,
            replayed_at=letter.replayed_at,
        )


class DeadLettersListed(Timed, frozen=True, kw_only=True):
    """Newest first."""

    dead_letters: list[DeadLetterOut]
    total: int


class Replayed(Timed, frozen=True, kw_only=True):
    """The answer to a replay of a dead letter.

    mailboxes: the number of mailboxes that get the event again.
    """

    event_id: str
    mailboxes: int
