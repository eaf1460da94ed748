"""How often a caller may ask: the bucket's rule, and its headers on every answer of a limited caller."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.access.limits import MAX_BUCKETS, REFRESHES, Buckets, ClassLimit, take
from sidecar.state.token_bucket import TokenBucket

LIMIT = ClassLimit(per_minute=60, burst=10)


def test_a_bucket_holds_per_minute_plus_burst_and_refills_at_the_rate() -> None:
    bucket = TokenBucket(70.0, 0.0)
    for remaining in range(69, -1, -1):
        bucket, taken = take(bucket, LIMIT, now=0.0)
        assert (taken.allowed, taken.limit, taken.remaining) == (True, 70, remaining)
    bucket, taken = take(bucket, LIMIT, now=0.0)
    assert (taken.allowed, taken.remaining, taken.retry_after_s) == (False, 0, 1)
    bucket, taken = take(bucket, LIMIT, now=1.0)
    assert taken.allowed
    bucket, taken = take(bucket, LIMIT, now=1.5)
    assert not taken.allowed
    assert taken.reset_s == pytest.approx(69.5)


@given(
    per_minute=st.integers(1, 600),
    burst=st.integers(0, 50),
    pauses=st.lists(st.floats(0, 5, allow_nan=False), min_size=1, max_size=200),
)
def test_never_more_than_the_bucket_and_its_refill_get_through(
    per_minute: int, burst: int, pauses: list[float]
) -> None:
    limit = ClassLimit(per_minute=per_minute, burst=burst)
    bucket, now, allowed = TokenBucket(float(limit.capacity), 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        bucket, taken = take(bucket, limit, now=now)
        allowed += taken.allowed
        assert 0 <= taken.remaining <= limit.capacity
        if not taken.allowed:
            _, later = take(bucket, limit, now=now + taken.retry_after_s)
            assert later.allowed, "Retry-After must be long enough"
    assert allowed <= limit.capacity + now * per_minute / 60 + 1e-6


def test_buckets_are_bounded_and_one_in_use_is_the_last_to_go() -> None:
    buckets, busy = Buckets(), ("p", "busy")
    for _ in range(70):
        buckets.take(busy, LIMIT, now=0.0)
    for number in range(MAX_BUCKETS + 5):
        buckets.take(("p", f"agent-{number}"), LIMIT, now=0.0)
    assert len(buckets) <= MAX_BUCKETS
    assert not buckets.take(busy, LIMIT, now=0.0).allowed


def test_agents_of_the_same_id_in_two_projects_have_a_limit_each(start_sidecar: Any) -> None:
    sidecar = start_sidecar("[limits]\nclasses.coding = {per_minute = 6, burst = 0}\n")
    one, other = (sidecar.agent(project_id=project) for project in ("pa", "pb"))
    assert [one.get("/api/results").status_code for _ in range(7)] == [200] * 6 + [429]
    answer = other.get("/api/results")
    assert (answer.status_code, answer.headers["X-RateLimit-Remaining"]) == (200, "5")


def test_a_token_is_refreshed_a_few_times_a_minute_and_no_more(start_sidecar: Any) -> None:
    """Also where nobody is limited: each refresh is one more record on the disk."""
    sidecar = start_sidecar("[limits]\nenabled = false\n")
    agents = [
        sidecar.agent(),
        sidecar.client(sidecar.spawn("go-specialist")["jwt_token"]),
        sidecar.client(sidecar.operator_token()),
    ]
    for agent in agents:
        answers = [agent.post("/api/auth/refresh") for _ in range(REFRESHES.capacity + 2)]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert len(refused) in (1, 2)  # one more is allowed every ten seconds
        assert {answer.json()["code"] for answer in refused} == {"RATE_001"}
        assert 0 < int(refused[0].headers["Retry-After"]) <= 10
        assert agent.get("/api/results").status_code == 200
    assert sidecar.agent(agent_id="another").post("/api/auth/refresh").status_code == 200


def test_an_agent_over_its_limit_gets_429_until_the_time_said(start_sidecar: Any) -> None:
    sidecar = start_sidecar("[limits]\nclasses.coding = {per_minute = 60, burst = 0}\n")
    agent = sidecar.agent()
    before = time.time()
    answers = [agent.get("/api/results") for _ in range(70)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[:60] == [200] * 60
    refused = answers[statuses.index(429)]
    body = refused.json()
    assert (body["code"], body["error"]) == ("RATE_001", "rate_limited")
    assert refused.headers["Retry-After"] == str(body["details"]["retry_after_s"]) == "1"
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert before + 50 < int(refused.headers["X-RateLimit-Reset"]) <= time.time() + 61
    assert sidecar.agent(agent_id="another").get("/api/results").status_code == 200


def test_every_answer_of_a_limited_caller_carries_the_headers(sidecar: Any) -> None:
    agent = sidecar.agent("poet")
    answers = [
        agent.get("/api/results"),
        agent.get("/api/results/nothing"),
        agent.get("/api/mailboxes"),
        agent.post("/api/events/done", content=b"{"),
        agent.get("/api/events/wait/done", params={"timeout": 1}),
        agent.get("/api/context/issue-1/poet"),
        agent.get("/api/nothing"),
        agent.put("/api/results"),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 403, 415, 200, 200, 404, 405]
    for used, answer in enumerate(answers, start=1):
        assert answer.headers["X-RateLimit-Limit"] == "35"
        assert int(answer.headers["X-RateLimit-Remaining"]) in (35 - used, 36 - used)
        assert int(answer.headers["X-RateLimit-Reset"]) >= int(time.time())


def test_who_asks_for_what_there_is_not_is_limited_too(start_sidecar: Any) -> None:
    sidecar = start_sidecar("[limits]\nclasses.coding = {per_minute = 6, burst = 0}\n")
    agent = sidecar.agent()
    statuses = [agent.get("/api/nothing").status_code for _ in range(8)]
    assert statuses[:6] == [404] * 6
    assert 429 in statuses
    assert agent.get("/api/results").status_code == 429
    assert [sidecar.client("no token").get("/api/nothing").status_code for _ in range(8)] == [404] * 8


def test_the_unlimited_have_no_such_headers(sidecar: Any) -> None:
    for client in (sidecar.operator, sidecar.agent("chief-architect"), sidecar.client()):
        for _ in range(3):
            assert "X-RateLimit-Limit" not in client.get("/health" if client is None else "/status").headers


def test_limits_can_be_switched_off(start_sidecar: Any) -> None:
    sidecar = start_sidecar("[limits]\nenabled = false\n")
    agent = sidecar.agent("poet")
    assert [agent.get("/api/results").status_code for _ in range(50)] == [200] * 50
