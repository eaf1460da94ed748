"""Events over HTTP: published, waited for, listed; waits hold up nobody and are not held up."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest


def publish(client: Any, event_type: str = "done", **body: Any) -> dict[str, Any]:
    answer = client.post(f"/api/events/{event_type}", json={"data": {}, **body})
    assert answer.status_code == 202, answer.text
    published: dict[str, Any] = answer.json()
    return published


def wait(client: Any, event_type: str = "done", **query: Any) -> dict[str, Any]:
    answer = client.get(f"/api/events/wait/{event_type}", params={"timeout": 0, **query})
    assert answer.status_code == 200, answer.text
    got: dict[str, Any] = answer.json()
    return got


def ids(answer: dict[str, Any]) -> list[str]:
    return [event["event_id"] for event in answer["events"]]


def test_what_is_published_is_given_out_with_every_field(sidecar: Any) -> None:
    data = {"issue_id": "issue-1", "files": 5, "nested": {"a": [1, None, "\u00e9"]}}
    agent = sidecar.agent("python-specialist", "ada")
    published = publish(
        agent, "implementation_complete", data=data, correlation_id="review-1", ttl_seconds=60, priority="high"
    )
    assert re.fullmatch(r"evt-[0-9A-Za-z-]+", published["event_id"])
    assert (published["published"], published["topic"], published["ttl_seconds"]) == (True, "implementation", 60)
    got = wait(agent, "implementation_complete")
    assert (got["timeout"], got["more_available"]) == (False, False)
    event = got["events"][0]
    assert {name: event[name] for name in ("event_id", "event_type", "publisher", "publisher_type", "topic")} == {
        "event_id": published["event_id"],
        "event_type": "implementation_complete",
        "publisher": "ada",
        "publisher_type": "python-specialist",
        "topic": "implementation",
    }
    assert (event["data"], event["correlation_id"], event["priority"]) == (data, "review-1", "high")
    assert event["timestamp"].endswith("Z")
    assert datetime.fromisoformat(event["timestamp"]) <= datetime.now(UTC)


def test_a_type_without_a_standard_topic_goes_to_coordination(sidecar: Any) -> None:
    assert publish(sidecar.operator, "thought")["topic"] == "coordination"
    assert publish(sidecar.operator, "thought", topic="of-our-own")["topic"] == "of-our-own"


def test_a_loop_without_a_cursor_gets_each_event_once_in_order(sidecar: Any) -> None:
    agent = sidecar.agent()
    sent = [publish(sidecar.operator, data={"n": n})["event_id"] for n in range(5)]
    first = wait(agent, limit=2)
    assert (ids(first), first["more_available"]) == (sent[:2], True)
    assert ids(wait(agent)) == sent[2:]
    empty = wait(agent)
    assert (empty["events"], empty["timeout"]) == ([], True)
    sent.append(publish(sidecar.operator, data={"n": 5})["event_id"])
    assert ids(wait(agent)) == sent[5:]


def test_another_filter_is_another_mailbox(sidecar: Any) -> None:
    agent = sidecar.agent()
    one = publish(sidecar.operator, data={"status": "success", "issue_id": "1"})["event_id"]
    two = publish(sidecar.operator, data={"status": "failed", "issue_id": "1"})["event_id"]
    assert ids(wait(agent, filter="status:success")) == [one]
    assert ids(wait(agent, filter="status:failed")) == [two]
    assert ids(wait(agent, filter="issue_id:1,status:success|failed")) == [one, two]
    assert ids(wait(agent)) == [one, two]
    assert ids(wait(agent, consumer="again")) == [one, two]


@pytest.mark.parametrize(
    ("filter_", "matches"),
    [
        ("n:1", [1]),
        ("n:1|2", [1, 2]),
        ("n:1|name:x-3", [1, 3]),
        ("!n:1", [2, 3]),
        ("name:x-*", [1, 2, 3]),
        ("n:>1", [2, 3]),
        ("n:>=2,n:<3", [2]),
        ("n:<=1", [1]),
        ("deep.er:2", [2]),
        ('text:"a,b|c:*"', [3]),
        ("publisher:operator,n:2", [2]),
        ("topic:coordination,n:1", [1]),
    ],
)
def test_filters_take_every_operator(sidecar: Any, filter_: str, matches: list[int]) -> None:
    for n in (1, 2, 3):
        text = "a,b|c:*" if n == 3 else "plain"
        publish(sidecar.operator, data={"n": n, "name": f"x-{n}", "deep": {"er": n}, "text": text})
    assert [event["data"]["n"] for event in wait(sidecar.agent(), filter=filter_)["events"]] == matches
    listed = sidecar.operator.get("/api/events", params={"filter": filter_}).json()["events"]
    assert [event["data"]["n"] for event in listed] == matches[::-1]


def test_several_types_or_topics_are_one_question(sidecar: Any) -> None:
    a = publish(sidecar.operator, "a")["event_id"]
    b = publish(sidecar.operator, "b", topic="testing")["event_id"]
    c = publish(sidecar.operator, "c")["event_id"]
    agent = sidecar.agent()

    def ask(**query: str) -> list[str]:
        return ids(agent.get("/api/events/wait", params={"timeout": 0, **query}).json())

    assert ask(types="a,c") == [a, c]
    assert ask(topics="testing") == [b]
    assert ask(types="a,b", topics="testing") == [b]
    assert ask() == [a, b, c]


def test_since_reads_from_there_and_touches_no_mailbox(sidecar: Any) -> None:
    agent = sidecar.agent()
    one, two = (publish(sidecar.operator)["event_id"] for _ in range(2))
    assert ids(wait(agent, since="earliest")) == [one, two]
    assert ids(wait(agent, since=one)) == [two]
    assert ids(wait(agent, since="latest")) == []
    assert ids(wait(agent, since="2020-01-01T00:00:00Z")) == [one, two]
    assert ids(wait(agent)) == [one, two]


def test_older_than_the_agent_is_marked(sidecar: Any) -> None:
    publish(sidecar.operator)
    spawned = sidecar.spawn("go-specialist")
    agent = sidecar.client(spawned["jwt_token"])
    sidecar.wait_for("agent_started")
    publish(sidecar.operator)
    assert [event.get("replayed", False) for event in wait(agent)["events"]] == [True, False]


def test_a_wait_ends_when_the_event_comes_and_says_who_was_told(sidecar: Any) -> None:
    agent = sidecar.agent("python-specialist", "ada")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait, agent, timeout=20_000, filter="issue_id:1")
        until_waiting(sidecar, 1)
        publish(sidecar.operator, data={"issue_id": "2"})
        published = publish(sidecar.operator, data={"issue_id": "1"})
        assert ids(waiting.result(10)) == [published["event_id"]]
    assert published["subscribers_notified"] == ["ada"]
    assert published["subscriber_count"] == 1


def test_a_wait_of_its_time_ends_empty(sidecar: Any) -> None:
    started = time.monotonic()
    got = wait(sidecar.agent(), timeout=200)
    assert 0.2 <= time.monotonic() - started < 5
    assert (got["events"], got["timeout"]) == ([], True)


def test_a_wait_is_cut_to_the_longest_allowed(start_sidecar: Any) -> None:
    sidecar = start_sidecar("[events]\nmax_wait_ms = 100\n")
    started = time.monotonic()
    assert wait(sidecar.agent(), timeout=60_000)["timeout"] is True
    assert time.monotonic() - started < 10


def test_of_two_waiters_on_one_mailbox_the_newest_gets_the_answer(sidecar: Any) -> None:
    first, second = (sidecar.agent("python-specialist", "ada") for _ in range(2))
    with ThreadPoolExecutor(2) as pool:
        older = pool.submit(wait, first, timeout=1500)
        until_waiting(sidecar, 1)
        newer = pool.submit(wait, second, timeout=20_000)
        until_waiting(sidecar, 2)
        published = publish(sidecar.operator)
        assert ids(newer.result(10)) == [published["event_id"]]
        got = older.result(10)
    assert (got["events"], got["timeout"], got["superseded"]) == ([], True, True)


def test_two_hundred_waiters_hold_up_nobody_and_all_get_their_event(start_sidecar: Any) -> None:
    sidecar = start_sidecar("[limits]\nenabled = false\n")
    clients = [sidecar.agent("python-specialist", f"agent-{n}") for n in range(200)]
    with ThreadPoolExecutor(200) as pool:
        waiting = [pool.submit(wait, client, timeout=30_000) for client in clients]
        until_waiting(sidecar, 200)
        # Far more waiters than worker threads: were a wait to hold one, this would not be answered before a time-out.
        for _ in range(20):
            assert sidecar.operator.get("/health").status_code == 200
        assert not any(each.done() for each in waiting)
        published = publish(sidecar.operator)
        assert published["subscriber_count"] == 200
        assert all(ids(each.result(20)) == [published["event_id"]] for each in waiting)


def test_an_ack_keeps_an_event_until_it_is_given(sidecar: Any) -> None:
    agent = sidecar.agent()
    one, two = (publish(sidecar.operator)["event_id"] for _ in range(2))
    assert ids(wait(agent, limit=1, consumer="acks", ack="evt-0000000000000000")) == [one]
    again = wait(agent, limit=1, consumer="acks", ack="evt-0000000000000000")
    assert [(event["event_id"], event.get("redelivered")) for event in again["events"]] == [(one, True)]
    assert ids(wait(agent, consumer="acks", ack=one)) == [two]


def test_through_a_proxy_an_answer_without_a_verdict_is_given_again(sidecar: Any) -> None:
    one = publish(sidecar.operator)["event_id"]
    first, second = (sidecar.client(sidecar.token(), Via="1.1 proxy") for _ in range(2))
    assert ids(wait(first)) == [one]
    assert [(e["event_id"], e.get("redelivered")) for e in wait(second)["events"]] == [(one, True)]


def test_listing_is_newest_first_and_goes_on_by_cursor(sidecar: Any) -> None:
    sent = [publish(sidecar.operator, "a" if n % 2 else "b")["event_id"] for n in range(7)]
    listed = sidecar.agent().get("/api/events", params={"limit": 3}).json()
    assert (ids(listed), listed["total"]) == (sent[:-4:-1], 7)
    seen = ids(listed)
    while listed["next_cursor"] is not None:
        listed = sidecar.agent().get("/api/events", params={"limit": 3, "cursor": listed["next_cursor"]}).json()
        seen += ids(listed)
    assert seen == sent[::-1]
    only_a = sidecar.agent().get("/api/events", params={"type": "a", "topic": "coordination"}).json()
    assert ids(only_a) == sent[1::2][::-1]


def test_mailboxes_show_their_place_and_lag(sidecar: Any) -> None:
    agent = sidecar.agent("python-specialist", "ada")
    one = publish(sidecar.operator)["event_id"]
    wait(agent)
    wait(agent)
    publish(sidecar.operator)
    (mailbox,) = sidecar.operator.get("/api/mailboxes").json()["mailboxes"]
    assert (mailbox["agent_id"], mailbox["event_types"], mailbox["position"]) == ("ada", ["done"], one)
    assert (mailbox["lag"], mailbox["gap"], mailbox["waited_on"]) == (1, None, False)


def test_a_gap_is_never_silent(start_sidecar: Any) -> None:
    sidecar = start_sidecar("[events]\nmax_events = 3\n")
    agent = sidecar.agent()
    first = publish(sidecar.operator)["event_id"]
    assert ids(wait(agent)) == [first]
    sent = [publish(sidecar.operator)["event_id"] for _ in range(6)]
    got = wait(agent)
    assert ids(got) == sent[-3:]
    assert set(got["gap"]) == {"from", "to", "dropped_at_most", "reason"}
    assert (got["gap"]["reason"], got["gap"]["dropped_at_most"]) == ("count", 3)
    gone = agent.get("/api/events/wait/done", params={"timeout": 0, "since": first, "strict": "1"})
    assert (gone.status_code, gone.json()["code"]) == (410, "EVT_004")
    assert gone.json()["details"]["oldest"] == sent[-3]


def test_a_repeated_publish_with_one_idempotency_key_is_one_event(sidecar: Any) -> None:
    post = sidecar.operator.post
    first = post("/api/events/done", json={"data": {"n": 1}}, headers={"Idempotency-Key": "once"}).json()
    again = post("/api/events/done", json={"data": {"n": 1}}, headers={"Idempotency-Key": "once"}).json()
    assert first["event_id"] == again["event_id"]
    other = post("/api/events/done", json={"data": {"n": 2}}, headers={"Idempotency-Key": "once"})
    assert (other.status_code, other.json()["code"]) == (409, "REQ_409")


def test_an_agents_mailboxes_are_bounded(start_sidecar: Any) -> None:
    sidecar = start_sidecar("[limits]\nenabled = false\n")
    agent = sidecar.agent()
    for n in range(256):
        assert agent.get("/api/events/wait/done", params={"timeout": 0, "consumer": f"c{n}"}).status_code == 200
    refused = agent.get("/api/events/wait/done", params={"timeout": 0, "consumer": "one-more"})
    assert (refused.status_code, refused.json()["code"]) == (429, "RATE_001")
    assert int(refused.headers["Retry-After"]) >= 1


def until_waiting(sidecar: Any, count: int, *, within_s: float = 15.0) -> None:
    """Return once that many requests wait for events."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while sidecar.operator.get("/status").json()["events"]["active_subscriptions"] != count:
        assert time.monotonic() < deadline, f"no {count} waiters within {within_s:g} s"
        pause.wait(0.02)
