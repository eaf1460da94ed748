"""`/api/events/stream`: the log as Server-Sent Events, without gaps over reconnections, and without threads."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest


@contextmanager
def stream(sidecar: Any, last_event_id: str | None = None, **query: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The messages of a stream, as they come: each with `event` (its type), `id` and `data`."""
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    with sidecar.operator.stream("GET", "/api/events/stream", params=query, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "text/event-stream"
        yield messages(answer)


def messages(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    message: dict[str, Any] = {"event": "message"}
    for line in answer.iter_lines():
        if not line:
            if "data" in message:
                yield {**message, "data": json.loads(message["data"])}
            message = {"event": "message"}
        elif not line.startswith(":"):
            field, _, value = line.partition(": ")
            message[field] = value


def publish(sidecar: Any, event_type: str = "done", **data: Any) -> str:
    answer = sidecar.operator.post(f"/api/events/{event_type}", json={"data": data})
    event_id: str = answer.json()["event_id"]
    return event_id


def test_what_is_published_from_now_on_comes_with_its_id(sidecar: Any) -> None:
    publish(sidecar, n=0)
    with stream(sidecar) as got:
        sent = [publish(sidecar, n=n) for n in range(1, 4)]
        seen = [next(got) for _ in sent]
    assert [message["id"] for message in seen] == sent
    assert [message["data"]["data"]["n"] for message in seen] == [1, 2, 3]
    assert all(message["data"]["event_id"] == message["id"] for message in seen)


def test_a_reader_that_comes_back_misses_nothing(sidecar: Any) -> None:
    with stream(sidecar) as got:
        publish(sidecar, n=1)
        last = next(got)["id"]
    sent = [publish(sidecar, n=n) for n in range(2, 6)]
    with stream(sidecar, last_event_id=last) as got:
        assert [next(got)["id"] for _ in sent] == sent


def test_a_whole_log_can_be_read_from_its_beginning(sidecar: Any) -> None:
    sent = [publish(sidecar, n=n, text="x" * 500) for n in range(450)]
    with stream(sidecar, since="earliest") as got:
        assert [next(got)["id"] for _ in sent] == sent


def test_types_topics_and_filter_choose(sidecar: Any) -> None:
    with stream(sidecar, types="a,b", filter="n:>1") as got:
        for event_type in ("a", "b", "c"):
            for n in (1, 2):
                publish(sidecar, event_type, n=n)
        seen = [next(got)["data"] for _ in range(2)]
    assert [(event["event_type"], event["data"]["n"]) for event in seen] == [("a", 2), ("b", 2)]


def test_json_over_several_lines_is_one_message(sidecar: Any) -> None:
    with stream(sidecar) as got:
        raw = '{"data": {"a":\r\n 1,\n\n"b": "x\\ny"}}'
        sidecar.operator.post("/api/events/done", content=raw, headers={"Content-Type": "application/json"})
        assert next(got)["data"]["data"] == {"a": 1, "b": "x\ny"}


def test_a_gap_is_told(start_sidecar: Any) -> None:
    sidecar = start_sidecar("[events]\nmax_events = 2\n")
    sent = [publish(sidecar, n=n) for n in range(5)]
    with stream(sidecar, last_event_id=sent[0]) as got:
        gap, first = next(got), next(got)
    assert (gap["event"], gap["data"]["reason"]) == ("gap", "count")
    assert first["id"] == sent[-2]


@pytest.mark.parametrize(
    ("query", "code"), [({"filter": ":"}, "EVT_003"), ({"types": "a b"}, "REQ_001"), ({"since": "x"}, "REQ_001")]
)
def test_a_fault_is_an_answer_and_no_stream(sidecar: Any, query: dict[str, str], code: str) -> None:
    answer = sidecar.operator.get("/api/events/stream", params=query)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_another_projects_events_do_not_come(sidecar: Any) -> None:
    with sidecar.agent(project_id="one").stream("GET", "/api/events/stream") as answer:
        publish(sidecar, n=1)
        sidecar.operator.post("/api/events/done", params={"project_id": "one"}, json={"data": {"n": 2}})
        assert next(messages(answer))["data"]["data"] == {"n": 2}


def test_a_hundred_streams_hold_no_thread_and_end_when_their_readers_go(sidecar: Any) -> None:
    threads = threading.active_count()
    answers = [sidecar.client(sidecar.operator_token()) for _ in range(100)]
    opened = [client.send(client.build_request("GET", "/api/events/stream"), stream=True) for client in answers]
    sent = publish(sidecar)
    assert [next(messages(answer))["id"] for answer in opened] == [sent] * 100
    assert threading.active_count() < threads + 50  # the sidecar's own, about ten, may still be starting
    for answer in opened:
        answer.close()
    publish(sidecar)
    assert until_no_reads(sidecar) == 0


def until_no_reads(sidecar: Any) -> int:
    """How many still read once the bus has seen them go, or after ten seconds."""
    deadline = time.monotonic() + 10.0
    while True:
        waiting: int = sidecar.operator.get("/status").json()["events"]["active_subscriptions"]
        if waiting == 0 or time.monotonic() > deadline:
            return waiting
