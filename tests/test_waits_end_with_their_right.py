"""A wait or a stream ends when the token or the browser session that allowed it does, and not before."""

from __future__ import annotations

import json
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sidecar.http.access.auth import Authenticator
from sidecar.http.access.holds import MAX_STREAMS, Hold, Holds
from sidecar.http.access.sessions import Session, Sessions
from sidecar.state.errors import SidecarError, TokenExpired, Unauthorized
from sidecar.state.identity import Caller, Permission, Revocations, TokenKey
from sidecar.state.models import AgentId
from tests.fleet import wait_until

WITHIN_S = 10.0  # each is over in about a second; a test that fails waits this long
LONG_MS = 120_000

WAITS = {
    "mailbox": ("GET", "/api/events/wait/never", {"timeout": LONG_MS}),
    "since": ("GET", "/api/events/wait/never", {"timeout": LONG_MS, "since": "latest"}),
    "many": ("GET", "/api/events/wait", {"topics": "nothing", "timeout": LONG_MS}),
}


def asked(client: httpx.Client, agent_id: str, pool: ThreadPoolExecutor) -> dict[str, Future[httpx.Response]]:
    """Every kind of wait, asked and not answered yet."""
    logs = f"/api/agents/{agent_id}/logs"
    read = wait_until(lambda: answer if (answer := client.get(logs).json())["data"] else None)
    waiting = {
        name: pool.submit(client.request, method, path, params=params) for name, (method, path, params) in WAITS.items()
    }
    waiting["log"] = pool.submit(client.get, logs, params={"offset": read["next_offset"], "timeout": 60})
    call = {"name": "wait_for_event", "arguments": {"types": "never", "timeout": LONG_MS, "consumer": "mcp"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    waiting["mcp"] = pool.submit(client.post, "/mcp", json=message)
    return waiting


def outcomes(waiting: dict[str, Future[httpx.Response]]) -> dict[str, tuple[int, str]]:
    answers = {name: future.result(timeout=WITHIN_S) for name, future in waiting.items()}
    return {name: (answer.status_code, _code(answer)) for name, answer in answers.items()}


def _code(answer: httpx.Response) -> str:
    body = answer.json()
    return str(body["error"]["data"]["code"] if "jsonrpc" in body else body["code"])


def parked(sidecar: Any, count: int) -> None:
    wait_until(lambda: len(sidecar.sidecar.server.holds) >= count)


class Streamed:
    """An event stream that a thread reads to its end."""

    def __init__(self, client: httpx.Client, pool: ThreadPoolExecutor) -> None:
        self.is_open = threading.Event()
        self._ended = pool.submit(self._read, client)
        assert self.is_open.wait(WITHIN_S)

    def _read(self, client: httpx.Client) -> str:
        with client.stream("GET", "/api/events/stream") as answer:
            assert answer.status_code == 200
            self.is_open.set()
            return answer.read().decode()

    def text(self) -> str:
        """All that it was sent, once it has ended."""
        return self._ended.result(timeout=WITHIN_S)


def test_they_end_when_the_agent_is_stopped(sidecar: Any) -> None:
    spawned = sidecar.spawn("go-specialist")
    client = sidecar.client(spawned["jwt_token"])
    with ThreadPoolExecutor(8) as pool:
        waiting = asked(client, spawned["agent_id"], pool)
        stream = Streamed(client, pool)
        others = Streamed(sidecar.operator, pool)
        parked(sidecar, len(waiting) + 2)
        sidecar.operator.delete(f"/api/agents/{spawned['agent_id']}", params={"force": "true"})
        assert outcomes(waiting) == dict.fromkeys(waiting, (401, "AUTH_001"))
        assert "event-of-later" not in stream.text()
        sidecar.operator.post("/api/events/event-of-later", json={"data": {}})
        sidecar.sidecar.server.draining.set()  # ends the stream that was not to be ended, at its next event
        sidecar.operator.post("/api/events/last", json={"data": {}})
        assert "event-of-later" in others.text()
    assert len(sidecar.sidecar.server.holds) == 0


def test_they_end_when_the_agent_is_restarted(sidecar: Any) -> None:
    spawned = sidecar.spawn("go-specialist")
    client = sidecar.client(spawned["jwt_token"])
    with ThreadPoolExecutor(8) as pool:
        waiting = asked(client, spawned["agent_id"], pool)
        parked(sidecar, len(waiting))
        sidecar.operator.post(f"/api/agents/{spawned['agent_id']}/restart")
        assert outcomes(waiting) == dict.fromkeys(waiting, (401, "AUTH_001"))


def test_they_end_when_the_token_expires(sidecar: Any) -> None:
    agent_id = sidecar.spawn("go-specialist")["agent_id"]
    short = sidecar.agent("chief-architect", "brief", ttl_s=2)
    operator = sidecar.client(sidecar.operator_token(ttl_s=2))
    with ThreadPoolExecutor(16) as pool:
        waiting = {
            f"{name} {who}": future
            for who, client in (("agent", short), ("operator", operator))
            for name, future in asked(client, agent_id, pool).items()
        }
        stream = Streamed(short, pool)
        assert outcomes(waiting) == dict.fromkeys(waiting, (401, "AUTH_002"))
        stream.text()


def test_a_stream_ends_when_its_browser_logs_out_and_another_session_goes_on(sidecar: Any) -> None:
    with ThreadPoolExecutor(4) as pool:
        browsers = []
        for _ in range(2):
            browser = sidecar.client()
            shown = browser.post("/api/auth/login", json={"token": sidecar.operator_token()}).json()["session"]
            browser.headers["X-CSRF-Token"] = shown["csrf_token"]
            browsers.append((browser, Streamed(browser, pool)))
        (first, its_stream), (_, other_stream) = browsers
        assert first.delete("/api/auth/session").json()["ended"]
        its_stream.text()
        sidecar.operator.post("/api/events/event-of-later", json={"data": {}})
        sidecar.sidecar.server.draining.set()
        sidecar.operator.post("/api/events/last", json={"data": {}})
        assert "event-of-later" in other_stream.text()


def test_an_agent_has_a_bounded_number_of_streams(sidecar: Any) -> None:
    token, host = sidecar.token("chief-architect"), f"127.0.0.1:{sidecar.sidecar.port}"
    head = f"GET /api/events/stream HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"
    connections = []
    try:
        for _ in range(MAX_STREAMS):
            connections.append(socket.create_connection(("127.0.0.1", sidecar.sidecar.port), timeout=WITHIN_S))
            connections[-1].sendall(head.encode())
            assert connections[-1].recv(15) == b"HTTP/1.1 200 OK"
        client = sidecar.client(token)
        answer = client.get("/api/events/stream")
        assert (answer.status_code, answer.json()["code"]) == (429, "RATE_001")
        connections.pop().close()
        wait_until(lambda: opens(client))
    finally:
        for connection in connections:
            connection.close()


def opens(client: httpx.Client) -> bool:
    with client.stream("GET", "/api/events/stream") as answer:
        return answer.status_code == 200


# --- The rule -----------------------------------------------------------------------------------------------------


class Told(Hold):
    def __init__(self, caller: Caller, session: Session | None) -> None:
        super().__init__(caller, session)
        self.error: SidecarError | None = None
        self.is_removed = False

    def end(self, error: SidecarError) -> None:
        assert self.error is None, "it is ended once"
        self.error = error


class HoldsEndWithTheirRight(RuleBasedStateMachine):
    """Compare with a plain list that is looked through each time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.revocations = Revocations()
        self.sessions = Sessions()
        self.authenticator = Authenticator(TokenKey(b"k" * 32), self.revocations, now=lambda: self.now)
        self.holds = Holds(self.authenticator, self.sessions, now=lambda: self.now)
        self.revocations.watch(self.holds.revoked)
        self.callers: list[Caller] = []
        self.cookies: list[tuple[str, Session]] = []
        self.all: list[Told] = []

    @rule(ttl_s=st.integers(1, 300))
    def mint(self, ttl_s: int) -> None:
        self.callers.append(
            Caller(
                agent_id=AgentId("a"),
                agent_type="a",
                project_id="p",
                issue_id=None,
                permissions=frozenset({Permission.ADMIN}),
                token_id=f"t{len(self.callers)}",
                issued_at=self.now,
                expires_at=self.now + timedelta(seconds=ttl_s),
            )
        )

    @rule(which=st.integers(0, 9))
    def log_in(self, which: int) -> None:
        if self.callers:
            self.cookies.append(self.sessions.open(self.callers[which % len(self.callers)], now=self.now))

    @rule(which=st.integers(0, 9))
    def log_out(self, which: int) -> None:
        if self.cookies:
            session = self.sessions.close(self.cookies[which % len(self.cookies)][0])
            if session is not None:
                self.holds.logged_out(session.key)

    @rule(which=st.integers(0, 9))
    def wait(self, which: int) -> None:
        if self.callers:
            self.all.append(Told(self.callers[which % len(self.callers)], None))
            self.holds.add(self.all[-1])

    @rule(which=st.integers(0, 9))
    def wait_in_browser(self, which: int) -> None:
        if self.cookies:
            session = self.cookies[which % len(self.cookies)][1]
            self.all.append(Told(session.caller, session))
            self.holds.add(self.all[-1])

    @rule(which=st.integers(0, 9))
    def answered(self, which: int) -> None:
        if self.all:
            self.all[which % len(self.all)].is_removed = True
            self.holds.remove(self.all[which % len(self.all)])

    @rule(which=st.integers(0, 9), in_s=st.sampled_from([0, 60]))
    def revoke(self, which: int, in_s: int) -> None:
        if self.callers:
            caller = self.callers[which % len(self.callers)]
            self.revocations.revoke(
                caller.token_id, from_=self.now + timedelta(seconds=in_s), expires_at=caller.expires_at
            )

    @rule(seconds=st.integers(1, 100))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        self.holds.look()

    @invariant()
    def those_end_whose_right_has_ended(self) -> None:
        for hold in self.all:
            is_good = self._may_go_on(hold)
            assert is_good or hold.error is not None or hold.is_removed
        open_ = [hold for hold in self.all if hold.error is None and not hold.is_removed]
        assert len(self.holds) == len(open_)

    def _may_go_on(self, hold: Told) -> bool:
        try:
            self.authenticator.recheck(hold.caller)
        except (Unauthorized, TokenExpired):
            return False
        return hold.session is None or self.sessions.is_open(hold.session, now=self.now)


def test_a_wait_that_begins_after_a_revocation_ends_when_that_takes_effect() -> None:
    """Although an earlier wait with the same token, answered by then, was to end later."""
    rules = HoldsEndWithTheirRight()
    rules.mint(ttl_s=300)
    rules.wait(which=0)
    rules.answered(which=0)
    rules.revoke(which=0, in_s=60)
    rules.wait(which=0)
    rules.time_passes(seconds=60)
    rules.those_end_whose_right_has_ended()


HoldsEndWithTheirRight.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestHoldsEndWithTheirRight = HoldsEndWithTheirRight.TestCase


@pytest.mark.parametrize("name", ["publish", "result"])
def test_what_is_being_done_is_answered_although_the_token_ends(sidecar: Any, name: str) -> None:
    """Only waits are cut: whoever publishes or stores has to learn that it was done."""
    agent = sidecar.agent()
    result = {
        "agent_id": "agent-1",
        "agent_type": "python-specialist",
        "issue_id": "i",
        "project_id": "default",
        "result": {"status": "success"},
    }
    path, body, status = ("/api/events/x", {"data": {}}, 202) if name == "publish" else ("/api/results", result, 201)
    answer = agent.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert len(sidecar.sidecar.server.holds) == 0
