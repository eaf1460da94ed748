"""/health answers while actors are busy, from what they said last, and says so when one of them is stuck."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import pytest

from sidecar.actors.messages import CountAgents, CountContexts, CountEvents, CountResults
from sidecar.actors.runtime.asking import Later
from sidecar.actors.runtime.owner import Envelope
from sidecar.http.observe.last_numbers import STUCK_S

QUESTIONS = {
    "spawner": CountAgents(project_id=None),
    "event_bus": CountEvents(project_id=None),
    "result_store": CountResults(project_id=None),
    "context_builder": CountContexts(project_id=None),
}
CHECKS = {"event_bus": "event_bus", "result_store": "storage"}


@contextmanager
def busy(sidecar: Any, name: str) -> Iterator[None]:
    """Keep an actor at one message: it calls back whoever asked, who does not return."""
    actors = sidecar.sidecar.server.actors
    handle = {
        "spawner": actors.spawner,
        "event_bus": actors.bus.handle,
        "result_store": actors.results,
        "context_builder": actors.contexts,
    }[name]
    begun, may_end = Event(), Event()

    def hold(_: object) -> None:
        begun.set()
        may_end.wait(30)

    later: Later[Any] = Later()
    later.add_done_callback(hold)
    handle.send((Envelope(QUESTIONS[name], later),))
    try:
        assert begun.wait(10)
        yield
    finally:
        may_end.set()


def health_until(sidecar: Any, status: int) -> dict[str, Any]:
    deadline = time.monotonic() + 15
    while (answer := sidecar.client().get("/health")).status_code != status:
        assert time.monotonic() < deadline, answer.text
    checks: dict[str, Any] = answer.json()["checks"]
    return checks


def test_health_comes_at_once_while_every_actor_is_busy_with_its_last_numbers(sidecar: Any) -> None:
    sidecar.spawn("go-specialist")
    sidecar.wait_for("agent_started")
    assert sidecar.client().get("/health").json()["checks"]["active_agents"] == 1
    with (
        busy(sidecar, "spawner"),
        busy(sidecar, "event_bus"),
        busy(sidecar, "result_store"),
        busy(sidecar, "context_builder"),
    ):
        client, began = sidecar.client(), time.monotonic()
        answer = client.get("/health")
        assert time.monotonic() - began < STUCK_S / 2
        assert (answer.status_code, answer.json()["checks"]["active_agents"]) == (200, 1)


def test_the_first_to_ask_need_not_wait_for_a_busy_actor_either(sidecar: Any) -> None:
    with busy(sidecar, "result_store"):
        client, began = sidecar.client(), time.monotonic()
        assert client.get("/health").status_code == 200
        assert time.monotonic() - began < STUCK_S / 2


@pytest.mark.parametrize("actor", QUESTIONS)
def test_an_actor_that_is_stuck_is_reported_and_one_that_goes_on_is_not(
    sidecar: Any, actor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("STUCK_S", "PATIENCE_S"):
        monkeypatch.setattr(f"sidecar.http.observe.last_numbers.{limit}", 0.3)
    with busy(sidecar, actor):
        checks = health_until(sidecar, 503)
        if actor in CHECKS:
            assert checks[CHECKS[actor]] == "does not answer"
    health_until(sidecar, 200)


def test_numbers_are_of_now_where_the_actor_is_not_busy(sidecar: Any) -> None:
    agent = sidecar.agent()
    agent.get("/api/events/wait/step", params={"timeout": 0})
    for published in range(1, 4):
        assert agent.post("/api/events/step", json={"data": {}}).status_code == 202
        assert sidecar.client().get("/health").json()["checks"]["event_queue_size"] == published
