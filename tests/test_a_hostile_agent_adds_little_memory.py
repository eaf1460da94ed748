"""However an agent spends its rate, the server's memory grows by no more than docs/security.md says."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPResponse
from pathlib import Path

import httpx
import psutil
import pytest

from sidecar.http.access.minting import mint_agent_token
from tests.served import Served, start_served

MIB = 1 << 20
CACHES_BYTES = 48 * MIB  # docs/security.md: what is remembered of what clients send
UNREAD_BYTES = 64 * MIB  # docs/security.md: unread answers of one agent, and those being made
LONG = 50_000


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "sidecar.toml").write_text("[limits]\nclasses.qa = {per_minute = 6000, burst = 6000}\n")
    served = start_served(tmp_path / "storage", tmp_path / "project", tmp_path / "log")
    try:
        yield served
    finally:
        served.client.close()
        served.end()


def memory(served: Served) -> int:
    return int(psutil.Process(served.process.pid).memory_info().rss)


def token(served: Served, agent_type: str, agent_id: str) -> str:
    return mint_agent_token(served.storage, {}, agent_type=agent_type, agent_id=agent_id).text


def connected(served: Served) -> socket.socket:
    """A client that has hardly any room for what it does not read."""
    url = httpx.URL(served.url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(30)
    client.connect((url.host, url.port))
    return client


def head(served: Served, path: str, authorization: str) -> bytes:
    host = httpx.URL(served.url).netloc.decode()
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n".encode()


def answered(client: socket.socket, request: bytes) -> int:
    client.sendall(request)
    answer = HTTPResponse(client)
    answer.begin()
    answer.read()
    return answer.status


def test_what_is_remembered_of_what_clients_send_is_bounded(served: Served) -> None:
    support = token(served, "poet", "support")
    with connected(served) as client:
        for path in ("/status", "/nothing", "/api/results"):  # loads what is loaded once
            answered(client, head(served, path, f"Authorization: Bearer {support}\r\n"))
        before = memory(served)
        for number in range(600):
            padded = f"Authorization: Bearer{' ' * (LONG + number)}{support}\r\n"
            assert answered(client, head(served, "/status", padded)) in (200, 429)
            assert answered(client, head(served, f"/{'x' * LONG}{number}", "")) == 404
        for number in range(1400):
            assert answered(client, head(served, "/api/results", f"X-Other: {'x' * 3500}{number // 2}\r\n")) == 401
    assert memory(served) - before < CACHES_BYTES, (memory(served) - before) >> 20


def test_answers_that_an_agent_does_not_read_are_bounded(served: Served) -> None:
    hoarder = token(served, "test-engineer", "hoarder")
    bearer = f"Authorization: Bearer {hoarder}\r\n"
    result = {"agent_id": "hoarder", "agent_type": "test-engineer", "issue_id": "i", "project_id": "default"}
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {hoarder}"}, timeout=30) as agent:
        for _ in range(6):
            body = {**result, "result": {"status": "success", "notes": "x" * MIB}}
            assert agent.post("/api/results", json=body).status_code == 201
        assert len(agent.get("/api/results").content) > 6 * MIB
        before = memory(served)
        with ExitStack() as stack:
            for _ in range(60):
                client = stack.enter_context(connected(served))
                client.sendall(head(served, "/api/results", bearer))
                assert client.recv(15) == b"HTTP/1.1 200 OK"
            assert agent.get("/api/results", params={"limit": 1}).status_code == 200
            assert memory(served) - before < UNREAD_BYTES, (memory(served) - before) >> 20
