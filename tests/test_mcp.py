"""Agents that speak MCP: the official client uses every tool, by the handshake and without it."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from sidecar.http.mcp.rpc import SELF_CONTAINED, WITH_HANDSHAKE
from sidecar.http.mcp.tools import TOOLS
from sidecar.http.serve import WORKER_THREADS
from sidecar.state.identity import AgentClass

from .context_world import repository

mcp = pytest.importorskip("mcp")
httpx2 = pytest.importorskip("httpx2")
jsonschema = pytest.importorskip("jsonschema")

from mcp.client.client import Client  # noqa: E402  # only where the package is
from mcp.client.streamable_http import streamable_http_client  # noqa: E402

MODES = ["legacy", "auto"]
DOCS = Path(__file__).parents[1] / "docs" / "mcp.md"


def connected(sidecar: Any, token: str, mode: str = "auto") -> AbstractAsyncContextManager[Any]:
    @asynccontextmanager
    async def connect() -> AsyncIterator[Any]:
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=30.0) as http,
            Client(streamable_http_client(f"{sidecar.url}/mcp", http_client=http), mode=mode) as client,
        ):
            yield client

    return connect()


def talk(sidecar: Any, then: Callable[[Any], Awaitable[Any]], *, mode: str = "auto", token: str | None = None) -> Any:
    """What `then` returns, given a client with an agent's token."""

    async def run() -> Any:
        async with connected(sidecar, token or sidecar.token(issue_id="issue-1"), mode) as client:
            with anyio.fail_after(30):
                return await then(client)

    return anyio.run(run)


def call(sidecar: Any, tool: str, *, token: str | None = None, **arguments: Any) -> dict[str, Any]:
    """The structured answer of one call, which must have gone well."""
    result = talk(sidecar, lambda client: client.call_tool(tool, arguments), token=token)
    assert not result.is_error, result.content[0].text
    assert json.loads(result.content[0].text) == result.structured_content
    answered: dict[str, Any] = result.structured_content
    return answered


def refusal(sidecar: Any, tool: str, *, token: str | None = None, **arguments: Any) -> dict[str, Any]:
    """The error of one call, which must have been refused."""
    result = talk(sidecar, lambda client: client.call_tool(tool, arguments), token=token)
    assert result.is_error
    body: dict[str, Any] = json.loads(result.content[0].text)
    return body


def post(sidecar: Any, body: dict[str, Any], *, token: str | None = "", **headers: str) -> httpx.Response:
    """One message as a client without an SDK sends it; token None: without one."""
    if token is not None:
        headers["Authorization"] = f"Bearer {token or sidecar.token()}"
    return httpx.post(f"{sidecar.url}/mcp", json=body, headers=headers, timeout=30, verify=False)


class TestConnecting:
    @pytest.mark.parametrize(("mode", "version"), [("legacy", WITH_HANDSHAKE[-1]), ("auto", SELF_CONTAINED[-1])])
    def test_a_client_gets_the_newest_version_it_speaks(self, sidecar: Any, mode: str, version: str) -> None:
        async def look(client: Any) -> tuple[str, str, str]:
            await client.list_tools()
            return client.protocol_version, client.server_info.name, client.instructions

        spoken, name, instructions = talk(sidecar, look, mode=mode)
        assert (spoken, name) == (version, "orchestration-sidecar")
        assert "agent-1" in instructions
        assert "issue-1" in instructions

    @pytest.mark.parametrize("mode", MODES)
    def test_every_tool_is_listed_with_schemas_that_are_schemas(self, sidecar: Any, mode: str) -> None:
        tools = talk(sidecar, lambda client: client.list_tools(), mode=mode).tools
        assert [tool.name for tool in tools] == list(TOOLS)
        for tool in tools:
            for schema in (tool.input_schema, *([tool.output_schema] if tool.output_schema else [])):
                jsonschema.Draft202012Validator.check_schema(schema)
                assert schema["type"] == "object"
                assert "$ref" not in json.dumps(schema)

    def test_an_older_version_is_spoken_with_who_asks_for_it(self, sidecar: Any) -> None:
        hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize"}
        for asked, given in (("2025-06-18", "2025-06-18"), ("1999-01-01", WITH_HANDSHAKE[-1])):
            answer = post(sidecar, {**hello, "params": {"protocolVersion": asked, "capabilities": {}}})
            assert answer.json()["result"]["protocolVersion"] == given

    def test_a_ping_is_answered_and_a_notification_taken(self, sidecar: Any) -> None:
        assert post(sidecar, {"jsonrpc": "2.0", "id": "a", "method": "ping"}).json() == {
            "jsonrpc": "2.0",
            "id": "a",
            "result": {},
        }
        noted = post(sidecar, {"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert (noted.status_code, noted.content) == (202, b"")

    def test_a_spawned_agent_finds_it_by_the_documented_configuration(self, start_sidecar: Any, tmp_path: Path) -> None:
        told = tmp_path / "told.json"
        code = (
            "import json, os, urllib.request as r; "
            "q = r.Request(os.environ['SIDECAR_URL'] + '/mcp', method='POST', "
            "headers={'Authorization': 'Bearer ' + os.environ['JWT_TOKEN'], 'Content-Type': 'application/json'}, "
            "data=json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': 'ping'}).encode()); "
            "open(os.environ['TASK_TOLD'], 'wb').write(r.urlopen(q).read())"
        )
        sidecar = start_sidecar(f'[profiles.test-engineer]\ncommand = [\'{sys.executable}\', \'-c\', """{code}"""]\n')
        agent_id = sidecar.spawn("test-engineer", environment={"TASK_TOLD": str(told)})["agent_id"]
        sidecar.wait_for("agent_exited", f"agent_id:{agent_id}")
        assert json.loads(told.read_text())["result"] == {}
        assert "${SIDECAR_URL}/mcp" in DOCS.read_text()

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    def test_there_is_no_stream_and_no_session_to_end(self, sidecar: Any, method: str) -> None:
        answer = sidecar.agent().request(method, "/mcp")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


class TestWhatIsRefused:
    def test_a_request_without_a_token_is_a_401_that_clients_can_show(self, sidecar: Any) -> None:
        answer = post(sidecar, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, token=None)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        error = answer.json()["error"]
        assert error["message"].startswith("AUTH_001: ")
        assert error["data"]["code"] == "AUTH_001"

    def test_the_rate_of_the_http_api_is_the_rate_here(self, start_sidecar: Any) -> None:
        sidecar = start_sidecar("[limits.classes.coding]\nper_minute = 1\nburst = 1\n")
        for _ in range(2):
            assert post(sidecar, {"jsonrpc": "2.0", "id": 1, "method": "ping"}).status_code == 200
        answer = post(sidecar, {"jsonrpc": "2.0", "id": 1, "method": "ping"})
        assert (answer.status_code, answer.json()["id"]) == (200, 1)
        assert answer.headers["X-RateLimit-Remaining"] == "0"
        assert answer.json()["error"]["data"]["code"] == "RATE_001"
        assert answer.json()["error"]["data"]["details"]["retry_after_s"] > 0

    def test_what_is_no_message_is_a_400(self, sidecar: Any) -> None:
        for body in ({"id": 1, "method": "ping"}, {"jsonrpc": "2.0", "id": None, "method": "ping"}, []):
            answer = post(sidecar, body)  # type: ignore[arg-type]
            assert answer.status_code == 400
            assert answer.json()["error"]["code"] == -32600

    def test_an_unknown_method_and_an_unknown_tool_are_the_protocols_own_errors(self, sidecar: Any) -> None:
        answer = post(sidecar, {"jsonrpc": "2.0", "id": 7, "method": "prompts/list"})
        assert (answer.status_code, answer.json()["id"], answer.json()["error"]["code"]) == (200, 7, -32601)

        async def call_unknown(client: Any) -> None:
            with pytest.raises(mcp.MCPError, match="Unknown tool: rm"):
                await client.call_tool("rm", {})

        talk(sidecar, call_unknown)

    def test_a_page_of_another_origin_is_sent_away(self, sidecar: Any) -> None:
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        assert post(sidecar, ping, Origin="http://evil.example").status_code == 403
        assert post(sidecar, ping, Origin=sidecar.url).status_code == 200

    @pytest.mark.parametrize(
        ("headers", "code"),
        [
            ({"MCP-Protocol-Version": "1999-01-01", "Mcp-Method": "tools/list"}, -32022),
            ({"MCP-Protocol-Version": SELF_CONTAINED[-1], "Mcp-Method": "tools/call"}, -32020),
            ({"MCP-Protocol-Version": SELF_CONTAINED[-1]}, -32020),
        ],
    )
    def test_headers_that_do_not_say_what_the_body_says(self, sidecar: Any, headers: dict[str, str], code: int) -> None:
        meta = {
            "io.modelcontextprotocol/protocolVersion": SELF_CONTAINED[-1],
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
        answer = post(sidecar, body, **headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)

    def test_a_self_contained_request_without_its_meta(self, sidecar: Any) -> None:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        headers = {"MCP-Protocol-Version": SELF_CONTAINED[-1], "Mcp-Method": "tools/list"}
        answer = post(sidecar, body, **headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32602)


class TestTools:
    @pytest.mark.parametrize("mode", MODES)
    def test_an_agent_works_through_its_whole_life(self, sidecar: Any, mode: str) -> None:
        async def work(client: Any) -> tuple[Any, ...]:
            context = await client.call_tool("get_context", {"q": "answer"})
            told = await client.call_tool("publish_event", {"event_type": "work_began", "data": {"n": 1}})
            stored = await client.call_tool("store_result", {"result": {"status": "success", "note": 1.50}})
            seen = await client.call_tool("wait_for_event", {"types": "result_stored", "timeout": 10_000})
            listed = await client.call_tool("list_results", {"issue_id": "issue-1"})
            others = tuple(each.structured_content for each in (told, stored, seen, listed))
            return (json.loads(context.content[0].text), *others)

        context, told, stored, seen, listed = talk(sidecar, work, mode=mode)
        assert any(file["path"] == "src/app.py" for file in context["context"]["relevant_files"])
        assert told["published"]
        assert seen["events"][0]["event_id"] == stored["event_id"]
        assert listed["results"][0]["result"] == {"status": "success", "note": 1.50}
        assert listed["results"][0]["agent_id"] == "agent-1"

    def test_a_context_fits_the_window_of_a_model_with_the_chosen_files_first(
        self, start_sidecar: Any, tmp_path: Path
    ) -> None:
        body = "".join(f"def step_{n}(value):\n    return value + {n}\n\n\n" for n in range(40))
        files = {f"src/area_{n % 50}/part_{n}.py": body for n in range(3000)}
        files["src/area_7/zeppelin.py"] = f"def inflate_zeppelin():\n    pass\n\n\n{body}"
        sidecar = start_sidecar(project_root=repository(tmp_path / "large", files))
        result = talk(sidecar, lambda client: client.call_tool("get_context", {"q": "inflate the zeppelin"}))
        assert not result.is_error
        assert result.structured_content is None  # the same again would cost the window twice
        (said,) = result.content
        assert len(said.text.encode()) < 62_000
        answer = json.loads(said.text)
        context = answer["context"]
        assert next(iter(context)) == "relevant_files"
        assert list(context)[-1] == "project_structure"
        assert context["relevant_files"][0]["path"] == "src/area_7/zeppelin.py"
        near = [path for path in context["project_structure"]["files"] if path.startswith("src/area_7/")]
        assert len(near) > 10
        for word in ("more", "`files`", "`max_bytes`"):
            assert word in said.text[:500]
        more = talk(sidecar, lambda client: client.call_tool("get_context", {"q": "zeppelin", "max_bytes": 300_000}))
        assert 200_000 < len(more.content[0].text.encode()) < 310_000

    def test_claude_code_is_asked_to_show_the_model_a_whole_context(self, sidecar: Any) -> None:
        tools = {tool.name: tool for tool in talk(sidecar, lambda client: client.list_tools()).tools}
        assert tools["get_context"].meta == {"anthropic/maxResultSizeChars": 500_000}

    def test_a_context_that_is_whole_says_nothing_of_more(self, sidecar: Any) -> None:
        result = talk(sidecar, lambda client: client.call_tool("get_context", {"q": "answer"}))
        answer = json.loads(result.content[0].text)
        assert (answer["truncated"], "more" in answer) == (False, False)

    def test_a_result_comes_back_as_it_was_sent_to_the_last_digit(self, sidecar: Any) -> None:
        raw = '{"status":"success","big":12345678901234567890123,"spaced":[1 , 2]}'
        body = (
            '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"store_result",'
            f'"arguments":{{"issue_id":"issue-9","result":{raw}}}}}}}'
        )
        headers = {"Authorization": f"Bearer {sidecar.token()}", "Content-Type": "application/json"}
        answer = httpx.post(f"{sidecar.url}/mcp", content=body, headers=headers, verify=False)
        stored = answer.json()["result"]["structuredContent"]
        assert raw in sidecar.operator.get(f"/api/results/{stored['id']}").text

    def test_a_spawned_agent_is_followed_and_its_token_stays_hidden(self, sidecar: Any) -> None:
        architect = sidecar.token("chief-architect", "boss", issue_id="issue-1")
        spawned = call(sidecar, "spawn_agent", token=architect, agent_type="go-specialist", task="wait")
        assert spawned["spawned"]
        assert spawned["jwt_token"] is None
        status = call(sidecar, "agent_status", token=architect, agent_id=spawned["agent_id"])
        assert (status["agent_type"], status["issue_id"]) == ("go-specialist", "issue-1")

    def test_a_key_makes_a_repeated_call_one_call(self, sidecar: Any) -> None:
        ids = {
            call(sidecar, "publish_event", event_type="once", data={}, idempotency_key="k")["event_id"]
            for _ in range(2)
        }
        assert len(ids) == 1

    def test_each_wait_goes_on_where_the_last_one_ended(self, sidecar: Any) -> None:
        for n in range(2):
            call(sidecar, "publish_event", event_type="step", data={"n": n})
        seen = [
            call(sidecar, "wait_for_event", types="step", limit=1, timeout=5000)["events"][0]["data"]["n"]
            for _ in range(2)
        ]
        assert seen == [0, 1]
        assert call(sidecar, "wait_for_event", types="step", timeout=0)["timeout"]

    def test_numbers_that_came_as_text_are_numbers(self, sidecar: Any) -> None:
        assert call(sidecar, "wait_for_event", types="never", timeout="0", limit="5", since=None)["timeout"]

    def test_waits_hold_no_worker_thread(self, start_sidecar: Any) -> None:
        sidecar = start_sidecar("[limits]\nenabled = false\n")
        waits = WORKER_THREADS + 4
        seen: list[Any] = []

        async def run() -> None:
            async with connected(sidecar, sidecar.token()) as client, anyio.create_task_group() as tasks:
                for number in range(waits):

                    async def wait(consumer: str = f"c{number}") -> None:
                        arguments = {"types": "signal", "timeout": 20_000, "consumer": consumer}
                        seen.append((await client.call_tool("wait_for_event", arguments)).structured_content)

                    tasks.start_soon(wait)
                with anyio.fail_after(20):
                    while (await anyio.to_thread.run_sync(_waiting, sidecar)) < waits:
                        await anyio.lowlevel.checkpoint()
                    await client.call_tool("publish_event", {"event_type": "signal", "data": {}})

        anyio.run(run)
        assert [len(each["events"]) for each in seen] == [1] * waits

    def test_a_client_that_hangs_up_on_a_wait_is_handed_nothing(self, sidecar: Any) -> None:
        async def leave(client: Any) -> None:
            with anyio.move_on_after(0.2):
                await client.call_tool("wait_for_event", {"types": "late", "timeout": 20_000})

        talk(sidecar, leave)
        call(sidecar, "publish_event", event_type="late", data={})
        (event,) = call(sidecar, "wait_for_event", types="late", timeout=5000)["events"]
        assert event["event_type"] == "late"
        assert not event.get("redelivered", False)


def _waiting(sidecar: Any) -> int:
    count: int = sidecar.operator.get("/status").json()["events"]["active_subscriptions"]
    return count


class TestTheDocumentation:
    def test_names_every_tool_with_every_argument(self) -> None:
        rows = re.findall(r"^\| `(\w+)` \| `[A-Z]+ [^|]*` \| (.*) \|$", DOCS.read_text(), re.MULTILINE)
        assert {name: set(re.findall(r"`(\w+)`", listed)) for name, listed in rows} == {
            name: set(tool.arguments) for name, tool in TOOLS.items()
        }
        for name, listed in rows:
            assert re.findall(r"\*\*`(\w+)`\*\*", listed) == TOOLS[name].listed()["inputSchema"]["required"]

    def test_shows_files_that_can_be_read(self) -> None:
        blocks = re.findall(r"^```(json|toml)\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
        assert len(blocks) == 4
        for kind, text in blocks:
            (json if kind == "json" else tomllib).loads(text)


class TestErrorsAreResultsThatAModelCanRead:
    def test_what_the_token_may_not_do(self, sidecar: Any) -> None:
        support = sidecar.token("helper", "h-1", issue_id="i", agent_class=AgentClass.SUPPORT)
        assert refusal(sidecar, "store_result", token=support, result={"status": "success"})["code"] == "AUTH_003"
        assert refusal(sidecar, "spawn_agent", agent_type="go-specialist")["code"] == "AUTH_003"
        assert refusal(sidecar, "get_context", agent_type="sql-specialist")["code"] == "AUTH_005"

    @pytest.mark.parametrize(
        ("tool", "arguments", "code", "field"),
        [
            ("publish_event", {"event_type": "x"}, "REQ_001", "data"),
            ("publish_event", {"data": {}}, "REQ_001", "event_type"),
            ("publish_event", {"event_type": "../x", "data": {}}, "REQ_001", "event_type"),
            ("publish_event", {"event_type": "x", "data": {}, "ttl_seconds": 0}, "EVT_002", "ttl_seconds"),
            ("wait_for_event", {"typs": "x"}, "REQ_001", "typs"),
            ("wait_for_event", {"filter": "a:", "timeout": 0}, "EVT_003", None),
            ("store_result", {"result": {"status": "splendid"}}, "REQ_001", "result.status"),
            ("get_context", {"requirements": "astrology"}, "CTX_003", None),
            ("agent_status", {"agent_id": "nobody"}, "REQ_404", None),
            ("list_results", {"limit": 0}, "REQ_001", "limit"),
        ],
    )
    def test_what_was_wrong_is_named(
        self, sidecar: Any, tool: str, arguments: dict[str, Any], code: str, field: str | None
    ) -> None:
        error = refusal(sidecar, tool, **arguments)
        assert error["code"] == code
        if field is not None:
            assert error["details"]["field"] == field

    def test_an_agent_without_an_issue_has_to_name_one(self, sidecar: Any) -> None:
        error = refusal(sidecar, "get_context", token=sidecar.token())
        assert (error["code"], error["details"]["field"]) == ("REQ_001", "issue_id")

    def test_an_operator_acts_in_the_project_it_names(self, sidecar: Any) -> None:
        body = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "publish_event", "arguments": {"event_type": "here", "data": {}}},
        }
        headers = {"Authorization": f"Bearer {sidecar.operator_token()}"}
        httpx.post(f"{sidecar.url}/mcp?project_id=other", json=body, headers=headers, verify=False)
        assert sidecar.operator.get("/api/events", params={"project_id": "other"}).json()["total"] == 1
        denied = sidecar.agent().post("/mcp?project_id=other", json=body)
        assert (denied.status_code, denied.json()["error"]["data"]["code"]) == (403, "AUTH_004")
