"""The API's description is exact: each operation lists the statuses it can answer with, and no others.

What it lists it answers when it is provoked to; what it does not list, it does not. See documented.py for the hook
that holds every other test's answers to the description as well.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterable
from typing import Any

import httpx
import pytest

from sidecar.http.mcp.rpc import SELF_CONTAINED
from sidecar.http.routing import MIB
from tests.documented import METHODS, Operation, document, operation_at, operations

JSON_TYPE = {"Content-Type": "application/json"}
RESULT = {"issue_id": "i", "project_id": "default", "result": {"status": "success"}}


def mcp_message(method: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Body and headers of a message that stands for itself.

    With the handshake of the protocol, what concerns a message alone is answered with 200.
    """
    version = SELF_CONTAINED[-1]
    meta = {"io.modelcontextprotocol/protocolVersion": version, "io.modelcontextprotocol/clientCapabilities": {}}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta}}
    return body, {"MCP-Protocol-Version": version, "Mcp-Method": method}


def named(asked: Iterable[Operation]) -> list[str]:
    return sorted(map(repr, asked))


def listing(status: int) -> list[str]:
    return named(each for each in operations() if status in each.statuses)


def answering(status: int, ask: Callable[[Operation], httpx.Response | int]) -> list[str]:
    """The operations that answer with the status when they are asked so."""
    return named(each for each in operations() if status_of(ask(each)) == status)


def status_of(answer: httpx.Response | int) -> int:
    return answer if isinstance(answer, int) else answer.status_code


def body_of(operation: Operation, sidecar: Any) -> dict[str, Any] | None:
    """A body that the operation takes."""
    if "requestBody" not in operation.about:
        return None
    bodies: dict[str, dict[str, Any]] = {
        "/api/agents/spawn": {"agent_type": "python-specialist", "issue_id": "i"},
        "/api/auth/login": {"token": sidecar.operator_token()},
        "/api/events/{event_type}": {"data": {}},
        "/api/results": {"agent_id": "operator", "agent_type": "operator", **RESULT},
    }
    return bodies.get(operation.path, mcp_message("tools/list")[0])


def asker(sidecar: Any, client: httpx.Client, **query: str) -> Callable[[Operation], httpx.Response]:
    """Asks an operation well, but for what `client` and `query` bring along."""

    def ask(operation: Operation) -> httpx.Response:
        waits = {"timeout": "0"} if operation.path.startswith("/api/events/wait") else {}
        if operation.path == "/api/proof":
            waits = {"nonce": "0" * 64, "address": f"127.0.0.1:{sidecar.sidecar.port}"}
        url, body = operation.url(), body_of(operation, sidecar)
        headers = mcp_message("tools/list")[1] if operation.about["tags"] == ["mcp"] else {}
        with client.stream(operation.method, url, params={**waits, **query}, json=body, headers=headers) as answer:
            if operation.path != "/api/events/stream" or answer.status_code != 200:
                answer.read()
        client.cookies.clear()  # logging in must not count for what is asked next
        return answer

    return ask


def only_head(sidecar: Any, lines: str) -> Callable[[Operation], int]:
    """Sends the head of a request and no more; the status of what comes back."""
    token = sidecar.operator_token()

    def ask(operation: Operation) -> int:
        head = (
            f"{operation.method} {operation.url()} HTTP/1.1\r\nHost: 127.0.0.1:{sidecar.sidecar.port}\r\n"
            f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n{lines}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", sidecar.sidecar.port), timeout=10) as sock:
            sock.sendall(head.encode())
            return int(sock.makefile("rb").readline().split()[1])

    return ask


class TestStatusesThatFollowFromTheTable:
    def test_400_for_a_query_field_that_nobody_knows(self, sidecar: Any) -> None:
        assert answering(400, asker(sidecar, sidecar.operator, nonsense="1")) == listing(400)

    def test_401_without_a_token(self, sidecar: Any) -> None:
        ask = asker(sidecar, sidecar.client())
        known = set(listing(401))
        # Open, but for a token in its body; open to this machine.
        elsewhere = {"POST /api/auth/login", "GET /metrics"}
        assert set(answering(401, ask)) == known - elsewhere
        assert sidecar.client().post("/api/auth/login", json={"token": "x"}).status_code == 401

    def test_403_under_another_name(self, sidecar: Any) -> None:
        client = sidecar.client(sidecar.operator_token(), Host="evil.example")
        assert answering(403, asker(sidecar, client)) == listing(403)

    def test_413_for_a_body_over_the_limit(self, sidecar: Any) -> None:
        assert answering(413, only_head(sidecar, f"Content-Length: {11 * MIB}")) == listing(413)

    def test_415_for_a_body_that_is_not_json(self, sidecar: Any) -> None:
        def ask(operation: Operation) -> httpx.Response | int:
            if operation.path == "/api/events/stream":
                return 200
            return sidecar.operator.request(  # type: ignore[no-any-return]
                operation.method, operation.url(), content=b"x", headers={"Content-Type": "text/plain"},
                params={"timeout": "0"} if operation.path.startswith("/api/events/wait") else {},
            )  # fmt: skip

        assert answering(415, ask) == listing(415)

    def test_429_over_the_limit(self, start_sidecar: Any) -> None:
        sidecar = start_sidecar("[limits.classes]\noperator = {per_minute = 1}\n")
        sidecar.operator.get("/status")
        known = set(listing(429))
        assert set(answering(429, asker(sidecar, sidecar.operator))) == known - {"GET /metrics"}

    def test_431_and_501_for_what_cannot_be_read(self, sidecar: Any) -> None:
        assert answering(431, only_head(sidecar, f"X-Big: {'x' * 100_000}")) == listing(431)
        assert answering(501, only_head(sidecar, "Transfer-Encoding: gzip")) == listing(501)

    def test_500_when_it_fails_in_a_way_nobody_expected(self, sidecar: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("sidecar.http.admission.read_query", fail)
        assert answering(500, asker(sidecar, sidecar.operator)) == listing(500)


class TestStatusesThatRoutesDeclare:
    def test_404_for_an_id_or_a_project_that_is_not_there(self, start_sidecar: Any, tmp_path: Any) -> None:
        sidecar = start_sidecar(f"[projects.default]\nroot = '{tmp_path}/project'\n")
        ask = asker(sidecar, sidecar.operator, project_id="other")

        def asked(operation: Operation) -> httpx.Response | int:
            if operation.about["tags"] == ["mcp"]:
                body, headers = mcp_message("unknown")
                return sidecar.operator.post(operation.path, json=body, headers=headers)  # type: ignore[no-any-return]
            if "security" not in operation.about:
                return sidecar.operator.get(operation.url())  # type: ignore[no-any-return]
            return ask(operation)

        assert answering(404, asked) == listing(404)

    def test_503_when_the_actors_are_gone(self, sidecar: Any) -> None:
        sidecar.sidecar.server.actor_statuses.__self__.stop()  # the supervisor
        assert answering(503, asker(sidecar, sidecar.operator)) == listing(503)

    def test_304_for_what_is_known_already(self, sidecar: Any) -> None:
        def ask(operation: Operation) -> httpx.Response | int:
            if operation.path == "/api/events/stream" or operation.method != "GET":
                return 200
            url = operation.url(issue_id="i", agent_type="python-specialist", asset="style.css")
            wait = {"timeout": "0"} if operation.path.startswith("/api/events/wait") else {}
            first = sidecar.operator.get(url, params=wait)
            tag = {"If-None-Match": first.headers.get("ETag", "none")}
            return sidecar.operator.get(url, params=wait, headers=tag)  # type: ignore[no-any-return]

        assert answering(304, ask) == listing(304)

    def test_success(self, sidecar: Any) -> None:
        """Each operation's first status is reached, but for those on things that have to be there first."""
        on_things = {404, 409}
        ask = asker(sidecar, sidecar.operator)
        for operation in operations():
            answer = ask(operation)
            assert answer.status_code < 300 or answer.status_code in on_things & operation.statuses, operation


class TestCodesThatRoutesDeclare:
    """Each code of one route's own is answered by exactly those operations that list it."""

    def holds(self, code: str, provoked: dict[str, httpx.Response]) -> None:
        for operation, answer in provoked.items():
            assert answer.json()["code"] == code, (operation, answer.text)
        listed = {repr(each) for each in operations() for status in each.statuses if code in each.codes(status)}
        assert provoked.keys() == listed

    def test_another_body_under_the_same_key(self, sidecar: Any) -> None:
        client = sidecar.client(sidecar.operator_token(), **{"Idempotency-Key": "once"})
        own = {"agent_id": "operator", "agent_type": "operator", **RESULT}
        spawn = {"agent_type": "python-specialist", "issue_id": "i"}

        def twice(path: str, first: dict[str, Any], second: dict[str, Any]) -> httpx.Response:
            assert client.post(path, json=first).is_success
            answer: httpx.Response = client.post(path, json=second)
            return answer

        self.holds(
            "REQ_409",
            {
                "POST /api/agents/spawn": twice("/api/agents/spawn", spawn, {**spawn, "issue_id": "j"}),
                "POST /api/events/{event_type}": twice("/api/events/x", {"data": {}}, {"data": {"a": 1}}),
                "POST /api/results": twice("/api/results", own, {**own, "issue_id": "j"}),
            },
        )

    def test_an_agent_that_is_not_in_a_state_for_that(self, start_sidecar: Any) -> None:
        sidecar = start_sidecar("[agents]\nmax_concurrent = 1\n")
        ended = sidecar.spawn("python-specialist")["agent_id"]
        sidecar.wait_for("agent_exited")
        sidecar.spawn("go-specialist")
        queued = sidecar.spawn("go-specialist")["agent_id"]
        self.holds(
            "AGT_003",
            {
                "DELETE /api/agents/{agent_id}": sidecar.operator.delete(f"/api/agents/{ended}"),
                "POST /api/agents/{agent_id}/restart": sidecar.operator.post(f"/api/agents/{queued}/restart"),
            },
        )

    def test_a_type_without_a_command(self, sidecar: Any) -> None:
        body = {"agent_type": "test-engineer", "issue_id": "i"}
        self.holds("AGT_002", {"POST /api/agents/spawn": sidecar.operator.post("/api/agents/spawn", json=body)})

    def test_a_program_that_cannot_be_started(self, start_sidecar: Any, tmp_path: Any) -> None:
        program = tmp_path / "program"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        sidecar = start_sidecar(f"[profiles.test-engineer]\ncommand = ['{program}']\n")
        agent_id = sidecar.spawn("test-engineer")["agent_id"]
        sidecar.wait_for("agent_exited", f"agent_id:{agent_id}")
        program.unlink()
        body = {"agent_type": "test-engineer", "issue_id": "i"}
        self.holds(
            "AGT_001",
            {
                "POST /api/agents/spawn": sidecar.operator.post("/api/agents/spawn", json=body),
                "POST /api/agents/{agent_id}/restart": sidecar.operator.post(f"/api/agents/{agent_id}/restart"),
            },
        )

    def test_what_is_not_the_tokens(self, sidecar: Any) -> None:
        agent = sidecar.agent()
        own = {"agent_id": "agent-2", "agent_type": "python-specialist", **RESULT}
        self.holds(
            "AUTH_005",
            {
                "GET /api/context/{issue_id}/{agent_type}": agent.get("/api/context/i/test-engineer"),
                "POST /api/agents/{agent_id}/heartbeat": agent.post("/api/agents/agent-2/heartbeat"),
                "POST /api/events/{event_type}": agent.post("/api/events/x", json={"data": {}, "publisher": "agent-2"}),
                "POST /api/results": agent.post("/api/results", json=own),
            },
        )

    def test_events_that_cannot_be_filtered_or_are_gone(self, start_sidecar: Any) -> None:
        sidecar = start_sidecar("[events]\nmax_events = 2\n")
        agent = sidecar.agent()
        first, *_ = [agent.post("/api/events/x", json={"data": {}}).json()["event_id"] for _ in range(5)]
        waits = {
            "GET /api/events/wait": "/api/events/wait",
            "GET /api/events/wait/{event_type}": "/api/events/wait/x",
        }
        reads = {**waits, "GET /api/events": "/api/events", "GET /api/events/stream": "/api/events/stream"}
        gone = {"since": first, "strict": "1"}
        self.holds("EVT_003", {name: agent.get(path, params={"filter": ":"}) for name, path in reads.items()})
        refused = {
            name: agent.get(path, params=gone | ({"timeout": "0"} if name in waits else {}))
            for name, path in reads.items()
        }
        self.holds("EVT_004", refused)
        unlike = agent.post("/api/events/x", json={"data": {}, "event_type": "y"})
        self.holds("EVT_002", {"POST /api/events/{event_type}": unlike})

    def test_contexts_that_cannot_be_built(self, sidecar: Any) -> None:
        path, operation = "/api/context/i/python-specialist", "GET /api/context/{issue_id}/{agent_type}"
        self.holds("CTX_003", {operation: sidecar.agent().get(path, params={"requirements": "everything"})})
        shutil.rmtree(sidecar.project)
        self.holds("CTX_001", {operation: sidecar.agent().get(path)})


class TestTheRest:
    def test_another_method_is_405_and_those_listed_are_allowed(self, sidecar: Any) -> None:
        for path, methods in document()["paths"].items():
            listed = {method.upper() for method in methods}
            url = Operation("", path, {}, {}).url()
            for method in set(METHODS) - listed:
                if operation_at(method, url) is not None:  # it is at another path, that has a part there
                    continue
                answer = sidecar.operator.request(method, url)
                assert answer.status_code == 405, (method, path)
                assert set(answer.headers["Allow"].split(", ")) >= listed, (method, path)

    def test_head_is_get_without_its_body(self, sidecar: Any) -> None:
        for operation in operations():
            if operation.method == "GET" and operation.path != "/api/events/stream":
                waits = {"timeout": "0"} if operation.path.startswith("/api/events/wait") else {}
                got, headed = (
                    sidecar.operator.request(each, operation.url(), params=waits) for each in ("GET", "HEAD")
                )
                assert headed.status_code == got.status_code, operation
                assert headed.headers.get("Content-Type") == got.headers.get("Content-Type"), operation
                assert headed.content == b"", operation

    def test_every_operation_has_a_name_a_tag_and_what_it_needs(self) -> None:
        names = [each.about["operationId"] for each in operations()]
        assert len(set(names)) == len(names)
        tags = {tag["name"] for tag in document()["tags"]}
        for each in operations():
            assert set(each.about["tags"]) <= tags
            assert each.about["summary"].endswith("."), each
            assert ("security" in each.about) == (401 in each.statuses and each.path != "/api/auth/login"), each

    def test_is_a_valid_openapi_document_for_others_to_read(self, sidecar: Any) -> None:
        text = sidecar.client().get("/openapi.json").text
        refs = {part.split('"')[0] for part in text.split('"$ref":"')[1:]}
        for ref in refs:
            found: Any = json.loads(text)
            for step in ref.removeprefix("#/").split("/"):
                found = found[step]
            assert found
