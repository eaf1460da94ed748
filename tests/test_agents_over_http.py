"""Agents over HTTP: spawned, looked at, stopped, restarted, read; what an agent gets, and what it may not be given."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest


def test_an_agent_runs_to_its_end(sidecar: Any) -> None:
    spawned = sidecar.spawn("python-specialist", task="print")
    assert spawned["spawned"] is True
    assert spawned["webhook_url"] == f"/api/agents/{spawned['agent_id']}/status"
    assert spawned["jwt_token"]
    assert {"process_id", "context_injected", "state", "timestamp"} <= spawned.keys()
    sidecar.wait_for("agent_exited", f"agent_id:{spawned['agent_id']}")
    agent = sidecar.operator.get(spawned["webhook_url"]).json()
    assert (agent["state"], agent["exit_code"], agent["cause"]) == ("completed", 0, "exit")
    assert set(agent) == {
        "agent_id", "agent_type", "issue_id", "project_id", "state", "process_id", "exit_code", "incarnation",
        "restarts", "cause", "started_at", "ended_at", "uptime_seconds", "cpu_percent", "memory_mb", "task",
        "last_error", "timestamp", "requested_by", "triggered_by", "waiting_for",
    }  # fmt: skip


def test_an_agent_gets_who_it_is_and_a_token_that_works(start_sidecar: Any, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    code = "import json, os; json.dump(dict(os.environ), open(os.environ['TASK_TOLD'], 'w'))"
    sidecar = start_sidecar(f"[profiles.test-engineer]\ncommand = ['{sys.executable}', '-c', \"{code}\"]\n")
    environment = {"TASK_TOLD": str(told)}
    spawned = sidecar.spawn("test-engineer", "issue-7", task="look {task}", environment=environment)
    sidecar.wait_for("agent_exited", f"agent_id:{spawned['agent_id']}")
    environ = json.loads(told.read_text())
    assert environ["AGENT_ID"] == spawned["agent_id"]
    assert environ["AGENT_TYPE"] == "test-engineer"
    assert (environ["ISSUE_ID"], environ["PROJECT_ID"]) == ("issue-7", "default")
    assert environ["AGENT_TASK"] == "look {task}"
    assert environ["SIDECAR_URL"] == f"{sidecar.url}/api"
    assert environ["CONTEXT_URL"] == f"{sidecar.url}/api/context/issue-7/test-engineer"
    assert environ["PROJECT_ROOT"] == str(sidecar.project)
    assert environ["JWT_TOKEN"].count(".") == 2


def test_the_token_of_a_running_agent_works_and_dies_with_it(sidecar: Any) -> None:
    spawned = sidecar.spawn("go-specialist")
    agent = sidecar.client(spawned["jwt_token"])
    assert agent.get("/status").status_code == 200
    assert sidecar.operator.delete(f"/api/agents/{spawned['agent_id']}", params={"timeout": 5}).status_code == 200
    answer = agent.get("/status")
    assert (answer.status_code, answer.json()["code"]) == (401, "AUTH_001")


def test_stopping_ends_the_process_and_says_so(sidecar: Any) -> None:
    agent_id = sidecar.spawn("go-specialist")["agent_id"]
    answer = sidecar.operator.delete(f"/api/agents/{agent_id}", params={"timeout": 5})
    assert answer.status_code == 200
    assert answer.json()["state"] == "stopped"
    again = sidecar.operator.delete(f"/api/agents/{agent_id}")
    assert (again.status_code, again.json()["code"]) == (409, "AGT_003")


def test_force_stops_at_once_one_that_ignores_the_signal(start_sidecar: Any) -> None:
    code = "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    sidecar = start_sidecar(f"[profiles.test-engineer]\ncommand = ['{sys.executable}', '-c', \"{code}\"]\n")
    agent_id = sidecar.spawn("test-engineer")["agent_id"]
    sidecar.operator.get(f"/api/agents/{agent_id}/logs", params={"offset": 0, "timeout": 10})
    answer = sidecar.operator.delete(f"/api/agents/{agent_id}", params={"force": "true", "timeout": 60})
    assert (answer.json()["state"], answer.json()["cause"]) == ("stopped", "killed")


def test_a_crashing_agent_is_restarted_and_then_given_up(sidecar: Any) -> None:
    agent_id = sidecar.spawn("rust-specialist")["agent_id"]
    failed = sidecar.wait_for("agent_failed", f"agent_id:{agent_id}")
    assert failed["topic"] == "error"
    agent = sidecar.operator.get(f"/api/agents/{agent_id}").json()
    assert (agent["state"], agent["restarts"], agent["exit_code"]) == ("failed", 2, 3)


def test_restart_starts_the_next_incarnation(sidecar: Any) -> None:
    agent_id = sidecar.spawn("go-specialist")["agent_id"]
    answer = sidecar.operator.post(f"/api/agents/{agent_id}/restart")
    assert answer.status_code == 200, answer.text
    assert answer.json()["incarnation"] == 2
    assert answer.json()["agent_id"] == agent_id


def test_more_agents_than_may_run_wait_in_a_queue_by_priority(start_sidecar: Any) -> None:
    sidecar = start_sidecar("[agents]\nmax_concurrent = 1\n")
    first = sidecar.spawn("go-specialist")
    low = sidecar.spawn("go-specialist", priority="low")
    high = sidecar.spawn("go-specialist", priority="high")
    assert first["spawned"] is True
    assert (low["spawned"], low["state"], low["process_id"]) == (False, "queued", None)
    sidecar.operator.delete(f"/api/agents/{first['agent_id']}")
    sidecar.wait_for("agent_started", f"agent_id:{high['agent_id']}")
    states = {agent["agent_id"]: agent["state"] for agent in sidecar.operator.get("/api/agents").json()["agents"]}
    assert states[high["agent_id"]] in ("starting", "running")
    assert states[low["agent_id"]] == "queued"


def test_logs_can_be_read_and_followed(sidecar: Any) -> None:
    agent_id = sidecar.spawn("go-specialist")["agent_id"]
    log = sidecar.operator.get(f"/api/agents/{agent_id}/logs", params={"offset": 0, "timeout": 10}).json()
    assert (log["data"], log["offset"], log["next_offset"], log["ended"]) == ("ready\n", 0, 6, False)
    more = sidecar.operator.get(f"/api/agents/{agent_id}/logs", params={"offset": 6, "timeout": 0.05}).json()
    assert (more["data"], more["next_offset"]) == ("", 6)


def test_the_end_of_stderr_is_what_tail_gives(sidecar: Any) -> None:
    agent_id = sidecar.spawn("rust-specialist")["agent_id"]
    sidecar.wait_for("agent_failed", f"agent_id:{agent_id}")
    log = sidecar.operator.get(f"/api/agents/{agent_id}/logs", params={"stream": "stderr", "tail": 2}).json()
    assert log["data"] == "broken\nbroken\n"


def test_a_repeated_spawn_with_one_idempotency_key_gets_the_first_answer(sidecar: Any) -> None:
    body = {"agent_type": "go-specialist", "issue_id": "issue-1"}
    headers = {"Idempotency-Key": "once"}
    first = sidecar.operator.post("/api/agents/spawn", json=body, headers=headers)
    again = sidecar.operator.post("/api/agents/spawn", json=body, headers=headers)
    assert first.json()["agent_id"] == again.json()["agent_id"]
    other = sidecar.operator.post("/api/agents/spawn", json={**body, "issue_id": "issue-2"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "REQ_409")
    assert sidecar.operator.get("/api/agents").json()["total"] == 1


def test_a_type_without_a_command_cannot_be_spawned(sidecar: Any) -> None:
    answer = sidecar.operator.post("/api/agents/spawn", json={"agent_type": "poet", "issue_id": "issue-1"})
    assert (answer.status_code, answer.json()["code"]) == (422, "AGT_002")


@pytest.mark.parametrize("name", ["JWT_TOKEN", "AGENT_ID", "PATH", "LD_PRELOAD", "PYTHONPATH", "GIT_DIR", "A=B", ""])
def test_the_environment_of_a_request_cannot_change_what_runs(sidecar: Any, name: str) -> None:
    body = {"agent_type": "python-specialist", "issue_id": "issue-1", "environment": {name: "x"}}
    answer = sidecar.operator.post("/api/agents/spawn", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "REQ_001")
    assert "environment" in answer.json()["details"]["field"]


def test_an_event_spawns_an_agent_once(start_sidecar: Any) -> None:
    sidecar = start_sidecar(
        '[[triggers]]\non = "implementation_complete"\nfilter = "status:success"\nspawn = "python-specialist"\n'
    )
    publish = sidecar.operator.post
    publish("/api/events/implementation_complete", json={"data": {"issue_id": "issue-9", "status": "failed"}})
    publish("/api/events/implementation_complete", json={"data": {"issue_id": "issue-9", "status": "success"}})
    sidecar.wait_for("agent_exited", "issue_id:issue-9")
    agents = sidecar.operator.get("/api/agents").json()["agents"]
    assert [(agent["agent_type"], agent["issue_id"]) for agent in agents] == [("python-specialist", "issue-9")]


def test_a_heartbeat_is_the_agents_own(sidecar: Any) -> None:
    spawned = sidecar.spawn("go-specialist")
    own = sidecar.client(spawned["jwt_token"])
    assert own.post(f"/api/agents/{spawned['agent_id']}/heartbeat").status_code == 200
    other = sidecar.agent("go-specialist", "somebody")
    answer = other.post(f"/api/agents/{spawned['agent_id']}/heartbeat")
    assert (answer.status_code, answer.json()["code"]) == (403, "AUTH_005")


def test_an_unknown_agent_is_not_found(sidecar: Any) -> None:
    for path in ("/api/agents/nobody", "/api/agents/nobody/status", "/api/agents/nobody/logs"):
        answer = sidecar.operator.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "REQ_404")
