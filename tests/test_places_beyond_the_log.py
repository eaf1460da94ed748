"""A place that the log has never reached is told to every kind of client: waits, lists, streams, MCP and the CLI.

And over a real server: kill -9, a log that loses its tail, and whoever comes back to it.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sidecar.http.cli.main import main
from tests.served import Served, start_served

AHEAD = "evt-9999999999999999"


def publish(client: Any, count: int = 1) -> list[str]:
    return [client.post("/api/events/done", json={"data": {"n": n}}).json()["event_id"] for n in range(count)]


def ids(answer: dict[str, Any]) -> list[str]:
    return [event["event_id"] for event in answer["events"]]


@pytest.mark.parametrize("path", ["/api/events/wait/done", "/api/events/wait", "/api/events"])
def test_it_is_told_as_a_gap_and_refused_where_the_request_is_strict(sidecar: Any, path: str) -> None:
    published = publish(sidecar.operator)
    query = {"since": AHEAD} | ({"timeout": "0"} if "wait" in path else {})
    told = sidecar.agent().get(path, params=query).json()
    assert (told["gap"]["reason"], told["gap"]["to"]) == ("restart", AHEAD)
    assert ids(told) == published
    refused = sidecar.agent().get(path, params=query | {"strict": "1"})
    assert (refused.status_code, refused.json()["code"]) == (410, "EVT_004")
    assert "gap" not in sidecar.agent().get(path, params=query | {"since": published[0]}).json()


def test_a_stream_begins_with_the_gap_or_is_refused(sidecar: Any) -> None:
    published = publish(sidecar.operator)
    for query, headers in (({}, {"Last-Event-ID": AHEAD}), ({"since": AHEAD}, {})):
        with sidecar.operator.stream("GET", "/api/events/stream", params=query, headers=headers) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "event: gap"
            assert json.loads(next(lines).removeprefix("data: "))["reason"] == "restart"
            assert next(lines) == ""
            assert next(lines) == f"id: {published[0]}"
        refused = sidecar.operator.get("/api/events/stream", params=query | {"strict": "1"}, headers=headers)
        assert refused.status_code == 410


def test_mcp_is_told(sidecar: Any) -> None:
    params = {"name": "wait_for_event", "arguments": {"since": AHEAD, "timeout": 0}}
    answer = sidecar.agent().post(
        "/mcp",
        json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params},
        headers={"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"},
    )
    assert '"reason":"restart"' in answer.text.replace("\\", "")


@pytest.mark.parametrize("command", [("subscribe", "--timeout", "0"), ("list",)])
def test_the_command_line_says_it(sidecar: Any, command: tuple[str, ...]) -> None:
    publish(sidecar.operator)
    env = {"SIDECAR_URL": sidecar.url, "SIDECAR_STORAGE": str(sidecar.storage), "JWT_TOKEN": None}
    done = CliRunner().invoke(main, ["events", *command, "--since", AHEAD], env=env)
    assert done.exit_code == 0, done.output
    assert "the event log has lost events" in done.stderr


def test_after_kill_9_and_a_lost_tail_everybody_is_given_or_told(tmp_path: Path) -> None:
    served = started(tmp_path)
    before = publish(served.client, 12)
    mailbox = {"timeout": 0, "limit": 100}
    assert ids(wait(served, **mailbox)) == before
    wait(served, **mailbox)
    cursor = before[-1]
    served.end(signal.SIGKILL)
    segment = next((tmp_path / "storage" / "events" / "log").glob("seg-*"))
    segment.write_bytes(b"".join(segment.read_bytes().splitlines(True)[:9]))
    again = started(tmp_path)
    after = publish(again.client, 20)
    assert not set(before) & set(after)
    for question in (mailbox, mailbox | {"since": cursor}, mailbox | {"consumer": "newcomer"}):
        answer = wait(again, **question)
        assert ids(answer)[-20:] == after
        gap = answer["gap"]
        assert (gap["reason"], gap["dropped_at_most"]) == ("restart", 6)
        assert gap["from"] == before[5]
        assert gap["to"] >= before[-1]
    (place, _) = again.client.get("/api/mailboxes").json()["mailboxes"]
    assert place["lag"] == 0
    again.end()


def wait(served: Served, **query: Any) -> dict[str, Any]:
    answer = served.client.get("/api/events/wait/done", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def started(folder: Path) -> Served:
    (folder / "project").mkdir(exist_ok=True)
    return start_served(folder / "storage", folder / "project", folder / "log")
