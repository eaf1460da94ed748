"""The fields of an event: what a filter can name, what the page on events lists, and what an idempotency key covers."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from sidecar.actors.events.publishing import digest_of, record_of
from sidecar.actors.messages import PublishEvent
from sidecar.http.wire.events import EventOut
from sidecar.state.clock import utc_now
from sidecar.state.events.filter import compile_filter
from sidecar.state.models import Event, EventId

PAGE = (Path(__file__).parent.parent / "docs" / "reference" / "events.md").read_text(encoding="utf-8")
EVENT = Event(
    event_id=EventId("evt-0000000000000001"),
    project_id="p",
    event_type="done",
    publisher="someone",
    publisher_type="worker",
    topic="testing",
    data=msgspec.Raw(b"{}"),
    correlation_id="issue-7",
    priority="high",
    ttl_s=60,
    published_at=utc_now(),
    traceparent="00-1-2-01",
)


def named_between(start: str, end: str) -> set[str]:
    text = PAGE.partition(start)[2].partition(end)[0]
    assert text, start
    return set(re.findall(r"`(\w+)`", text))


def test_the_page_names_the_fields_of_an_event() -> None:
    assert named_between("Each event has ", "\n\n") == {field.encode_name for field in msgspec.structs.fields(EventOut)}


def test_the_page_names_the_fields_that_a_filter_can_name() -> None:
    documented = named_between("no such field, the names ", " mean the fields")
    can_name = set()
    for field in Event.__struct_fields__:
        value = getattr(EVENT, field)
        text = bytes(value).decode() if isinstance(value, msgspec.Raw) else str(value)
        if compile_filter(f'{field}:"{text}"').matches(EVENT):
            can_name.add(field)
    assert can_name == documented


def test_each_field_of_a_request_reaches_the_event() -> None:
    request = PublishEvent(
        **{field: getattr(EVENT, field) for field in PublishEvent.__struct_fields__ if hasattr(EVENT, field)}
    )
    event = record_of(request, None, retention_s=3600).event()
    shared = set(PublishEvent.__struct_fields__) & set(Event.__struct_fields__)
    assert {field: getattr(event, field) for field in shared} == {field: getattr(EVENT, field) for field in shared}
    assert set(Event.__struct_fields__) - shared == {"event_id", "published_at"}
    assert set(PublishEvent.__struct_fields__) - shared == {"sender", "idempotency_key"}


def test_the_digest_of_a_request_stays_the_same() -> None:
    # Else each repeat of a request that was published before an update would be refused as another event.
    request = PublishEvent(
        project_id="p",
        event_type="done",
        publisher="someone",
        publisher_type="worker",
        data=msgspec.Raw(b'{"n":1}'),
        topic="testing",
        correlation_id="issue-7",
        ttl_s=60,
        priority="high",
        idempotency_key="key-1",
    )
    assert digest_of(request) == "2abdb5685bf3da45b5e415b5d793c04fc78eebdf4e321fedacbab2dc6e96f796"
