"""Logs: fields that programs can read, lines that nobody can forge, and never a secret."""

from __future__ import annotations

import json
import logging
from typing import Any

from sidecar.http.logs import JsonLines, TextLines

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def record(message: str, *args: object, **more: Any) -> logging.LogRecord:
    return logging.LogRecord("sidecar.test", logging.INFO, "x.py", 1, message, args, more.get("exc_info"))


def test_each_key_of_a_message_is_a_field() -> None:
    line = json.loads(JsonLines().format(record("agent exited agent_id=%s exit_code=%d 100%% %s", "a-1", 3, "x")))
    assert (line["agent_id"], line["exit_code"]) == ("a-1", 3)
    assert line["message"] == "agent exited agent_id=a-1 exit_code=3 100% x"
    assert line["timestamp"].endswith("Z")


def test_no_value_begins_a_line_of_its_own() -> None:
    for formatter in (TextLines(), JsonLines()):
        assert "\n" not in formatter.format(record("seen name=%s", "x\n2026-01-01 INFO forged"))


def test_a_failure_keeps_its_traceback() -> None:
    try:
        raise ValueError("no good")
    except ValueError as error:
        line = json.loads(JsonLines().format(record("failed", exc_info=(ValueError, error, error.__traceback__))))
    assert "ValueError: no good" in line["exception"]


def test_a_request_is_logged_with_its_ids_and_without_its_token(sidecar: Any, caplog: Any) -> None:
    token = sidecar.token()
    with caplog.at_level(logging.DEBUG, logger="sidecar.http.exchange"):
        sidecar.client(token, traceparent=TRACE, **{"X-Request-Id": "mine"}).get("/api/agents")
    lines = [json.loads(JsonLines().format(each)) for each in caplog.records]
    (line,) = [each for each in lines if each.get("request_id") == "mine"]
    assert (line["agent_id"], line["trace_id"], line["status"]) == ("agent-1", TRACE.split("-")[1], 200)
    assert token not in json.dumps(lines)


def test_a_request_of_nobody_is_logged_without_what_it_has_not(sidecar: Any, caplog: Any) -> None:
    with caplog.at_level(logging.DEBUG, logger="sidecar.http.exchange"):
        sidecar.client(**{"X-Request-Id": "bare"}).get("/health")
    (said,) = [each.getMessage() for each in caplog.records if "request_id=bare" in each.getMessage()]
    assert said.startswith("request answered request_id=bare method=GET route=/health status=200 took_ms=")
    assert "None" not in said


def test_a_publish_is_logged_with_its_correlation_id(sidecar: Any, caplog: Any) -> None:
    body = {"data": {}, "correlation_id": "round-7"}
    with caplog.at_level(logging.DEBUG, logger="sidecar.http.exchange"):
        sidecar.agent().post("/api/events/step", json=body, headers={"X-Request-Id": "taken"})
        sidecar.agent().post("/api/events/step", json={**body, "ttl_seconds": 0}, headers={"X-Request-Id": "refused"})
        sidecar.agent().get("/api/agents", headers={"X-Request-Id": "other"})
    lines = {line.get("request_id"): line for line in (json.loads(JsonLines().format(each)) for each in caplog.records)}
    assert lines["taken"]["correlation_id"] == lines["refused"]["correlation_id"] == "round-7"
    assert "correlation_id" not in lines["other"]["message"]
    assert "correlation_id" not in lines["other"]
