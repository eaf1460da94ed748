"""The client's core without a server: what it sends, pauses and gives up, for every course that a call may take."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.client.api import Api
from sidecar.http.client.steps import AnswerLost, HttpAnswer, HttpRequest, NotConnected, Outcome, Pause
from sidecar.http.sdk import NoServer, RetryPolicy
from sidecar.state.errors import RateLimited, SidecarError, Unavailable

PATIENCE_S = 30.0
GOOD = HttpAnswer(200, {}, b'{"agents": []}')


def refusal(status: int, error: str, **headers: str) -> HttpAnswer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpAnswer(status, named, b'{"error": "%b", "message": "no"}' % error.encode())


FAILURES: list[Outcome] = [
    NotConnected("refused"),
    AnswerLost("broke", was_held=True),
    AnswerLost("time is up", was_held=False),
    refusal(503, "unavailable"),
    refusal(429, "rate_limited", retry_after="2"),
]


class World:
    """Carries out a call with outcomes that are given, on a clock that only goes on by what they take."""

    def __init__(self, outcomes: list[tuple[Outcome, float]]) -> None:
        self.now = 1000.0
        self.requests: list[HttpRequest] = []
        self.paused_s = 0.0
        self.first_failure_at: float | None = None
        self.held_s = 0.0  # after the first failure
        self._outcomes = iter(outcomes)
        self.api = Api("http://x", "t", retries=RetryPolicy(patience_s=PATIENCE_S), clock=lambda: self.now)

    def run(self, steps: Generator[Any, Any, Any]) -> Any:
        outcome: Outcome | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return end.value
            if isinstance(step, Pause):
                self.now += step.duration_s
                self.paused_s += step.duration_s
                outcome = None
                continue
            self.requests.append(step)
            outcome, took_s = next(self._outcomes, (GOOD, 0.0))
            self.now += took_s
            if outcome is not GOOD and self.first_failure_at is None:
                self.first_failure_at = self.now
            elif isinstance(outcome, AnswerLost) and outcome.was_held:
                self.held_s += took_s


courses = st.lists(st.tuples(st.sampled_from(FAILURES), st.floats(0, 40)), max_size=12)


@given(courses)
def test_a_read_ends_with_its_answer_or_when_it_has_failed_for_as_long_as_it_is_patient(
    course: list[tuple[Outcome, float]],
) -> None:
    world = World(course)
    try:
        assert world.run(world.api.agents()) == ()
    except (NoServer, Unavailable, RateLimited):
        assert world.first_failure_at is not None
        # The next pause would go beyond it: no pause is longer than five seconds and what the server asked for.
        failing_s = world.now - world.first_failure_at - world.held_s
        assert failing_s >= PATIENCE_S - 7.001
    else:
        assert len(world.requests) == len(course) + 1


@given(st.sampled_from(FAILURES), st.floats(0, 10_000))
def test_however_long_the_first_attempt_was_held_the_patience_is_whole(failure: Outcome, held_s: float) -> None:
    world = World([(failure, held_s)])
    assert world.run(world.api.agents()) == ()


@given(st.lists(st.sampled_from(FAILURES), min_size=1, max_size=3))
def test_every_repeat_has_the_key_of_the_first_and_one_without_a_key_is_repeated_only_when_nothing_was_done(
    failures: list[Outcome],
) -> None:
    world = World([(failure, 0.0) for failure in failures])
    assert world.run(world.api.call("POST", "/x", body={}, key="k")) == {"agents": []}
    assert {request.headers["Idempotency-Key"] for request in world.requests} == {"k"}
    assert len(world.requests) == len(failures) + 1
    world = World([(failure, 0.0) for failure in failures])
    may_have_acted = [not isinstance(failure, NotConnected) and failure != FAILURES[4] for failure in failures]
    if any(may_have_acted):
        with pytest.raises(SidecarError):
            world.run(world.api.call("POST", "/x", body={}))
        assert len(world.requests) == may_have_acted.index(True) + 1
    else:
        world.run(world.api.call("POST", "/x", body={}))


@given(st.floats(0, 1000), st.lists(st.floats(0.001, 200), max_size=20))
def test_a_long_wait_is_several_that_together_last_no_longer(timeout_s: float, took: list[float]) -> None:
    nothing = HttpAnswer(200, {}, b'{"timeout": true}')
    world = World([(nothing, each) for each in took] + [(nothing, 120.0)] * 20)
    assert world.run(world.api.wait("x", timeout_s=timeout_s)).timeout
    began, asked_s = 1000.0, 0.0
    for request, each in zip(world.requests, [*took, *[120.0] * 20], strict=False):
        poll_s = int(request.target.partition("timeout=")[2].partition("&")[0]) / 1000
        assert poll_s <= min(120.0, max(0.0, timeout_s - asked_s)) + 0.001
        asked_s += each
    assert world.now - began >= min(timeout_s, asked_s) - 0.001
