"""Turns publish requests into records of the log, once for each idempotency key."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from ...state.clock import utc_now
from ...state.errors import IdempotencyConflict
from ...state.events.store import EventRecord, EventStore
from ...state.events.topics import standard_topic
from ...state.models import Event
from ..messages import PublishEvent
from ..replies import PublishedEvent
from ..runtime.asking import Later


def record_of(request: PublishEvent, digest: str | None, *, retention_s: int) -> EventRecord:
    """As it is published now. digest: of a request with an idempotency key."""
    return EventRecord(
        project_id=request.project_id,
        event_type=request.event_type,
        publisher=request.publisher,
        publisher_type=request.publisher_type,
        sender=request.sender,
        topic=request.topic or standard_topic(request.event_type),
        data=request.data,
        correlation_id=request.correlation_id,
        priority=request.priority,
        ttl_s=min(request.ttl_s or retention_s, retention_s),
        published_at=utc_now(),
        key=request.idempotency_key,
        digest=digest,
        traceparent=request.traceparent,
    )


def digest_of(request: PublishEvent) -> str:
    """A digest of the publish request without its idempotency key."""
    said = (request.event_type, request.topic, request.correlation_id, request.ttl_s, request.priority, request.data)
    return hashlib.sha256(msgspec.json.encode(said)).hexdigest()


def published_before(store: EventStore, request: PublishEvent, digest: str) -> Event | None:
    """The earlier event with the request's idempotency key. Raises IdempotencyConflict if it is a different one."""
    known = store.published_before((request.project_id, request.sender, request.idempotency_key or ""))
    if known is None:
        return None
    first_digest, event = known
    if first_digest != digest:
        raise IdempotencyConflict(
            f"idempotency key {request.idempotency_key!r} was used for another event",
            field="Idempotency-Key",
            event_id=event.event_id,
        )
    return event


def answer_all(
    whole: Later[tuple[PublishedEvent, ...]], parts: Sequence[Later[PublishedEvent]], last: Later[PublishedEvent]
) -> None:
    """Answer events that were published together. They are committed together, so all have the outcome of the
    last."""
    error = last.exception()
    if error is None:
        whole.answer(tuple(part.result() for part in parts))
    else:
        whole.refuse(error)
