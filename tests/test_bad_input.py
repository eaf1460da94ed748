"""Bad input gets a clear error that names the thing; nothing of it is kept, and the server goes on."""

from __future__ import annotations

import json
import re
import socket
import ssl
from typing import Any

import pytest

RESULT = {"agent_id": "agent-1", "agent_type": "python-specialist", "issue_id": "i", "project_id": "default"}
STATUS = {"result": {"status": "success"}}
JSON = {"Content-Type": "application/json"}


def refused(answer: Any, status: int, code: str, field: str | None = None) -> dict[str, Any]:
    """The body of an error answer in the one shape, with this status and code."""
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    assert set(body) == {"error", "message", "code", "details", "timestamp", "request_id"}
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert answer.headers["Content-Type"] == "application/json"
    assert "Traceback" not in answer.text
    if field is not None:
        assert body["details"]["field"] == field
        assert body["details"]["expected"]
    return body


BODIES = [
    (b"", "body"),
    (b"{", "body"),
    (b"[]", "body"),
    (b"null", "body"),
    (b"nonsense", "body"),
    (b'{"data": {}} {}', "body"),
    (b'\xef\xbb\xbf{"data": {}}', "body"),
    (b'{"data": {"a": NaN}}', "body"),
    (b'{"data": {"a": Infinity}}', "body"),
    (b'{"data": {"a": 01}}', "body"),
    (b'{"data": {}, "topic": "\xff"}', "body"),
    (b'{"data": {"a": "\xff"}}', "data"),
    (b'{"data": {"a": 1e999}}', "data"),
    (b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "body"),
    (b'{"data": ' + b'{"a":' * 40_000 + b"1" + b"}" * 40_000 + b"}", "body"),
    (b'{"data": ' + b'{"a":' * 980 + b"1" + b"}" * 980 + b"}", "data"),
    (b'{"data": ' + b'{"a":' * 129 + b"1" + b"}" * 129 + b"}", "data"),
    (b"{}", "data"),
    (b'{"data": 1}', "data"),
    (b'{"data": []}', "data"),
    (b'{"data": null}', "data"),
    (b'{"data": {}, "topic": 7}', "topic"),
    (b'{"data": {}, "topic": "../etc"}', "topic"),
    (b'{"data": {}, "topic": ""}', "topic"),
    (b'{"data": {}, "topic": "a\\u0000b"}', "topic"),
    (b'{"data": {}, "priority": "urgent"}', "priority"),
    (b'{"data": {}, "ttl_seconds": "1"}', "ttl_seconds"),
    (b'{"data": {}, "ttl_seconds": 1.5}', "ttl_seconds"),
    (b'{"data": {}, "correlation_id": 5}', "correlation_id"),
]


@pytest.mark.parametrize(("raw", "field"), BODIES, ids=lambda value: repr(value)[:40])
def test_a_body_that_is_no_event_is_refused_by_field(sidecar: Any, raw: bytes, field: str) -> None:
    answer = sidecar.operator.post("/api/events/done", content=raw, headers=JSON)
    refused(answer, 400, "REQ_001", field)
    assert sidecar.operator.get("/api/events").json()["total"] == 0


def test_what_is_as_deep_as_may_be_is_taken_and_can_be_read(sidecar: Any) -> None:
    body = {"data": {"a": nested(127), "brackets in a text": "[{" * 1000 + '"'}}
    assert sidecar.operator.post("/api/events/deep", json=body).status_code == 202
    assert sidecar.operator.get("/api/events/wait/deep?timeout=0&filter=b:1").json()["events"] == []
    assert sidecar.operator.get("/api/events?type=deep").json()["events"][0]["data"] == body["data"]
    result = {**RESULT, "result": {"status": "success", "decisions": [{"a": nested(125)}] * 9}}
    assert sidecar.agent().post("/api/results", json=result).status_code == 201
    assert sidecar.operator.get("/api/results").json()["results"][0]["result"] == result["result"]
    assert sidecar.agent().get("/api/context/i/python-specialist").status_code == 200


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"event_type": "other"}, "event_type"),
        ({"ttl_seconds": 0}, "ttl_seconds"),
        ({"ttl_seconds": 86401}, "ttl_seconds"),
    ],
)
def test_an_event_that_cannot_be_is_refused_as_an_event(sidecar: Any, extra: dict[str, Any], field: str) -> None:
    refused(sidecar.operator.post("/api/events/done", json={"data": {}, **extra}), 400, "EVT_002", field)


NONE_OF_A_FEW = [
    ("/api/events/done", {"data": {}, "priority": "urgent"}, "priority", ["high", "low", "normal"]),
    ("/api/agents/spawn", {"agent_type": "a", "issue_id": "i", "priority": 1}, "priority", "str | null"),
]


@pytest.mark.parametrize(("path", "body", "field", "expected"), NONE_OF_A_FEW)
def test_what_is_none_of_a_few_values_is_told_those(
    sidecar: Any, path: str, body: dict[str, Any], field: str, expected: object
) -> None:
    error = refused(sidecar.operator.post(path, json=body), 400, "REQ_001", field)
    told = error["details"]["expected"]
    assert (sorted(told) if isinstance(told, list) else told) == expected


def test_a_result_or_query_that_is_none_of_a_few_values_is_told_those(sidecar: Any) -> None:
    answer = sidecar.agent().post("/api/results", json={**RESULT, "result": {"status": "happy"}})
    error = refused(answer, 400, "REQ_001", "result.status")
    assert sorted(error["details"]["expected"]) == ["failed", "partial", "success"]
    error = refused(sidecar.operator.get("/api/results?status=happy"), 400, "REQ_001", "status")
    assert sorted(error["details"]["expected"]) == ["failed", "partial", "success"]


MISSPELT = [
    ("/api/events/done", {"data": {}, "corelation_id": "x"}, "corelation_id", "correlation_id"),
    ("/api/results", {**RESULT, **STATUS, "timestmp": "x"}, "timestmp", "timestamp"),
    ("/api/agents/spawn", {"agent_type": "a", "issue_id": "i", "prio": "high"}, "prio", "priority"),
]


@pytest.mark.parametrize(("path", "body", "field", "nearest"), MISSPELT)
def test_a_misspelt_field_is_named_with_the_nearest_known(
    sidecar: Any, path: str, body: dict[str, Any], field: str, nearest: str
) -> None:
    error = refused(sidecar.operator.post(path, json=body), 400, "REQ_001", field)
    assert error["details"]["expected"] == nearest
    assert nearest in error["message"]


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


RESULTS = [
    ({**RESULT}, "result"),
    ({**STATUS, **{name: value for name, value in RESULT.items() if name != "agent_id"}}, "agent_id"),
    ({**STATUS, **{name: value for name, value in RESULT.items() if name != "project_id"}}, "project_id"),
    ({**RESULT, "result": {}}, "result.status"),
    ({**RESULT, "result": {"status": "done"}}, "result.status"),
    ({**RESULT, "result": "success"}, "result"),
    ({**RESULT, "result": {"status": "success", "files_created": "a.py"}}, "result.files_created"),
    ({**RESULT, "result": {"status": "success", "files_created": [{"size": 1}]}}, "result.files_created[0].path"),
    ({**RESULT, "result": {"status": "success", "decisions": "none"}}, "result.decisions"),
    ({**RESULT, "result": {"status": "success", "metrics": []}}, "result.metrics"),
    ({**RESULT, **STATUS, "issue_id": "a b"}, "issue_id"),
    ({**RESULT, **STATUS, "issue_id": "x" * 129}, "issue_id"),
    ({**RESULT, **STATUS, "project_id": "../x"}, "project_id"),
    ({**RESULT, **STATUS, "timestamp": "yesterday"}, "timestamp"),
    ({**RESULT, **STATUS, "timestamp": "2026-01-01T00:00:00"}, "timestamp"),
    ({**RESULT, **STATUS, "timestamp": "9999-12-31T23:59:59-23:00"}, "timestamp"),
    ({**RESULT, **STATUS, "agent_id": "a b"}, "agent_id"),
    ({**RESULT, **STATUS, "agent_type": ""}, "agent_type"),
    ({**RESULT, "result": {"status": "success", "decisions": nested(128)}}, "result"),
]


@pytest.mark.parametrize(("body", "field"), RESULTS, ids=lambda value: str(value)[-50:])
def test_a_result_that_is_none_is_refused_by_field(sidecar: Any, body: dict[str, Any], field: str) -> None:
    refused(sidecar.agent().post("/api/results", json=body), 400, "REQ_001", field)
    assert sidecar.operator.get("/api/results").json()["total"] == 0


QUERIES = [
    ("/api/events/wait/done", "timeout=soon", "timeout"),
    ("/api/events/wait/done", "timeout=-1", "timeout"),
    ("/api/events/wait/done", "timeout=nan", "timeout"),
    ("/api/events/wait/done", "timout=1", "timout"),
    ("/api/events/wait/done", "limit=0", "limit"),
    ("/api/events/wait/done", "limit=100000", "limit"),
    ("/api/events/wait/done", "consumer=a/b", "consumer"),
    ("/api/events/wait/done", "timeout=1&timeout=2", "timeout"),
    ("/api/events/wait/done", "ack=undefined", "ack"),
    ("/api/events", "cursor=a", "cursor"),
    ("/api/results", "since=0001-01-01T00:00:00%2B23:00", "since"),
    ("/api/results", "until=9999-12-31T23:59:59-23:00", "until"),
    ("/api/events/wait", "types=a,,b", "types"),
    ("/api/events/wait", "types=a,b%20c", "types"),
    ("/api/events/wait", "topics=../etc", "topics"),
    ("/api/events", "topic=a/b", "topic"),
    ("/api/results", "status=done", "status"),
    ("/api/results", "since=yesterday", "since"),
    ("/api/events", "since=yesterday", "since"),
    ("/api/results", "limit=1.5", "limit"),
    ("/api/results", "isue_id=x", "isue_id"),
    ("/api/results", "cursor=made-up", "cursor"),
    ("/api/results", "project_id=%2e%2e", "project_id"),
    ("/api/results", "issue_id=%ff", "query"),
    ("/api/results", "&".join(f"a{n}=1" for n in range(100)), "query"),
    ("/api/agents/x/logs", "stream=both", "stream"),
    ("/api/agents/x/logs", "offset=null", "offset"),
    ("/api/agents/x/logs", "timeout=nan", "timeout"),
    ("/api/agents/x/logs", "timeout=-1", "timeout"),
]


@pytest.mark.parametrize(("path", "query", "field"), QUERIES)
def test_a_query_field_that_is_wrong_is_named(sidecar: Any, path: str, query: str, field: str) -> None:
    refused(sidecar.operator.get(f"{path}?{query}"), 400, "REQ_001", field)


@pytest.mark.parametrize("bad", ["a:", ":b", "a:1,", 'a:"x', "a:>x", "nonsense"])
def test_a_bad_filter_is_refused_with_its_position(sidecar: Any, bad: str) -> None:
    for path in ("/api/events/wait/done", "/api/events"):
        error = refused(sidecar.operator.get(path, params={"filter": bad}), 400, "EVT_003")
        assert isinstance(error["details"]["position"], int)


@pytest.mark.parametrize("query", ["requirements=everything", "files=../../etc/passwd", "files=/etc/passwd"])
def test_a_context_nobody_can_build_is_refused(sidecar: Any, query: str) -> None:
    refused(sidecar.agent().get(f"/api/context/i/python-specialist?{query}"), 400, "CTX_003")


PATHS = [
    "/api/results/..%2F..%2Fetc%2Fpasswd",
    "/api/results/..%5C..%5Cetc",
    "/api/results/a%00b",
    "/api/results/%ff",
    "/api/results/../../etc/passwd",
    "/api/results/%2e%2e",
    "/api/results/a%20b",
    "/api/results/-a",
    "/api/results/" + "a" * 129,
    "/api/results/%C3%A4",
    "/api/context/..%2F/python-specialist",
    "/api/events/wait/a%2Fb",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_with_a_bad_identifier_is_refused(sidecar: Any, path: str) -> None:
    status, headers, body = raw_request(sidecar, f"GET {path} HTTP/1.1\r\n{whole_head(sidecar)}\r\n")
    assert (status, json.loads(body)["code"]) == (400, "REQ_001")
    assert headers["x-request-id"] == json.loads(body)["request_id"]


@pytest.mark.parametrize(
    "path", ["/nothing", "/api", "/api/", "/api/results/", "/api/nothing", "/api/agents/x/nothing"]
)
def test_what_is_not_there_is_404_in_our_shape(sidecar: Any, path: str) -> None:
    status, _, body = raw_request(sidecar, f"GET {path} HTTP/1.1\r\n{whole_head(sidecar)}\r\n")
    assert (status, json.loads(body)["code"]) == (404, "REQ_404")


def test_another_method_is_405_and_says_which_are_allowed(sidecar: Any) -> None:
    answer = sidecar.operator.put("/api/results", json={})
    refused(answer, 405, "REQ_405")
    assert answer.headers["Allow"] == "GET, POST"
    assert sidecar.operator.request("PATCH", "/api/events/done").headers["Allow"] == "POST"


def test_a_client_of_https_is_told_at_once_that_the_port_speaks_plain_http(sidecar: Any) -> None:
    hello = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    status, headers, body = raw_request(sidecar, hello.read().decode("latin-1"))
    assert (status, headers["connection"]) == (400, "close")
    assert json.loads(body)["message"] == "the request cannot be read: it is TLS, and this port speaks plain HTTP"


@pytest.mark.parametrize(
    "type_", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None]
)
def test_a_body_that_is_not_declared_as_json_is_415(sidecar: Any, type_: str | None) -> None:
    headers = {"Content-Type": type_} if type_ is not None else {}
    answer = sidecar.operator.post("/api/events/done", content=b'{"data": {}}', headers=headers)
    refused(answer, 415, "REQ_415")


@pytest.mark.parametrize("type_", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_json_goes_by_its_usual_names(sidecar: Any, type_: str) -> None:
    answer = sidecar.operator.post("/api/events/done", content=b'{"data": {}}', headers={"Content-Type": type_})
    assert answer.status_code == 202


# --- Sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "limit"), [("/api/events/done", 256 * 1024), ("/api/results", 10 * 1024 * 1024)])
def test_a_body_over_the_limit_is_refused_before_it_is_read(sidecar: Any, path: str, limit: int) -> None:
    head = f"POST {path} HTTP/1.1\r\n{whole_head(sidecar)}Content-Type: application/json\r\n"
    # Only the head is sent: an answer can come only if the body was not waited for.
    status, _, body = raw_request(sidecar, f"{head}Content-Length: {limit + 1}\r\n\r\n")
    assert (status, json.loads(body)["code"]) == (413, "REQ_413")
    assert str(limit) in body


@pytest.mark.parametrize("asked", ["mine-2", "not sane"])
def test_a_refused_request_has_the_id_that_its_client_gave_it(sidecar: Any, asked: str) -> None:
    head = (
        f"POST /api/events/t1 HTTP/1.1\r\n{whole_head(sidecar)}X-Request-Id: {asked}\r\nContent-Length: 300000\r\n\r\n"
    )
    status, headers, body = raw_request(sidecar, head)
    assert (status, json.loads(body)["request_id"]) == (413, headers["x-request-id"])
    assert (headers["x-request-id"] == asked) == (asked == "mine-2")


def test_a_chunked_body_over_the_limit_is_refused(sidecar: Any) -> None:
    def chunks() -> Any:
        for _ in range(400):
            yield b"x" * 1024

    answer = sidecar.operator.post("/api/events/done", content=chunks(), headers=JSON)
    refused(answer, 413, "REQ_413")
    assert sidecar.operator.get("/health").status_code == 200


def test_a_body_of_just_the_limit_is_taken(sidecar: Any) -> None:
    body = json.dumps({"data": {"text": "x" * (256 * 1024 - 22)}}).encode()
    assert len(body) == 256 * 1024
    assert sidecar.operator.post("/api/events/done", content=body, headers=JSON).status_code == 202


def test_huge_headers_are_431(sidecar: Any) -> None:
    status, headers, body = raw_request(
        sidecar, f"GET /health HTTP/1.1\r\n{whole_head(sidecar)}X-Big: {'x' * 200_000}\r\n\r\n"
    )
    assert (status, json.loads(body)["code"]) == (431, "REQ_001")
    assert headers["x-request-id"]


@pytest.mark.parametrize(
    "head",
    [
        "GARBAGE\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET /health HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
        "POST /api/results HTTP/1.1\r\nContent-Length: abc\r\n\r\n",
        "POST /api/results HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST /api/results HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_a_clean_answer(sidecar: Any, head: str) -> None:
    status, _, body = raw_request(sidecar, head)
    assert status in (400, 501)
    assert json.loads(body)["code"] == "REQ_001"


# --- Host -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "localhost", "0.0.0.0:{port}", ""]
)
def test_a_page_that_rebinds_its_name_to_loopback_gets_nothing(sidecar: Any, host: str) -> None:
    headers = {"Host": host.format(port=sidecar.sidecar.port)}
    for path in ("/health", "/status", "/metrics", "/nothing"):
        refused(sidecar.operator.get(path, headers=headers), 403, "AUTH_003", "Host")


@pytest.mark.parametrize("host", ["localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}", "LocalHost:{port}"])
def test_our_own_names_are_served(sidecar: Any, host: str) -> None:
    headers = {"Host": host.format(port=sidecar.sidecar.port)}
    assert sidecar.operator.get("/health", headers=headers).status_code == 200


# --- Request ids, secrets ---------------------------------------------------------------------------------------


def test_a_sane_request_id_comes_back_and_another_is_replaced(sidecar: Any) -> None:
    for path in ("/health", "/nothing", "/api/results"):
        answer = sidecar.client().get(path, headers={"X-Request-Id": "trace-1"})
        assert answer.headers["X-Request-Id"] == "trace-1"
    for odd in ("a b", "x" * 200, "<script>"):
        given = sidecar.client().get("/health", headers={"X-Request-Id": odd}).headers["X-Request-Id"]
        assert re.fullmatch(r"req-[0-9a-f]{16}", given)


def test_a_fault_nobody_expected_shows_nothing_of_the_inside(sidecar: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret of the inside")

    monkeypatch.setattr("sidecar.http.routes.ops.disk_free_bytes", fail)
    answer = sidecar.client().get("/health")
    refused(answer, 500, "SRV_001")
    assert "ZeroDivision" not in answer.text
    assert "inside" not in answer.text


# --- Raw HTTP ---------------------------------------------------------------------------------------------------


def whole_head(sidecar: Any) -> str:
    return f"Host: 127.0.0.1:{sidecar.sidecar.port}\r\nAuthorization: Bearer {sidecar.operator_token()}\r\n"


def raw_request(sidecar: Any, text: str) -> tuple[int, dict[str, str], str]:
    """Status, headers (lower case) and body of the answer to these very bytes."""
    with socket.create_connection(("127.0.0.1", sidecar.sidecar.port), timeout=10) as sock:
        sock.sendall(text.encode("latin-1"))
        file = sock.makefile("rb")
        status = int(file.readline().split()[1])
        headers = {}
        while (line := file.readline().decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, file.read(int(headers.get("content-length", 0))).decode()
