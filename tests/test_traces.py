"""W3C trace context: taken in, kept with events and results, handed to agents."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.state.trace import new_traceparent, trace_id, traceparent

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
RESULT = {
    "agent_id": "agent-1",
    "agent_type": "python-specialist",
    "issue_id": "issue-1",
    "project_id": "default",
    "result": {"status": "success"},
}


class TestWhatHolds:
    def test_a_traceparent_is_taken_as_it_is(self) -> None:
        assert traceparent(f" {TRACE} ") == TRACE
        assert trace_id(TRACE) == "4bf92f3577b34da6a3ce929d0e0e4736"

    def test_of_a_later_version_what_is_known_is_taken(self) -> None:
        assert traceparent(f"cc{TRACE[2:]}-what-the-future-brings") == f"cc{TRACE[2:]}"

    @pytest.mark.parametrize(
        "value",
        [
            None,
            "",
            "ff" + TRACE[2:],
            TRACE.upper(),
            f"{TRACE}-more",
            f"cc{TRACE[2:]}.more",
            TRACE[:-1],
            f"00-{'0' * 32}-00f067aa0ba902b7-01",
            f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
            TRACE + "\n\n" + TRACE,
        ],
    )
    def test_anything_else_is_ignored(self, value: str | None) -> None:
        assert traceparent(value) is None

    @given(st.text())
    def test_no_text_breaks_it(self, text: str) -> None:
        taken = traceparent(text)
        assert taken is None or len(taken) == len(TRACE)

    def test_a_new_one_holds(self) -> None:
        made = new_traceparent()
        assert traceparent(made) == made
        assert made != new_traceparent()


class TestEventsAndResults:
    def test_keep_the_trace_of_the_request_that_made_them(self, sidecar: Any) -> None:
        agent = sidecar.client(sidecar.token(), traceparent=TRACE)
        agent.post("/api/events/step", json={"data": {}})
        stored = agent.post("/api/results", json=RESULT).json()
        assert agent.get("/api/events", params={"type": "step"}).json()["events"][0]["traceparent"] == TRACE
        assert agent.get(f"/api/results/{stored['id']}").json()["traceparent"] == TRACE
        assert sidecar.wait_for("result_stored")["traceparent"] == TRACE

    def test_have_none_where_none_was_sent_or_it_does_not_hold(self, sidecar: Any) -> None:
        for headers in ({}, {"traceparent": "00-broken"}):
            agent = sidecar.client(sidecar.token(), **headers)
            assert agent.post("/api/events/step", json={"data": {}}).status_code == 202
            stored = agent.post("/api/results", json=RESULT).json()
            assert "traceparent" not in agent.get(f"/api/results/{stored['id']}").json()
        events = sidecar.operator.get("/api/events", params={"type": "step"}).json()["events"]
        assert not any("traceparent" in event for event in events)

    def test_still_have_it_when_the_bus_comes_back_from_the_disk(self, sidecar: Any) -> None:
        sidecar.client(sidecar.token(), traceparent=TRACE).post("/api/events/step", json={"data": {}})
        sidecar.operator.post("/api/actors/event_bus/restart")
        deadline = time.monotonic() + 10
        while not any(
            actor["restarts"] and actor["state"] == "running"
            for actor in sidecar.operator.get("/api/actors").json()["actors"]
        ):
            assert time.monotonic() < deadline
        assert sidecar.wait_for("step")["traceparent"] == TRACE

    def test_come_through_mcp_as_well(self, sidecar: Any) -> None:
        body = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "publish_event", "arguments": {"event_type": "step", "data": {}}},
        }
        sidecar.client(sidecar.token(), traceparent=TRACE).post("/mcp", json=body)
        assert sidecar.wait_for("step")["traceparent"] == TRACE

    def test_a_key_stands_for_the_call_in_whichever_trace(self, sidecar: Any) -> None:
        ids = set()
        for trace in (TRACE, OTHER):
            client = sidecar.client(sidecar.operator_token(), traceparent=trace, **{"Idempotency-Key": "k"})
            spawned = client.post("/api/agents/spawn", json={"agent_type": "python-specialist", "issue_id": "i"})
            ids.add(spawned.json()["agent_id"])
            ids.add(client.post("/api/events/once", json={"data": {}}).json()["event_id"])
        assert len(ids) == 2


class TestAgents:
    @pytest.fixture
    def telling(self, start_sidecar: Any, tmp_path: Path) -> Any:
        """A sidecar whose test-engineer writes its TRACEPARENT where TOLD says."""
        code = f"import os; open('{tmp_path}/told', 'w').write(os.environ['TRACEPARENT'])"
        return start_sidecar(
            f"[profiles.test-engineer]\ncommand = ['{sys.executable}', '-c', \"{code}\"]\n"
            "[[triggers]]\non = 'work_done'\nspawn = 'test-engineer'\n"
        )

    def test_get_the_trace_of_the_spawn_and_tell_of_themselves_in_it(self, telling: Any, tmp_path: Path) -> None:
        operator = telling.client(telling.operator_token(), traceparent=TRACE)
        spawned = operator.post("/api/agents/spawn", json={"agent_type": "test-engineer", "issue_id": "i"})
        ended = telling.wait_for("agent_exited", f"agent_id:{spawned.json()['agent_id']}")
        assert (tmp_path / "told").read_text() == TRACE
        assert ended["traceparent"] == TRACE

    def test_get_the_trace_of_the_event_that_triggered_them(self, telling: Any, tmp_path: Path) -> None:
        body = {"data": {"issue_id": "issue-1"}}
        telling.client(telling.token(), traceparent=TRACE).post("/api/events/work_done", json=body)
        telling.wait_for("agent_exited")
        assert (tmp_path / "told").read_text() == TRACE

    def test_begin_a_trace_where_there_is_none(self, telling: Any, tmp_path: Path) -> None:
        telling.spawn("test-engineer")
        telling.wait_for("agent_exited")
        told = (tmp_path / "told").read_text()
        assert traceparent(told) == told

    def test_cannot_be_given_another_by_the_request(self, telling: Any) -> None:
        body = {"agent_type": "test-engineer", "issue_id": "i", "environment": {"TRACEPARENT": OTHER}}
        refused = telling.operator.post("/api/agents/spawn", json=body)
        assert refused.status_code == 400
