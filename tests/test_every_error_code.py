"""Every error code of the protocol comes out of a running sidecar, over HTTP, and has its line in the docs.

A code that nobody can provoke any more, or that nobody has said how to provoke, fails here.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from sidecar.http.errors import ROWS
from tests.conftest import LiveSidecar, StartSidecar
from tests.fleet import wait_until

DOCUMENTED = Path(__file__).parents[1] / "docs" / "errors.md"
RESULT = {
    "agent_id": "agent-1",
    "agent_type": "python-specialist",
    "issue_id": "issue-1",
    "project_id": "default",
    "result": {"status": "success"},
}

Provoke = Callable[[LiveSidecar], httpx.Response]
Break = Callable[[pytest.MonkeyPatch], None]

PROVOKED: dict[str, Provoke] = {}
BROKEN: dict[str, Break] = {}
SETTINGS = {
    "RATE_001": "[limits.classes]\ncoding = {per_minute = 1}\n",
    "EVT_004": "[events]\nmax_events = 2\n",
    "AGT_005": "[agents]\nmax_chain_depth = 1\n[profiles.chief-architect]\ncommand = ['sleep', '60']\n",
    "AGT_006": "[agents]\nmax_spawns_per_issue = 1\n",
    "AGT_007": "[agents]\nmax_concurrent = 1\nmax_queued = 1\n",
    "AGT_001": "[profiles.test-engineer]\ncommand = ['/no/such/program']\n",
}


def documented() -> dict[str, tuple[int, str, str, str]]:
    """Status, word, meaning of each code in the documentation, and what to do about it."""
    row = r"^\| (\d{3}) \| `(\w+)` \| `(\w+)` \| (.+) \| (.+) \|$"
    rows = re.findall(row, DOCUMENTED.read_text(), re.MULTILINE)
    return {code: (int(status), word, when, advice) for status, code, word, when, advice in rows}


def provokes(code: str) -> Callable[[Provoke], Provoke]:
    def register(provoke: Provoke) -> Provoke:
        assert code not in PROVOKED
        PROVOKED[code] = provoke
        return provoke

    return register


def breaks(code: str) -> Callable[[Break], Break]:
    """What has to be broken inside before a code can come; done once the sidecar runs."""

    def register(break_: Break) -> Break:
        BROKEN[code] = break_
        return break_

    return register


# --- Requests that cannot be read ---------------------------------------------------------------------------------


@provokes("REQ_001")
def misspelt_field(sidecar: LiveSidecar) -> httpx.Response:
    return sidecar.agent().post("/api/events/step", json={"dta": {}})


@provokes("REQ_404")
def unknown_path(sidecar: LiveSidecar) -> httpx.Response:
    return sidecar.agent().get("/api/nothing")


@provokes("REQ_405")
def other_method(sidecar: LiveSidecar) -> httpx.Response:
    return sidecar.agent().put("/api/results", json={})


@provokes("REQ_409")
def key_with_another_body(sidecar: LiveSidecar) -> httpx.Response:
    agent = sidecar.client(sidecar.token(), **{"Idempotency-Key": "once"})
    agent.post("/api/results", json=RESULT)
    return agent.post("/api/results", json={**RESULT, "issue_id": "issue-2"})


@provokes("REQ_413")
def large_event(sidecar: LiveSidecar) -> httpx.Response:
    return sidecar.agent().post("/api/events/step", json={"data": {"text": "x" * 300_000}})


@provokes("REQ_415")
def form(sidecar: LiveSidecar) -> httpx.Response:
    return sidecar.agent().post("/api/events/step", data={"data": "{}"})


# --- Who asks -----------------------------------------------------------------------------------------------------


@provokes("AUTH_001")
def no_token(sidecar: LiveSidecar) -> httpx.Response:
    return sidecar.client().get("/status")


@provokes("AUTH_002")
def old_token(sidecar: LiveSidecar) -> httpx.Response:
    agent = sidecar.client(sidecar.token("chief-architect", ttl_s=1))  # it may ask as often as it likes
    return wait_until(lambda: answer if (answer := agent.get("/status")).is_error else None)


@provokes("AUTH_003")
def not_permitted(sidecar: LiveSidecar) -> httpx.Response:
    return sidecar.agent().post("/api/agents/spawn", json={"agent_type": "go-specialist", "issue_id": "i"})


@provokes("AUTH_004")
def other_project(sidecar: LiveSidecar) -> httpx.Response:
    return sidecar.agent().get("/api/results", params={"project_id": "theirs"})


@provokes("AUTH_005")
def other_publisher(sidecar: LiveSidecar) -> httpx.Response:
    return sidecar.agent().post("/api/events/step", json={"data": {}, "publisher": "agent-2"})


@provokes("RATE_001")
def too_often(sidecar: LiveSidecar) -> httpx.Response:
    agent = sidecar.agent()
    agent.get("/status")
    return agent.get("/status")


# --- Events -------------------------------------------------------------------------------------------------------


@provokes("EVT_001")
def wait_while_the_bus_restarts(sidecar: LiveSidecar) -> httpx.Response:
    asked = threading.Event()

    def wait() -> httpx.Response:
        client = sidecar.agent()
        asked.set()
        return client.get("/api/events/wait/never", params={"timeout": 20_000})

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait)
        assert asked.wait(5)
        wait_until(lambda: sidecar.operator.get("/status").json()["events"]["active_subscriptions"] == 1)
        sidecar.operator.post("/api/actors/event_bus/restart")
        return waiting.result(20)


@provokes("EVT_002")
def two_event_types(sidecar: LiveSidecar) -> httpx.Response:
    return sidecar.agent().post("/api/events/step", json={"data": {}, "event_type": "leap"})


@provokes("EVT_003")
def half_a_filter(sidecar: LiveSidecar) -> httpx.Response:
    return sidecar.agent().get("/api/events", params={"filter": "status:"})


@provokes("EVT_004")
def too_long_ago(sidecar: LiveSidecar) -> httpx.Response:
    agent = sidecar.agent()
    first, *_ = [agent.post("/api/events/step", json={"data": {}}).json()["event_id"] for _ in range(5)]
    return agent.get("/api/events/wait/step", params={"since": first, "strict": "1", "timeout": 0})


# --- Contexts and agents ------------------------------------------------------------------------------------------


@provokes("CTX_001")
def project_that_went_away(sidecar: LiveSidecar) -> httpx.Response:
    shutil.rmtree(sidecar.project)
    return sidecar.agent().get("/api/context/issue-1/python-specialist")


@provokes("CTX_003")
def unknown_requirement(sidecar: LiveSidecar) -> httpx.Response:
    return sidecar.agent().get("/api/context/issue-1/python-specialist", params={"requirements": "everything"})


@provokes("AGT_001")
def program_that_is_not_there(sidecar: LiveSidecar) -> httpx.Response:
    return sidecar.operator.post("/api/agents/spawn", json={"agent_type": "test-engineer", "issue_id": "i"})


@provokes("AGT_002")
def type_without_command(sidecar: LiveSidecar) -> httpx.Response:
    return sidecar.operator.post("/api/agents/spawn", json={"agent_type": "test-engineer", "issue_id": "i"})


@provokes("AGT_003")
def stop_what_has_ended(sidecar: LiveSidecar) -> httpx.Response:
    agent_id = sidecar.spawn("python-specialist")["agent_id"]
    sidecar.wait_for("agent_exited")
    return sidecar.operator.delete(f"/api/agents/{agent_id}")


@provokes("AGT_005")
def spawn_at_the_end_of_a_chain(sidecar: LiveSidecar) -> httpx.Response:
    architect = sidecar.client(sidecar.spawn("chief-architect")["jwt_token"])
    return architect.post("/api/agents/spawn", json={"agent_type": "go-specialist", "issue_id": "i"})


@provokes("AGT_006")
def spawn_too_many_for_an_issue(sidecar: LiveSidecar) -> httpx.Response:
    sidecar.spawn("go-specialist", "i")
    return sidecar.operator.post("/api/agents/spawn", json={"agent_type": "go-specialist", "issue_id": "i"})


@provokes("AGT_007")
def spawn_into_a_full_queue(sidecar: LiveSidecar) -> httpx.Response:
    body = {"agent_type": "go-specialist", "issue_id": "i"}
    answers = [sidecar.operator.post("/api/agents/spawn", json=body) for _ in range(3)]
    return answers[-1]


# --- Faults of the sidecar ----------------------------------------------------------------------------------------


@breaks("STR_001")
def fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sidecar.state.journal.fs._OsFile.sync", full)


@provokes("STR_001")
def store_on_a_full_disk(sidecar: LiveSidecar) -> httpx.Response:
    return sidecar.agent().post("/api/results", json=RESULT)


@breaks("SRV_001")
def fail_in_a_way_nobody_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sidecar.http.routes.ops.disk_free_bytes", fail)


@provokes("SRV_001")
def ask_for_health(sidecar: LiveSidecar) -> httpx.Response:
    return sidecar.client().get("/health")


@breaks("SRV_503")
def have_no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.http.routes.results.ASK_S", 0.0)


@provokes("SRV_503")
def ask_an_actor_that_is_busy(sidecar: LiveSidecar) -> httpx.Response:
    return sidecar.agent().get("/api/results")


# --- The tests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted({row.wire_code for row in ROWS.values()}))
def test_comes_out_as_documented(code: str, start_sidecar: StartSidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code in PROVOKED, f"nobody says how to provoke {code}"
    sidecar = start_sidecar(SETTINGS.get(code, ""))
    if code in BROKEN:
        BROKEN[code](monkeypatch)
    answer = PROVOKED[code](sidecar)
    monkeypatch.undo()
    status, word, _, _ = documented()[code]
    body = answer.json()
    assert (answer.status_code, body["code"], body["error"]) == (status, code, word), body
    assert set(body) == {"error", "message", "code", "details", "timestamp", "request_id"}
    assert answer.headers["X-Request-Id"] == body["request_id"]
    assert ("Retry-After" in answer.headers) == (status in (429, 503))
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    assert ("Allow" in answer.headers) == (status == 405)


def test_the_docs_have_each_code_with_what_the_description_says_of_it() -> None:
    assert documented() == {row.wire_code: (row.status, row.word, row.when, row.advice) for row in ROWS.values()}


def test_nothing_is_provoked_that_is_no_code() -> None:
    known = {row.wire_code for row in ROWS.values()}
    assert PROVOKED.keys() | BROKEN.keys() | SETTINGS.keys() <= known
