"""A filter and an event, both by clients, cannot keep the event bus busy: what one evaluation looks at is bounded."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.state.errors import InvalidFilter
from sidecar.state.events.filter import MAX_ALTERNATIVES, MAX_FIELD_CHARS, MAX_ITEMS, compile_filter
from sidecar.state.models import Event, event_id

MAX_EVENT_BYTES = 256 << 10
CHEAP_S = 0.05  # of processor time; without bounds these take seconds to minutes


def event(data: Any) -> Event:
    return Event(
        event_id=event_id(7),
        project_id="p",
        event_type="big",
        publisher="a",
        publisher_type="support-bot",
        topic="coordination",
        data=msgspec.Raw(msgspec.json.encode(data)),
        correlation_id=None,
        priority="normal",
        ttl_s=60,
        published_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


LIST = [1] * (MAX_EVENT_BYTES // 2)
TEXT = "ab" * (MAX_EVENT_BYTES // 2)
LONG_INTS = [int("9" * 4000)] * (MAX_EVENT_BYTES // 4001)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a:" + "|".join(f"x{n}" for n in range(MAX_ALTERNATIVES)), {"a": LIST}),
        ("a:" + "|".join(f">{n + 2}" for n in range(MAX_ALTERNATIVES)), {"a": LIST}),
        ("a:" + "|".join(f"*b*c{n}" for n in range(MAX_ALTERNATIVES)), {"a": TEXT}),
        ("a:" + "|".join(f"*{n}x*" for n in range(MAX_ALTERNATIVES)), {"a": LIST}),
        ("a:" + "|".join(f"*{n}x*" for n in range(MAX_ALTERNATIVES)), {"a": LONG_INTS}),
        ("|".join(f"a{n}:x" for n in range(MAX_ALTERNATIVES)), {f"a{n}": [1] * 500 for n in range(MAX_ALTERNATIVES)}),
        (",".join(f"!a:x{n}" for n in range(MAX_ALTERNATIVES)), {"a": LIST}),
        (",".join(f"!a.b.b.b:{n}" for n in range(MAX_ALTERNATIVES)), {"a": {"b": {"b": {"b": LIST}}}}),
    ],
)
def test_the_dearest_filter_over_the_largest_event_is_cheap(text: str, data: Any) -> None:
    published = event(data)
    decoded = msgspec.json.decode(published.data)
    compiled = compile_filter(text)
    times = []
    for _ in range(3):
        started = time.thread_time()
        compiled.matches_data(published, decoded)
        times.append(time.thread_time() - started)
    assert min(times) < CHEAP_S


@pytest.mark.parametrize("joined", ["|", ",a:"])
def test_more_terms_and_alternatives_than_the_bound_are_refused_and_the_error_names_the_bound(joined: str) -> None:
    compile_filter("a:" + joined.join(["x"] * MAX_ALTERNATIVES))
    with pytest.raises(InvalidFilter) as refused:
        compile_filter("a:" + joined.join(["x"] * (MAX_ALTERNATIVES + 1)))
    assert str(MAX_ALTERNATIVES) in str(refused.value.details["expected"])


@settings(deadline=None)
@given(
    bounds=st.lists(st.tuples(st.sampled_from([">", ">=", "<", "<="]), st.integers(-3, 3)), min_size=1, max_size=6),
    number=st.integers(-4, 4),
)
def test_merged_comparisons_let_through_what_each_of_them_would(bounds: list[tuple[str, int]], number: int) -> None:
    alone = [compile_filter(f"n:{operator}{bound}").matches(event({"n": number})) for operator, bound in bounds]
    together = compile_filter("n:" + "|".join(f"{operator}{bound}" for operator, bound in bounds))
    assert together.matches(event({"n": number})) is any(alone)


def test_equal_alternatives_are_one() -> None:
    assert compile_filter("a:" + "|".join(["x"] * 200)).canonical == "a:x"


def test_a_field_name_that_would_make_every_mailbox_large_is_refused() -> None:
    compile_filter("a" * MAX_FIELD_CHARS + ":1")
    with pytest.raises(InvalidFilter) as refused:
        compile_filter("a" * (MAX_FIELD_CHARS + 1) + ":1")
    assert str(MAX_FIELD_CHARS) in str(refused.value.details["expected"])


def test_items_of_a_list_up_to_the_bound_are_looked_at() -> None:
    items = ["other"] * (MAX_ITEMS - 1)
    assert compile_filter("tags:urgent").matches(event({"tags": [*items, "urgent"]}))
    assert not compile_filter("tags:urgent").matches(event({"tags": [*items, "other", "urgent"]}))


def test_one_glob_searches_even_the_largest_event() -> None:
    assert compile_filter("a:*needle*").matches(event({"a": "x" * 250_000 + "needle"}))
