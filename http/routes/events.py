"""Routes of events: publish, wait, list, and the mailboxes for operators."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ...actors.agents.announcer import PUBLISHER
from ...actors.messages import (
    AnswerSettled,
    AwaitEvents,
    ListDeadLetters,
    ListEvents,
    ListMailboxes,
    PublishEvent,
    ReplayDeadLetter,
)
from ...actors.replies import EventBatch, PublishedEvent
from ...actors.runtime.asking import Later, Recipient, ask
from ...state.clock import utc_now
from ...state.errors import (
    BusUnavailable,
    EventsGone,
    IdempotencyConflict,
    InvalidEvent,
    InvalidFilter,
    InvalidRequest,
    NotFound,
    StorageUnavailable,
    Unavailable,
    WrongIdentity,
)
from ...state.events.issue import misnames_issue
from ...state.events.topics import standard_topic
from ...state.identity import Permission
from ...state.models import EventId, event_seq, identifier
from ..access.auth import require_own_event, require_topic
from ..routing import ASK_S, KIB, Answer, Call, Pending, Route, Routes, Streaming
from ..wire import codec as wire
from ..wire.codec import Nothing
from ..wire.events import (
    TTL_MAX_S,
    TTL_MIN_S,
    DeadLetterOut,
    DeadLettersListed,
    EventPublished,
    EventsAwaited,
    EventsListed,
    ListQuery,
    MailboxesListed,
    MailboxOut,
    NewEvent,
    Replayed,
    StreamQuery,
    WaitManyQuery,
    WaitQuery,
)
from .event_stream import BATCH, EventStream

routes = Routes()

MAX_EVENT_BYTES = 256 * KIB
MAX_NAMES = 256  # types, or topics, of one wait
AFTER_TIME_OUT_S = 5.0  # the bus ends a wait itself; only when it does not, the request is given up
_PROXY_HEADERS = ("Via", "Forwarded", "X-Forwarded-For")
_ASKED = (BusUnavailable, Unavailable)
_AWAITED = (*_ASKED, EventsGone, InvalidFilter, StorageUnavailable)


@routes.add(
    Route(
        "POST",
        "/api/events/<event_type>",
        needs=Permission.PUBLISH_EVENTS,
        body=NewEvent,
        max_body_bytes=MAX_EVENT_BYTES,
        status=202,
        answers=EventPublished,
        is_quick=True,
        errors=(*_ASKED, IdempotencyConflict, InvalidEvent, StorageUnavailable, WrongIdentity),
    )
)
def publish_event(call: Call[NewEvent, Nothing], event_type: str) -> Pending[Any]:
    """Publish an event. After the answer, it survives the death of the sidecar."""
    request = _to_publish(call, event_type)
    return Pending(call.actors.bus.request(request), _published, deadline_s=ASK_S)


def _published(published: PublishedEvent) -> Answer:
    return Answer(202, EventPublished.of(published))


def _to_publish(call: Call[NewEvent, Nothing], event_type: str) -> PublishEvent:
    body, caller = call.body, call.caller
    require_own_event(event_type)
    if body.event_type is not None and body.event_type != event_type:
        raise InvalidEvent("event_type of body and path differ", field="event_type", expected=event_type)
    if body.publisher not in (None, caller.agent_id, caller.agent_type):
        raise WrongIdentity(
            "publisher is neither the token's agent id nor its agent type",
            field="publisher",
            expected=[caller.agent_id, caller.agent_type],
        )
    publisher = body.publisher or caller.agent_id
    if publisher == PUBLISHER:
        raise WrongIdentity(
            f"publisher {PUBLISHER} is reserved for the sidecar",
            field="publisher",
            expected="the id or type of an agent",
        )
    if body.ttl_seconds is not None and not TTL_MIN_S <= body.ttl_seconds <= TTL_MAX_S:
        raise InvalidEvent(
            "ttl_seconds is out of range", field="ttl_seconds", expected=f"{TTL_MIN_S} to {TTL_MAX_S} seconds"
        )
    data, decoded = wire.read_object(body.data, "data")
    if misnames_issue(decoded):
        raise InvalidEvent(
            "issue_id is a number that cannot be an issue's id",
            field="data.issue_id",
            expected="the issue's id as text, or a number such as 42",
        )
    topic = identifier(body.topic, "topic") if body.topic is not None else standard_topic(event_type)
    require_topic(caller, call.server.profiles, topic)
    return PublishEvent(
        project_id=call.project_id,
        event_type=event_type,
        publisher=publisher,
        publisher_type=caller.agent_type,
        sender=caller.agent_id,
        data=data,
        topic=topic,
        correlation_id=body.correlation_id,
        ttl_s=body.ttl_seconds,
        priority=body.priority or "normal",
        idempotency_key=call.idempotency_key(),
        traceparent=call.traceparent,
    )


@routes.add(
    Route(
        "GET",
        "/api/events/wait/<event_type>",
        query=WaitQuery,
        answers=EventsAwaited,
        is_wait=True,
        is_quick=True,
        errors=_AWAITED,
    )
)
def wait_for_event(call: Call[Nothing, WaitQuery], event_type: str) -> Pending[Any]:
    """Wait for events of one type, from the position of this mailbox."""
    return _wait(call, call.query, event_types=_only(event_type), topics=frozenset())


@lru_cache(maxsize=1024)  # thousands wait for the same type
def _only(event_type: str) -> frozenset[str]:
    return frozenset({event_type})


@routes.add(
    Route(
        "GET",
        "/api/events/wait",
        query=WaitManyQuery,
        answers=EventsAwaited,
        is_wait=True,
        is_quick=True,
        errors=_AWAITED,
    )
)
def wait_for_events(call: Call[Nothing, WaitManyQuery]) -> Pending[Any]:
    """Wait for events of several types or topics; with neither, for any event."""
    return _wait(
        call,
        call.query,
        event_types=_names(call.query.types, "types"),
        topics=_names(call.query.topics, "topics"),
    )


def _names(text: str, field: str) -> frozenset[str]:
    """A comma list of identifiers. Raises InvalidRequest, also for more than MAX_NAMES: each costs every publish."""
    names = frozenset(wire.identifiers(text, field))
    if len(names) > MAX_NAMES:
        raise InvalidRequest(f"{field} has {len(names)} names", field=field, expected=f"at most {MAX_NAMES}")
    return names


def _wait(
    call: Call[Any, Any], query: WaitQuery, *, event_types: frozenset[str], topics: frozenset[str]
) -> Pending[Any]:
    timeout_s = min(query.timeout / 1000, call.server.max_wait_s)
    later = call.actors.bus.request(
        AwaitEvents(
            project_id=call.project_id,
            agent_id=call.caller.agent_id,
            event_types=event_types,
            topics=topics,
            filter=query.filter,
            consumer=identifier(query.consumer, "consumer") if query.consumer else "",
            timeout_s=timeout_s,
            limit=query.limit,
            ack=_event(query.ack, "ack") if query.ack else None,
            since=query.since,
            strict=query.strict,
            is_proxied=any(call.header(name) is not None for name in _PROXY_HEADERS),
            agent_since=call.caller.issued_at,
        )
    )

    waiting = _Receipt(call.actors.bus, later)
    return Pending(later, _handed_out, deadline_s=timeout_s + AFTER_TIME_OUT_S, receipt=waiting.settle, is_wait=True)


def _event(text: str | None, field: str) -> EventId | None:
    """Raises InvalidRequest unless it is an event's id."""
    if text is not None and event_seq(text) is None:
        raise InvalidRequest(f"{field} is not an event id", field=field, expected="an event_id")
    return EventId(text) if text is not None else None


def _handed_out(batch: EventBatch) -> Answer:
    return Answer(200, EventsAwaited.of(batch, now=utc_now()))


class _Receipt:
    """What a wait needs until its answer was taken or lost. Ten thousand may wait, so it keeps no headers."""

    __slots__ = ("_bus", "_later")

    def __init__(self, bus: Recipient, later: Later[EventBatch]) -> None:
        self._bus = bus
        self._later = later

    def settle(self, taken: bool) -> None:
        answer = self._later.result().answer
        if answer is not None:
            self._bus.tell(AnswerSettled(answer=answer, taken=taken))


@routes.add(
    Route(
        "GET",
        "/api/events/stream",
        query=StreamQuery,
        answers=None,
        content_type="text/event-stream",
        is_wait=True,
        errors=(*_ASKED, EventsGone, InvalidFilter),
    )
)
def stream_events(call: Call[Nothing, StreamQuery]) -> Streaming:
    """Stream the log as Server-Sent Events, from `Last-Event-ID` or `since`, or else from now."""
    query = call.query
    read = AwaitEvents(
        project_id=call.project_id,
        agent_id=call.caller.agent_id,
        event_types=_names(query.types, "types"),
        topics=_names(query.topics, "topics"),
        filter=query.filter,
        timeout_s=0.0,
        limit=BATCH,
        since=call.header("Last-Event-ID") or query.since,
        strict=query.strict,
        agent_since=call.caller.issued_at,
    )
    # A fault in the filter or in `since` is an answer of its own, not the end of a stream.
    first = ask(call.actors.bus, read, timeout_s=ASK_S)
    feed = EventStream(call.actors.bus, read, first, draining=call.server.draining)
    return Streaming(feed, content_type="text/event-stream", heartbeat=b": nothing new\n\n")


@routes.add(
    Route("GET", "/api/events", query=ListQuery, answers=EventsListed, errors=(*_ASKED, EventsGone, InvalidFilter))
)
def list_events(call: Call[Nothing, ListQuery]) -> Answer:
    """List events, newest first, without touching any mailbox."""
    query = call.query
    page = ask(
        call.actors.bus,
        ListEvents(
            project_id=call.scope,
            topic=identifier(query.topic, "topic") if query.topic is not None else None,
            event_type=identifier(query.type, "type") if query.type is not None else None,
            since=query.since,
            before=_event(query.cursor, "cursor"),
            filter=query.filter,
            limit=query.limit,
            strict=query.strict,
        ),
        timeout_s=ASK_S,
    )
    return Answer(200, EventsListed.of(page, now=call.now))


@routes.add(Route("GET", "/api/mailboxes", needs=Permission.ADMIN, answers=MailboxesListed, errors=_ASKED))
def list_mailboxes(call: Call[Nothing, Nothing]) -> Answer:
    """List all mailboxes: position in the log, lag, deliveries, gap."""
    mailboxes = ask(call.actors.bus, ListMailboxes(project_id=call.scope), timeout_s=ASK_S)
    return Answer(200, MailboxesListed(mailboxes=[MailboxOut.of(each) for each in mailboxes], timestamp=call.now))


@routes.add(Route("GET", "/api/events/dead-letters", needs=Permission.ADMIN, answers=DeadLettersListed, errors=_ASKED))
def list_dead_letters(call: Call[Nothing, Nothing]) -> Answer:
    """List the events that a mailbox gave up on, newest first."""
    letters = ask(call.actors.bus, ListDeadLetters(project_id=call.scope), timeout_s=ASK_S)
    listed = [DeadLetterOut.of(letter) for letter in letters]
    return Answer(200, DeadLettersListed(dead_letters=listed, total=len(listed), timestamp=call.now))


@routes.add(
    Route(
        "POST",
        "/api/events/dead-letters/<event_id>/replay",
        needs=Permission.ADMIN,
        answers=Replayed,
        errors=(*_ASKED, NotFound, StorageUnavailable),
    )
)
def replay_dead_letter(call: Call[Nothing, Nothing], event_id: str) -> Answer:
    """Deliver an event again to every mailbox that gave up on it."""
    request = ReplayDeadLetter(event_id=EventId(event_id), project_id=call.scope)
    mailboxes = ask(call.actors.bus, request, timeout_s=ASK_S)
    return Answer(200, Replayed(event_id=event_id, mailboxes=mailboxes, timestamp=call.now))
