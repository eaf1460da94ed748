"""No client of a version with a handshake loses its session over one message; arguments are taken as they are meant."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from sidecar.http.mcp.rpc import SELF_CONTAINED, WITH_HANDSHAKE
from tests.conftest import StartSidecar

VERSIONS = (None, *WITH_HANDSHAKE)
LIMITED = "[limits.classes.coding]\nper_minute = 1\nburst = 0\n"


def post(client: httpx.Client, message: dict[str, Any], version: str | None, **headers: str) -> httpx.Response:
    if version is not None:
        headers["MCP-Protocol-Version"] = version
    return client.post("/mcp", json={"jsonrpc": "2.0", **message}, headers=headers)


def call(tool: str, arguments: Any) -> dict[str, Any]:
    return {"id": 7, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_wrong_with_a_message_is_told_with_200(sidecar: Any, version: str | None) -> None:
    for code, message in {-32601: {"id": 7, "method": "resources/list"}, -32602: call("rm", {})}.items():
        answer = post(sidecar.operator, message, version)
        assert (answer.status_code, answer.json()["id"], answer.json()["error"]["code"]) == (200, 7, code)
    for arguments in ([], "text", 1):
        answer = post(sidecar.operator, call("list_results", arguments), version)
        assert (answer.status_code, answer.json()["id"], answer.json()["error"]["code"]) == (200, 7, -32602)
    answer = post(sidecar.operator, call("list_results", {"limit": "none"}), version)
    assert answer.status_code == 200
    assert answer.json()["result"]["isError"]


@pytest.mark.parametrize("version", VERSIONS)
def test_over_the_rate_a_tool_says_so_and_a_notification_is_taken(
    start_sidecar: StartSidecar, version: str | None
) -> None:
    agent = start_sidecar(LIMITED).agent()
    assert post(agent, {"id": 1, "method": "ping"}, version).json()["result"] == {}
    answer = post(agent, call("list_results", {}), version)
    result = answer.json()["result"]
    assert (answer.status_code, answer.json()["id"], result["isError"]) == (200, 7, True)
    assert json.loads(result["content"][0]["text"])["code"] == "RATE_001"
    listed = post(agent, {"id": 9, "method": "tools/list"}, version)
    assert listed.json()["result"]["tools"]
    answer = post(agent, {"id": 8, "method": "ping"}, version)
    assert (answer.status_code, answer.json()["id"]) == (200, 8)
    assert answer.json()["error"]["data"]["code"] == "RATE_001"
    assert post(agent, {"method": "notifications/initialized"}, version).status_code == 202


def test_a_version_without_sessions_keeps_the_status_of_http(start_sidecar: StartSidecar) -> None:
    agent = start_sidecar(LIMITED).agent()
    headers = {"Mcp-Method": "resources/list"}
    meta = {
        "io.modelcontextprotocol/protocolVersion": SELF_CONTAINED[-1],
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    message = {"id": 1, "method": "resources/list", "params": {"_meta": meta}}
    assert post(agent, message, SELF_CONTAINED[-1], **headers).status_code == 404
    assert post(agent, message, SELF_CONTAINED[-1], **headers).status_code == 429


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_wrong_with_the_request_itself_keeps_its_status(sidecar: Any, version: str | None) -> None:
    ping = {"id": 1, "method": "ping"}
    assert post(sidecar.client(), ping, version).status_code == 401
    assert post(sidecar.operator, ping, version, Origin="http://evil.example").status_code == 403
    assert sidecar.operator.post("/mcp", content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert sidecar.operator.post("/mcp", content=b"{", headers={"Content-Type": "application/json"}).status_code == 400


# --- Arguments ----------------------------------------------------------------------------------------------------

RESULT = {"status": "success", "decisions": ["SQLite"], "files_created": ["a,b.py"]}


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("store_result", {"result": json.dumps(RESULT)}),
        ("store_result", {"result": RESULT}),
        ("publish_event", {"event_type": "done", "data": json.dumps({"a": [1, {"b": "c"}]}, indent=1)}),
        ("publish_event", {"event_type": "done", "data": "{}", "ttl_seconds": "60"}),
        ("wait_for_event", {"types": ["done", "other"], "timeout": "0", "topics": []}),
        ("wait_for_event", {"types": "done,other", "filter": ["a:1", "b:2"], "timeout": 0}),
        ("get_context", {"files": ["a.py", "b*.py"], "requirements": ["git_history", "dependencies"]}),
        ("spawn_agent", {"agent_type": "go-specialist", "environment": json.dumps({"TASK_A": "1"})}),
        ("spawn_agent", {"agent_type": "go-specialist", "context_requirements": '["git_history"]'}),
        ("spawn_agent", {"agent_type": "go-specialist", "context_requirements": "git_history, dependencies"}),
    ],
)
def test_an_argument_in_another_type_that_means_the_same_is_taken(
    sidecar: Any, tool: str, arguments: dict[str, Any]
) -> None:
    agent = sidecar.agent("chief-architect", issue_id="issue-1")
    result = post(agent, call(tool, arguments), None).json()["result"]
    assert not result["isError"], result["content"][0]["text"]


def test_what_came_as_text_is_kept_as_what_it_means(sidecar: Any) -> None:
    agent = sidecar.agent(issue_id="issue-1")
    stored = post(agent, call("store_result", {"result": json.dumps(RESULT)}), None).json()["result"]
    found = agent.get(f"/api/results/{stored['structuredContent']['id']}").json()
    assert found["result"] == RESULT
    post(agent, call("publish_event", {"event_type": "said", "data": '{"text": "[1]"}'}), None)
    assert sidecar.wait_for("said")["data"] == {"text": "[1]"}


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("publish_event", {"event_type": "done", "data": "no object"}),
        ("publish_event", {"event_type": "done", "data": "[1]"}),
        ("publish_event", {"event_type": "done", "data": json.dumps(json.dumps({}))}),
        ("publish_event", {"event_type": "done", "data": '{"a":' * 5000}),
        ("publish_event", {"event_type": ["done"], "data": {}}),
        ("store_result", {"result": "success"}),
        ("wait_for_event", {"types": [1, 2], "timeout": 0}),
    ],
)
def test_what_means_something_else_is_refused_by_its_field(sidecar: Any, tool: str, arguments: dict[str, Any]) -> None:
    result = post(sidecar.agent(issue_id="issue-1"), call(tool, arguments), None).json()["result"]
    assert result["isError"]
    error = json.loads(result["content"][0]["text"])
    assert error["code"] == "REQ_001"
    assert error["details"]["field"].partition(".")[0] in arguments
