"""Who may publish what as whom: lifecycle events are the sidecar's, and an agent's keys are its own."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.state.events.topics import OF_THE_SIDECAR
from tests.test_event_reference import published_by_the_code


@pytest.mark.parametrize("event_type", sorted(OF_THE_SIDECAR))
def test_nobody_publishes_what_the_sidecar_says_of_agents_and_results(sidecar: Any, event_type: str) -> None:
    for client in (sidecar.operator, sidecar.agent("support-bot"), sidecar.agent("chief-architect")):
        refused = client.post(f"/api/events/{event_type}", json={"data": {}, "topic": "system"})
        assert (refused.status_code, refused.json()["code"]) == (403, "AUTH_003")
        assert refused.json()["details"]["field"] == "event_type"


def test_every_type_that_the_code_publishes_is_the_sidecars_alone() -> None:
    assert {event_type for event_type, _ in published_by_the_code()} <= OF_THE_SIDECAR


def test_over_mcp_it_is_refused_too(sidecar: Any) -> None:
    params = {"name": "publish_event", "arguments": {"event_type": "agent_failed", "data": {}}}
    sidecar.agent().post(
        "/mcp",
        json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params},
        headers={"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"},
    )
    assert sidecar.operator.get("/api/events", params={"type": "agent_failed"}).json()["total"] == 0


@pytest.mark.parametrize("event_type", ["agent_completed", "agent_shutdown"])
def test_what_agents_say_of_themselves_is_taken(sidecar: Any, event_type: str) -> None:
    taken = sidecar.agent("support-bot").post(f"/api/events/{event_type}", json={"data": {}, "topic": "system"})
    assert taken.status_code == 202


def test_two_agents_that_publish_as_their_type_do_not_share_keys(sidecar: Any) -> None:
    def publish(agent: str, n: int) -> Any:
        body = {"publisher": "python-specialist", "data": {"n": n}}
        client = sidecar.agent("python-specialist", agent)
        return client.post("/api/events/done", json=body, headers={"Idempotency-Key": "k"})

    one, other = publish("one", 1), publish("other", 2)
    assert (one.status_code, other.status_code) == (202, 202)
    assert one.json()["event_id"] != other.json()["event_id"]
    assert publish("one", 1).json()["event_id"] == one.json()["event_id"]
    assert publish("one", 3).status_code == 409


def test_an_agent_cannot_take_a_key_of_the_sidecars_own_events(sidecar: Any) -> None:
    """Neither by its number nor as an agent that is called sidecar."""
    agent = sidecar.agent("sidecar", "sidecar")
    stored = agent.post("/api/events/done", json={"data": {}}, headers={"Idempotency-Key": "result_stored:res-1"})
    assert stored.status_code == 403
    assert stored.json()["code"] == "AUTH_005"
