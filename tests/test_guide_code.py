"""Code of the users' guide runs unchanged: the guide's own where SIDECAR_AGENT_GUIDE names it, else code like it.

The agent runs as a real process under the Spawner; the patterns are called from here, as an agent would call them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import threading
import time
import types
from contextlib import suppress
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import requests

HERE = Path(__file__).parent
GUIDE = os.environ.get("SIDECAR_AGENT_GUIDE")

PATTERNS = (
    "wait_for_event",
    "subscribe_continuously",
    "handle_rate_limit",
    "api_call_with_rate_limit",
    "check_sidecar_health",
)


def python_blocks(guide: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", guide.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def agent_code() -> str:
    if GUIDE is None:
        return (HERE / "guide_agent.py").read_text()
    (code,) = [block for block in python_blocks(Path(GUIDE)) if "class PythonSpecialistAgent" in block]
    return code


def patterns(sidecar: Any, token: str) -> Any:
    """A module with the guide's functions, and the names they expect around them."""
    module = types.ModuleType("patterns")
    if GUIDE is None:
        exec((HERE / "guide_patterns.py").read_text(), module.__dict__)
    else:
        for block in python_blocks(Path(GUIDE)):
            for definition in re.findall(r"^def \w+\(.*?(?=^\S|\Z)", block, re.MULTILINE | re.DOTALL):
                if re.match(rf"def ({'|'.join(PATTERNS)})\(", definition):
                    exec(textwrap.dedent(definition), module.__dict__)
    surroundings = {
        "requests": requests,
        "time": time,
        "sidecar_url": f"{sidecar.url}/api",
        "headers": {"Authorization": f"Bearer {token}"},
    }
    module.__dict__.update(surroundings)
    assert all(callable(getattr(module, name)) for name in PATTERNS)
    return module


class _Enough(BaseException):
    """The only end of a loop that catches every Exception."""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "agent.py"
    path.write_text(agent_code())
    return path


def environment(sidecar: Any) -> dict[str, str]:
    """What the Spawner hands an agent, for one that is started by hand."""
    return {
        **os.environ,
        "AGENT_ID": "by-hand",
        "AGENT_TYPE": "python-specialist",
        "ISSUE_ID": "issue-1",
        "PROJECT_ID": "default",
        "SIDECAR_URL": f"{sidecar.url}/api",
        "JWT_TOKEN": sidecar.token(agent_id="by-hand"),
    }


def test_the_agent_runs_under_the_sidecar_to_its_end(start_sidecar: Any, script: Path) -> None:
    profile = f'[profiles.test-engineer]\ncommand = ["{sys.executable}", "{script}"]\nrestart = "never"\n'
    sidecar = start_sidecar(profile)
    agent_id = sidecar.spawn("test-engineer", "issue-7")["agent_id"]
    ended = sidecar.wait_for("agent_exited", f"agent_id:{agent_id}", timeout_s=60)
    log = sidecar.operator.get(f"/api/agents/{agent_id}/logs", params={"stream": "stderr"}).json()["data"]
    assert ended["data"]["exit_code"] == 0, log
    (result,) = sidecar.operator.get("/api/results", params={"agent_id": agent_id}).json()["results"]
    assert result["status"] == "success"
    event = sidecar.wait_for("implementation_complete", "issue_id:issue-7")
    assert (event["publisher"], event["topic"]) == (agent_id, "implementation")


def test_the_agent_runs_when_it_is_started_by_hand(sidecar: Any, script: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(script)], env=environment(sidecar), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert sidecar.wait_for("implementation_complete")["publisher"] == "by-hand"


def test_waiting_finds_what_is_done_already_and_then_what_is_new(sidecar: Any) -> None:
    guide = patterns(sidecar, sidecar.token(agent_id="waiter"))
    publish(sidecar, "architecture_defined", issue_id="issue-1", n=1)
    publish(sidecar, "architecture_defined", issue_id="issue-2", n=2)

    def got(timeout: int) -> list[int]:
        answer = guide.wait_for_event("architecture_defined", timeout=timeout, filter="issue_id:issue-1")
        return [event["data"]["n"] for event in answer["events"]]

    assert got(5000) == [1]
    assert got(50) == []
    publish(sidecar, "architecture_defined", issue_id="issue-1", n=3)
    assert got(5000) == [3]


def test_subscribing_continuously_handles_each_event_once_in_order(sidecar: Any) -> None:
    handled: Queue[int] = Queue()
    subscribe = patterns(sidecar, sidecar.operator_token(agent_id="subscriber")).subscribe_continuously

    def handle(event: dict[str, Any]) -> None:
        handled.put(event["data"]["n"])
        if event["data"]["n"] == 29:
            raise _Enough

    def listen() -> None:
        with suppress(_Enough):
            subscribe("work_done", handle, "issue_id:issue-1")

    subscriber = threading.Thread(target=listen, daemon=True)
    subscriber.start()
    for n in range(30):
        publish(sidecar, "work_done", issue_id="issue-1", n=n)
        publish(sidecar, "work_done", issue_id="issue-2", n=-1)
    assert [handled.get(timeout=20) for _ in range(30)] == list(range(30))
    subscriber.join(timeout=10)
    assert handled.empty()


def test_a_call_over_the_limit_waits_as_long_as_it_is_told_and_gets_through(start_sidecar: Any) -> None:
    sidecar = start_sidecar("[limits]\nclasses.coding = {per_minute = 60, burst = 0}\n")
    token = sidecar.token()
    guide = patterns(sidecar, token)
    url, headers = f"{sidecar.url}/api/results", {"Authorization": f"Bearer {token}"}
    for _ in range(100):
        if requests.get(url, headers=headers, timeout=10).status_code == 429:
            break
    else:
        pytest.fail("nothing was limited")
    answer = guide.api_call_with_rate_limit(url, headers=headers, timeout=10)
    assert answer.status_code == 200


def test_health_is_seen_as_the_guide_looks_for_it(sidecar: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide names port 3001; it is led to ours, with everything else of the request as it is."""
    guide = patterns(sidecar, "")
    real_get = requests.get

    def led_to_us(url: str, **options: Any) -> Any:
        assert url == "http://localhost:3001/health"
        return real_get(url.replace("3001", str(sidecar.sidecar.port)), **options)

    monkeypatch.setattr(requests, "get", led_to_us)
    assert guide.check_sidecar_health() is True
    sidecar.sidecar.server.draining.set()
    assert guide.check_sidecar_health() is False


def publish(sidecar: Any, event_type: str, **data: Any) -> None:
    assert sidecar.operator.post(f"/api/events/{event_type}", json={"data": data}).status_code == 202
