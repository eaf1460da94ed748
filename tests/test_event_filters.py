"""What a filter lets through, and how a faulty one is refused. Source: the protocol, "Filters"."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.state.errors import InvalidFilter
from sidecar.state.events.filter import compile_filter
from sidecar.state.models import Event, event_id


def event(topic: str = "testing", correlation_id: str | None = None, **data: object) -> Event:
    return Event(
        event_id=event_id(7),
        project_id="p",
        event_type="testing_complete",
        publisher="test-engineer-1",
        publisher_type="test-engineer",
        topic=topic,
        data=msgspec.Raw(msgspec.json.encode(data)),
        correlation_id=correlation_id,
        priority="normal",
        ttl_s=60,
        published_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("text", "data", "expected"),
    [
        ("", {}, True),
        ("status:success", {"status": "success"}, True),
        ("status:success", {"status": "failed"}, False),
        ("status:success", {}, False),
        ("issue_id:issue-1,status:success", {"issue_id": "issue-1", "status": "success"}, True),
        ("issue_id:issue-1,status:success", {"issue_id": "issue-1", "status": "failed"}, False),
        ("status:success|partial", {"status": "partial"}, True),
        ("status:success|partial", {"status": "failed"}, False),
        ("status:failed|severity:high", {"severity": "high"}, True),
        ("!status:success", {"status": "failed"}, True),
        ("!status:success", {"status": "success"}, False),
        ("!status:success", {}, True),
        ("!status:success|partial", {"status": "partial"}, False),
        ("issue_id:issue-*", {"issue_id": "issue-9"}, True),
        ("issue_id:issue-*", {"issue_id": "bug-9"}, False),
        ("f:*.p*y", {"f": "a.py"}, True),
        ("f:a*a", {"f": "a"}, False),
        ("coverage:>90", {"coverage": 90}, False),
        ("coverage:>=90", {"coverage": 90}, True),
        ("coverage:<1", {"coverage": 0.5}, True),
        ("coverage:<=-1", {"coverage": -1}, True),
        ("coverage:>90", {"coverage": "95"}, False),
        ("coverage:>0", {"coverage": True}, False),
        ("n:5", {"n": 5}, True),
        ("n:5", {"n": 5.0}, True),
        ("n:5", {"n": "5"}, True),
        ("n:9007199254740993", {"n": 9007199254740993}, True),
        ("n:9007199254740993", {"n": 9007199254740992}, False),
        ("n:>=9007199254740993", {"n": 9007199254740992}, False),
        ("n:1795793512123456789", {"n": 1795793512123456789}, True),
        ("n:<1e3", {"n": 999}, True),
        ("n:" + "9" * 400, {"n": 9}, False),
        ("n:nan", {"n": "nan"}, True),
        ("ok:true", {"ok": True}, True),
        ("ok:null", {"ok": None}, True),
        ("a.b.c:1", {"a": {"b": {"c": 1}}}, True),
        ("a.b:1", {"a.b": 1}, True),
        ("tags:urgent", {"tags": ["later", "urgent"]}, True),
        ("tags:urgent", {"tags": {"urgent": 1}}, False),
        ('m:"a,b|c:d*\\"e"', {"m": 'a,b|c:d*"e'}, True),
        ('m:"*"', {"m": "anything"}, False),
        ('m:""', {"m": ""}, True),
        ("a:1, b:2", {"a": 1, "b": 2}, True),
        ("title:two words", {"title": "two words"}, True),
    ],
)
def test_a_filter_lets_through_what_the_protocol_says(text: str, data: dict[str, object], expected: bool) -> None:
    assert compile_filter(text).matches(event(**data)) is expected


def test_a_field_that_data_lacks_is_looked_up_on_the_event() -> None:
    published = event(topic="security", correlation_id="review-1")
    assert compile_filter("topic:security,correlation_id:review-1,publisher:test-*").matches(published)
    assert not compile_filter("priority:high").matches(published)


def test_data_hides_the_event_field_of_the_same_name() -> None:
    assert compile_filter("publisher:someone").matches(event(publisher="someone"))
    assert not compile_filter("publisher:test-*").matches(event(publisher="someone"))


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("status", 0),
        (":x", 0),
        ("a:", 2),
        ("a:1,", 4),
        ("a:1,,b:2", 4),
        ("a:1|", 4),
        ("a:b:c", 3),
        ('a:"open', 2),
        ('a:"x"y', 5),
        ('a:x"y"', 3),
        ("a:>high", 3),
        ("a:1,!", 5),
        ("ü:1", 0),
    ],
)
def test_a_faulty_filter_is_refused_with_the_position_of_the_fault(text: str, position: int) -> None:
    with pytest.raises(InvalidFilter) as refused:
        compile_filter(text)
    assert refused.value.details["position"] == position
    assert refused.value.details["expected"]


def test_a_filter_that_is_too_long_or_has_too_many_terms_is_refused() -> None:
    with pytest.raises(InvalidFilter):
        compile_filter("a:" + "x" * 5000)
    with pytest.raises(InvalidFilter):
        compile_filter(",".join(f"a{i}:1" for i in range(257)))


def test_filters_that_differ_only_in_order_spacing_or_quotes_are_the_same_question() -> None:
    assert compile_filter('b:2, a:"1"').canonical == compile_filter("a:1,b:2,a:1").canonical
    assert compile_filter("a:2|1").canonical == compile_filter("a:1|a:2").canonical
    assert compile_filter("a:1|2").canonical != compile_filter("a:1,a:2").canonical
    assert compile_filter('a:"*"').canonical != compile_filter("a:*").canonical


values = st.text(min_size=0, max_size=12)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True), values, min_size=1, max_size=4))
def test_any_text_can_be_asked_for_in_quotes(data: dict[str, str]) -> None:
    quoted = {k: v.replace("\\", "\\\\").replace('"', '\\"') for k, v in data.items()}
    compiled = compile_filter(",".join(f'{k}:"{v}"' for k, v in quoted.items()))
    assert compiled.matches(event(**data))
    assert not compiled.matches(event(**{k: v + "." for k, v in data.items()}))


@given(st.text(alphabet='ab:,|!"*<>=. 1\\', max_size=30))
def test_every_text_is_compiled_or_refused_and_its_canonical_form_means_the_same(text: str) -> None:
    try:
        compiled = compile_filter(text)
    except InvalidFilter as refused:
        position = refused.details["position"]
        assert isinstance(position, int)
        assert 0 <= position <= len(text)
        return
    again = compile_filter(compiled.canonical)
    assert again.canonical == compiled.canonical
    for sample in ({"a": "b"}, {"a": 1, "b": "a"}, {"a": ["b", 11]}, {}):
        assert again.matches(event(**sample)) is compiled.matches(event(**sample))
