"""The end: everybody who waits is answered, agents are told to stop and may still hand in, and it takes ten seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest

from tests.fleet import wait_until
from tests.served import Served, start_served

WITHIN_S = 10.0

# Hands in a result after SIGTERM, as a careful agent does.
LAST_WORDS = """
import json, os, signal, urllib.request
def hand_in(*_):
    names = ("agent_id", "agent_type", "issue_id", "project_id")
    body = {**{name: os.environ[name.upper()] for name in names}, "result": {"status": "partial"}}
    headers = {"Authorization": "Bearer " + os.environ["JWT_TOKEN"], "Content-Type": "application/json"}
    url = os.environ["SIDECAR_URL"] + "/results"
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=5)
    raise SystemExit(0)
signal.signal(signal.SIGTERM, hand_in)
print("ready", flush=True)
signal.pause()
"""


Serve = Callable[..., Served]

# A signal comes while the Spawner begins, which may have taken agents over by then.
EARLY = """
import os, signal
from sidecar.actors.spawner import Spawner
began = Spawner.on_start
def begin(self):
    os.kill(os.getpid(), signal.SIGTERM)
    began(self)
Spawner.on_start = begin
"""

# The main thread hears no signal once it waits: as if that came in the moment before, when nothing interrupts the wait.
DEAF = """
import signal
from sidecar.http.serve import Sidecar
wait = Sidecar.wait
def wait_deafly(*arguments):
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    print("deaf", flush=True)
    return wait(*arguments)
Sidecar.wait = wait_deafly
"""


@pytest.fixture
def serve(tmp_path: Path, project: Path) -> Iterator[Serve]:
    started: list[subprocess.Popen[str]] = []

    def start(settings: str = "", *, before: str = "") -> Served:
        (project / "sidecar.toml").write_text(settings)
        served = start_served(tmp_path / "storage", project, tmp_path / "log", before=before)
        started.append(served.process)
        return served

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_cleanly_and_at_once_when_nothing_runs(serve: Serve, number: int) -> None:
    served = serve()
    code, took_s = served.end(number)
    assert code == 0
    assert took_s < WITHIN_S


def test_a_signal_while_it_starts_ends_it_cleanly_too(serve: Serve) -> None:
    served = serve(before=EARLY)
    assert served.process.wait(timeout=30) == 0


def test_it_ends_and_its_agents_start_afresh_whatever_its_parent_blocked_or_ignored(
    serve: Serve, tmp_path: Path
) -> None:
    script = tmp_path / "agent.py"
    script.write_text(
        "import signal as s\n"
        "ignored = {n for n in s.valid_signals() if s.getsignal(n) is s.SIG_IGN}\n"
        "print(s.pthread_sigmask(s.SIG_BLOCK, ()), list(ignored - {s.SIGPIPE, s.SIGXFSZ}))\n"
        "raise SystemExit(7)\n"
    )
    served = serve(
        f"[profiles.go-specialist]\ncommand = ['{sys.executable}', '{script}']\nrestart = 'never'\n",
        before="import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
        "for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):\n"
        "    signal.signal(number, signal.SIG_IGN)\n",
    )
    served.client.post("/api/agents/spawn", json={"agent_type": "go-specialist", "issue_id": "i"})
    asked = {"timeout": 10_000, "consumer": "test"}
    (exited,) = served.client.get("/api/events/wait/agent_exited", params=asked).json()["events"]
    assert exited["data"]["exit_code"] == 7
    (said,) = (served.storage / "logs").glob("*.stdout.log")
    assert said.read_text() == "set() []\n"
    assert served.end(signal.SIGTERM)[0] == 0


def test_it_outlives_its_terminal_where_the_parent_ignored_that(serve: Serve) -> None:
    served = serve(before="import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n")
    served.process.send_signal(signal.SIGHUP)
    assert served.client.get("/status").status_code == 200
    assert served.end(signal.SIGTERM)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_heeded_that_comes_in_the_moment_before_the_main_thread_waits(serve: Serve, number: int) -> None:
    served = serve(before=DEAF)
    assert served.process.stdout is not None
    assert served.process.stdout.readline() == "deaf\n"
    assert served.end(number)[0] == 0


def test_everybody_who_waits_is_answered(serve: Serve) -> None:
    served = serve()
    with ThreadPoolExecutor(20) as pool:
        waiting = [
            pool.submit(served.client.get, "/api/events/wait/never", params={"timeout": 60_000, "consumer": f"c{n}"})
            for n in range(20)
        ]
        deadline = time.monotonic() + 10
        while served.client.get("/status").json()["events"]["active_subscriptions"] < 20:
            assert time.monotonic() < deadline
        code, took_s = served.end()
        answers = [each.result(5) for each in waiting]
    assert code == 0
    assert took_s < WITHIN_S
    assert [answer.status_code for answer in answers] == [200] * 20
    assert all(answer.json()["timeout"] is True and answer.json()["events"] == [] for answer in answers)


def test_who_follows_a_log_is_answered_that_nothing_came(serve: Serve) -> None:
    served = serve("[profiles.sleeper]\ncommand = ['sleep', '600']\n")
    agent = served.client.post("/api/agents/spawn", json={"agent_type": "sleeper", "issue_id": "i"}).json()["agent_id"]
    with ThreadPoolExecutor(1) as pool:
        follow = {"offset": 0, "timeout": 30}
        following = pool.submit(served.client.get, f"/api/agents/{agent}/logs", params=follow)
        deadline = time.monotonic() + 10
        while 'sidecar_http_connections{state="waiting"} 1.0' not in served.client.get("/metrics").text:
            assert time.monotonic() < deadline
        served.end()
        answer = following.result(5)
    assert answer.status_code == 200
    assert (answer.json()["data"], answer.json()["next_offset"]) == ("", 0)


def test_a_stream_of_events_ends_with_the_server(serve: Serve) -> None:
    served = serve()
    with served.client.stream("GET", "/api/events/stream", params={"since": "earliest"}) as answer:
        lines = answer.iter_lines()
        served.client.post("/api/events/done", json={"data": {}})
        assert next(lines).startswith("id: ")
        code, took_s = served.end()
        rest = list(lines)
    assert (code, rest[-1]) == (0, "")
    assert took_s < WITHIN_S


def test_an_agent_that_is_told_to_stop_can_still_hand_in_its_result(serve: Serve, tmp_path: Path) -> None:
    script = tmp_path / "agent.py"
    script.write_text(LAST_WORDS)
    settings = f'[profiles.python-specialist]\ncommand = ["{sys.executable}", "{script}"]\n'
    served = serve(settings)
    body = {"agent_type": "python-specialist", "issue_id": "issue-1"}
    agent_id = served.client.post("/api/agents/spawn", json=body).json()["agent_id"]
    log = served.client.get(f"/api/agents/{agent_id}/logs", params={"offset": 0, "timeout": 10}).json()
    assert log["data"] == "ready\n"
    pid = served.client.get(f"/api/agents/{agent_id}").json()["process_id"]
    code, took_s = served.end()
    assert code == 0
    assert took_s < WITHIN_S
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    again = serve(settings)
    results = again.client.get("/api/results").json()["results"]
    assert [(result["agent_id"], result["status"]) for result in results] == [(agent_id, "partial")]
    again.end()


def with_a_deaf_agent(serve: Serve, tmp_path: Path) -> tuple[Served, int]:
    """A server whose agent, of the process id returned, runs and ignores SIGTERM."""
    deaf = "import signal\nsignal.signal(15, signal.SIG_IGN)\nprint('deaf', flush=True)\nsignal.pause()\n"
    return with_agent(serve, tmp_path, deaf)


def with_agent(serve: Serve, tmp_path: Path, code: str, *, before: str = "") -> tuple[Served, int]:
    """A server whose agent, of the process id returned, has written its first line."""
    script = tmp_path / "agent.py"
    script.write_text(code)
    settings = f'[profiles.python-specialist]\ncommand = ["{sys.executable}", "{script}"]\n'
    served = serve(settings, before=before)
    body = {"agent_type": "python-specialist", "issue_id": "issue-1"}
    agent_id = served.client.post("/api/agents/spawn", json=body).json()["agent_id"]
    served.client.get(f"/api/agents/{agent_id}/logs", params={"offset": 0, "timeout": 10})
    pid = served.client.get(f"/api/agents/{agent_id}").json()["process_id"]
    return served, pid


def test_an_agent_that_ignores_the_signal_does_not_hold_the_end_up(serve: Serve, tmp_path: Path) -> None:
    served, pid = with_a_deaf_agent(serve, tmp_path)
    body = {"agent_type": "python-specialist", "issue_id": "issue-1"}
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(served.end)
        health = until_draining(served)
        refused = httpx.post(f"{served.url}/api/agents/spawn", json=body, headers=dict(served.client.headers))
        code, took_s = ending.result(30)
    assert health["status"] == "draining"
    assert (refused.status_code, refused.json()["code"]) == (503, "SRV_503")
    assert refused.headers["Retry-After"]
    assert code == 0
    assert took_s < WITHIN_S
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def until_draining(served: Served) -> dict[str, Any]:
    deadline = time.monotonic() + 5
    while True:
        answer = httpx.get(f"{served.url}/health")
        if answer.status_code == 503:
            health: dict[str, Any] = answer.json()
            return health
        assert time.monotonic() < deadline


TIDIES = """
import pathlib, signal, time
def tidy(*_):
    pathlib.Path("told").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    pathlib.Path("tidied").touch()
    raise SystemExit(0)
signal.signal(signal.SIGTERM, tidy)
print("ready", flush=True)
signal.pause()
signal.pause()
"""


def test_a_pause_while_it_ends_takes_no_time_from_its_agents(serve: Serve, tmp_path: Path, project: Path) -> None:
    served, _ = with_agent(serve, tmp_path, TIDIES, before="from sidecar.http import serve\nserve.DRAIN_S = 2.0\n")
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(served.end)
        wait_until((project / "told").exists)
        served.process.send_signal(signal.SIGSTOP)
        paused_at = time.monotonic()
        wait_until(lambda: time.monotonic() > paused_at + 3.5)  # longer than all of the time to end
        served.process.send_signal(signal.SIGCONT)
        (project / "go").touch()
        code, _ = ending.result(30)
    assert code == 0
    assert (project / "tidied").exists()


def test_a_second_signal_ends_it_and_its_agents_at_once(serve: Serve, tmp_path: Path) -> None:
    served, pid = with_a_deaf_agent(serve, tmp_path)
    served.process.send_signal(signal.SIGTERM)
    until_draining(served)
    code, took_s = served.end()
    assert code == 128 + signal.SIGTERM
    assert took_s < WITHIN_S / 2, "it waited for its agents"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_agents_are_stopped_however_often_the_spawner_is_restarted_meanwhile(serve: Serve, tmp_path: Path) -> None:
    served, pid = with_a_deaf_agent(serve, tmp_path)
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(served.end)
        until_draining(served)
        for _ in range(3):
            httpx.post(f"{served.url}/api/actors/spawner/restart", headers=dict(served.client.headers))
        code, took_s = ending.result(30)
    assert code == 0
    assert took_s < WITHIN_S
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_sidecar_that_gave_an_actor_up_leaves_its_agents_for_the_next(serve: Serve) -> None:
    settings = "[profiles.sleeper]\ncommand = ['sleep', '600']\n"
    served = serve(settings)
    body = {"agent_type": "sleeper", "issue_id": "i"}
    agent_id = served.client.post("/api/agents/spawn", json=body).json()["agent_id"]
    pid = served.client.get(f"/api/agents/{agent_id}").json()["process_id"]
    events, away = served.storage / "events", served.storage / "away"
    events.rename(away)
    events.write_text("no directory")
    served.client.post("/api/actors/event_bus/restart")
    assert served.process.wait(timeout=WITHIN_S) == 1
    events.unlink()
    away.rename(events)
    again = serve(settings)
    agent = again.client.get(f"/api/agents/{agent_id}").json()
    assert (agent["state"], agent["process_id"], agent["incarnation"]) == ("running", pid, 1)
    again.end()


def test_an_end_is_heeded_in_whichever_moment_it_is_asked_for(start_sidecar: Any) -> None:
    """Also in between two steps of the wait that it is to end: here before each line of it."""
    sidecar = start_sidecar().sidecar
    told: list[int] = []

    def tell(frame: FrameType, *_: Any) -> Any:
        told.append(frame.f_lineno)
        sidecar.end()
        return tell

    before = sys.gettrace()
    sys.settrace(tell)
    try:
        assert sidecar.wait(WITHIN_S)
    finally:
        sys.settrace(before)
    assert told


def test_an_actor_that_keeps_dying_ends_the_server_with_an_error(start_sidecar: Any) -> None:
    sidecar = start_sidecar()
    bus = sidecar.sidecar.server.actors.bus.handle
    directory = sidecar.storage / "events"
    directory.rename(sidecar.storage / "gone")
    directory.write_text("no directory")
    bus.restart("to see it fail")
    assert sidecar.sidecar.wait(15)
    assert "event_bus" in sidecar.sidecar.failure


def test_it_does_not_wait_for_a_spawner_that_was_stopped(start_sidecar: Any) -> None:
    sidecar = start_sidecar()
    sidecar.sidecar.server.actors.spawner.stop()
    end = threading.Thread(target=sidecar.stop, daemon=True)
    end.start()
    end.join(WITHIN_S)
    assert not end.is_alive()


def test_what_is_said_while_it_runs_holds_no_token(serve: Serve, tmp_path: Path) -> None:
    served = serve(
        f'[profiles.python-specialist]\ncommand = ["{sys.executable}", "-c", "raise SystemExit(1)"]\nmax_restarts = 0\n'
    )
    body = {"agent_type": "python-specialist", "issue_id": "issue-1"}
    token = served.client.post("/api/agents/spawn", json=body).json()["jwt_token"]
    served.client.get("/api/events/wait/agent_failed", params={"timeout": 10_000})
    served.client.get("/nothing", params={"token": token})
    served.end()
    log = (tmp_path / "log").read_text()
    assert "sidecar started" in log
    assert token not in log
    assert str(served.client.headers["Authorization"]).removeprefix("Bearer ") not in log
    assert (served.storage / "secret").read_text().strip() not in log
    assert "Traceback" not in log
