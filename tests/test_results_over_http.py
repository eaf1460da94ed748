"""Results over HTTP: every field comes back as it was sent, only to the own project, also after a restart."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from sidecar.http.access.minting import mint_agent_token
from sidecar.http.config import Flags, load
from sidecar.http.serve import running

# The guide's result schema, and keys of an agent's own.
RESULT = {
    "status": "success",
    "files_created": [{"path": "src/api.py", "size": 4096, "language": "python", "checksum": "sha256:abc"}, "b.py"],
    "files_modified": [{"path": "requirements.txt", "diff": "+1 -0", "changes": ["Added fastapi==0.104.0"]}],
    "files_deleted": ["old/deprecated.py"],
    "decisions": ["Implemented REST API", {"what": "Pydantic", "why": ["validation"]}],
    "metrics": {"execution_time_ms": 4500, "test_coverage": 92.3, "big": 12345678901234567890, "small": 1.50},
    "artifacts": {"api_documentation": "# API Docs…"},
    "errors": [],
    "warnings": ["Consider adding rate limiting"],
    "next_steps": ["Security audit required"],
    "anything": {"else": [None, True, "\u00e9\u0000\U0001f600"]},
}


def body(result: Any = None, *, agent_id: str = "agent-1", agent_type: str = "python-specialist", **fields: Any) -> Any:
    return {
        "agent_id": agent_id,
        "agent_type": agent_type,
        "issue_id": "issue-1",
        "project_id": "default",
        "result": result or {"status": "success"},
        **fields,
    }


def test_every_field_comes_back_as_it_was_sent(sidecar: Any) -> None:
    agent = sidecar.agent()
    stored = agent.post("/api/results", json=body(RESULT, timestamp="2026-01-31T10:00:00+01:00"))
    assert stored.status_code == 201
    answer = stored.json()
    assert answer["stored"] is True
    assert answer["event_published"] is True
    assert answer["storage_path"] == f"results/{answer['id']}"
    found = agent.get(f"/api/results/{answer['id']}").json()
    assert found["result"] == RESULT
    assert found["timestamp"] == "2026-01-31T09:00:00Z"
    assert (found["id"], found["agent_id"], found["agent_type"]) == (answer["id"], "agent-1", "python-specialist")
    assert (found["issue_id"], found["project_id"], found["status"]) == ("issue-1", "default", "success")
    assert agent.get("/api/results").json()["results"] == [found]


def test_numbers_and_order_stay_as_they_were_written(sidecar: Any) -> None:
    written = '{"status":"success","z":1.50,"a":1e2,"n":-0.0}'
    raw = json.dumps(body("RESULT")).replace('"RESULT"', written)
    agent = sidecar.agent()
    answer = agent.post("/api/results", content=raw, headers={"Content-Type": "application/json"})
    assert written in agent.get(f"/api/results/{answer.json()['id']}").text


def test_storing_publishes_result_stored_and_nothing_else(sidecar: Any) -> None:
    answer = sidecar.agent().post("/api/results", json=body()).json()
    event = sidecar.wait_for("result_stored")
    assert event["event_id"] == answer["event_id"]
    assert event["data"]["result_id"] == answer["id"]
    assert [each["event_type"] for each in sidecar.operator.get("/api/events").json()["events"]] == ["result_stored"]


def test_who_follows_comes_from_the_profile(start_sidecar: Any) -> None:
    sidecar = start_sidecar(
        '[profiles.test-engineer]\nnext_agents = [{agent_type = "release-manager", priority = "low", on = "partial"}]\n'
    )
    built_in = sidecar.agent().post("/api/results", json=body()).json()["next_agents"]
    assert [each["agent_type"] for each in built_in] == ["test-engineer", "security-auditor"]
    assert all(set(each) == {"agent_type", "priority", "reason"} for each in built_in)
    agent = sidecar.agent("test-engineer")
    store = {status: body({"status": status}, agent_type="test-engineer") for status in ("partial", "success")}
    partial = agent.post("/api/results", json=store["partial"]).json()["next_agents"]
    assert [(each["agent_type"], each["priority"]) for each in partial] == [("release-manager", "low")]
    assert agent.post("/api/results", json=store["success"]).json()["next_agents"] == []


def test_results_are_found_by_what_is_asked_newest_first(sidecar: Any) -> None:
    ada, bob = sidecar.agent("python-specialist", "ada"), sidecar.agent("test-engineer", "bob")
    ids = []
    for n in range(3):
        stored = ada.post("/api/results", json=body(agent_id="ada", issue_id=f"issue-{n}"))
        ids.append(stored.json()["id"])
    failed = body({"status": "failed"}, agent_id="bob", agent_type="test-engineer", issue_id="issue-1")
    ids.append(bob.post("/api/results", json=failed).json()["id"])

    def found(**query: str) -> list[str]:
        page = ada.get("/api/results", params=query).json()
        assert page["total"] == len(page["results"])
        return [result["id"] for result in page["results"]]

    assert found() == ids[::-1]
    assert found(issue_id="issue-1") == [ids[3], ids[1]]
    assert found(agent_id="ada") == ids[2::-1]
    assert found(agent_type="test-engineer") == [ids[3]]
    assert found(status="failed") == [ids[3]]
    assert found(issue_id="issue-1", status="success") == [ids[1]]
    assert found(until="2020-01-01T00:00:00Z") == []
    assert found(since="2020-01-01T00:00:00Z") == ids[::-1]
    assert found(since="2999-01-01T00:00:00+00:00") == []


def test_pages_go_on_where_the_last_ended(sidecar: Any) -> None:
    agent = sidecar.agent()
    ids = [agent.post("/api/results", json=body(issue_id=f"issue-{n}")).json()["id"] for n in range(7)]
    seen: list[str] = []
    cursor = None
    while True:
        page = agent.get("/api/results", params={"limit": 3, **({"cursor": cursor} if cursor else {})}).json()
        assert page["total"] == 7
        seen += [result["id"] for result in page["results"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]


def test_a_repeat_with_one_idempotency_key_gets_the_first_answer(sidecar: Any) -> None:
    agent = sidecar.agent()
    first = agent.post("/api/results", json=body(), headers={"Idempotency-Key": "once"})
    again = agent.post("/api/results", json=body(), headers={"Idempotency-Key": "once"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]
    other = agent.post("/api/results", json=body({"status": "failed"}), headers={"Idempotency-Key": "once"})
    assert (other.status_code, other.json()["code"]) == (409, "REQ_409")
    assert agent.get("/api/results").json()["total"] == 1
    bad = agent.post("/api/results", json=body(), headers={"Idempotency-Key": "x" * 300})
    assert (bad.status_code, bad.json()["details"]["field"]) == (400, "Idempotency-Key")


def test_an_unknown_result_is_not_found(sidecar: Any) -> None:
    answer = sidecar.agent().get("/api/results/res-nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "REQ_404")


def test_a_result_of_ten_megabytes_is_kept(sidecar: Any) -> None:
    agent = sidecar.agent()
    large = {"status": "success", "artifacts": {"log": "x" * (10 * 1024 * 1024 - 500)}}
    stored = agent.post("/api/results", json=body(large))
    assert stored.status_code == 201
    assert agent.get(f"/api/results/{stored.json()['id']}").json()["result"] == large


@pytest.mark.parametrize("who", ["an agent", "an operator"])
def test_only_operators_learn_where_things_lie(sidecar: Any, who: str) -> None:
    client = sidecar.agent() if who == "an agent" else sidecar.operator
    sidecar.agent().post("/api/results", json=body())
    shown = "".join(client.get(path).text for path in ("/status", "/api/results", "/api/actors", "/health"))
    assert (str(sidecar.storage) in shown) is (who == "an operator")


def test_what_was_stored_is_there_after_a_restart(tmp_path: Path, project: Path) -> None:
    config = load(Flags(port=0, storage=tmp_path / "s", project_root=project), {}, working_dir=tmp_path)
    token = mint_agent_token(config.storage, {}, agent_id="agent-1", agent_type="python-specialist").text
    with ExitStack() as stack:
        first = stack.enter_context(running(config))
        headers = {"Authorization": f"Bearer {token}"}
        stored = httpx.post(f"{first.url}/api/results", json=body(RESULT), headers=headers).json()
        stack.close()
        second = stack.enter_context(running(config))
        found = httpx.get(f"{second.url}/api/results/{stored['id']}", headers=headers).json()
        events = httpx.get(f"{second.url}/api/events", headers=headers).json()["events"]
    assert found["result"] == RESULT
    assert [event["event_id"] for event in events] == [stored["event_id"]]
