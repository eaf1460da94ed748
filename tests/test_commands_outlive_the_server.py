"""Commands that go on until they are interrupted wait for a sidecar that is restarted, and lose and repeat nothing."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.examples.demo.server import ServerProcess
from sidecar.http.access.minting import mint_operator_token
from sidecar.http.sdk import Client
from tests.output_lines import OutputLines

SIDECAR = [sys.executable, "-m", "sidecar.http.cli.main"]
WITHIN_S = 30.0

COUNTS = """
import os, time
told = os.path.join(os.environ["PROJECT_ROOT"], "told")
n = 0
while not os.path.exists(told):
    n += 1
    print(n, flush=True)
    time.sleep(0.01)
print("told", flush=True)
"""


class RestartedSidecar:
    """A sidecar in a process of its own, killed or stopped and started again on the same port and storage."""

    def __init__(self, place: Path, project: Path) -> None:
        self._place = place
        self._project = project
        self.storage = place / "storage"
        command = json.dumps([sys.executable, "-c", COUNTS])
        (place / "sidecar.toml").write_text(
            f'[agents]\non_shutdown = "detach"\n\n[profiles.go-specialist]\ncommand = {command}\n'
        )
        self.server = self._serve(0)
        self.url = self.server.url
        self.token = mint_operator_token(self.storage, os.environ).text
        self.client = Client(self.url, self.token)

    def _serve(self, port: int) -> ServerProcess:
        return ServerProcess(
            storage=self.storage,
            project_root=self._project,
            config=self._place / "sidecar.toml",
            log=self._place / "sidecar.log",
            port=port,
        )

    def end(self, how: str) -> None:
        self.server.kill() if how == "killed" else self.server.stop()

    def start(self, *, elsewhere: bool = False) -> None:
        """On the same port as before, or on another."""
        before = self.url
        if not elsewhere:
            self.server = self._serve(int(before.rpartition(":")[2]))
            return
        self.server = self._serve(0)
        self.url = self.server.url
        self.client.close()
        self.client = Client(self.url, self.token)

    def command(self, *arguments: str, by_storage: bool = False) -> subprocess.Popen[str]:
        """by_storage: with nothing but the storage named."""
        named = (
            {"SIDECAR_STORAGE": str(self.storage)} if by_storage else {"SIDECAR_URL": self.url, "JWT_TOKEN": self.token}
        )
        env = os.environ | named
        pipe = subprocess.PIPE
        return subprocess.Popen([*SIDECAR, *arguments], env=env, text=True, stdout=pipe, stderr=pipe)


@pytest.fixture
def sidecar(tmp_path: Path, project: Path) -> Iterator[RestartedSidecar]:
    restarted = RestartedSidecar(tmp_path, project)
    yield restarted
    for agent in restarted.client.agents():
        if not agent.state.has_ended:
            restarted.client.stop(agent.agent_id, force=True)
    restarted.client.close()
    restarted.server.stop()


def interrupted(process: subprocess.Popen[str]) -> str:
    """What it had said on standard error, once Ctrl-C has ended it well."""
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=WITHIN_S) == 0
    assert process.stderr is not None
    return process.stderr.read()


class TestASubscriber:
    @pytest.mark.parametrize("how", ["killed", "stopped"])
    @pytest.mark.parametrize("since", [(), ("--since", "latest")], ids=["mailbox", "since"])
    def test_goes_on_with_the_next_event_when_the_server_is_back(
        self, sidecar: RestartedSidecar, how: str, since: tuple[str, ...]
    ) -> None:
        if since:
            sidecar.client.publish("tick", {"n": -1})
        options = ("--filter", "n:>=0", "--continuous", "--format", "json", *since)
        follower = sidecar.command("events", "subscribe", "tick", *options)
        lines = OutputLines(follower, within_s=WITHIN_S)
        # `--since latest` begins when the command has looked: only then is an event surely after it.
        while since and not sidecar.client.status()["events"]["active_subscriptions"]:
            pass
        sidecar.client.publish("tick", {"n": 0})
        assert json.loads(lines.next())["data"] == {"n": 0}
        sidecar.end(how)
        sidecar.start()
        for n in (1, 2):
            sidecar.client.publish("tick", {"n": n})
        assert [json.loads(lines.next())["data"]["n"] for _ in range(2)] == [1, 2]
        said = interrupted(follower).splitlines()
        assert said[0] == f"the sidecar at {sidecar.url} does not answer; waiting for it to come back"
        assert said[-1] == "the sidecar is back"

    def test_loses_and_repeats_nothing_while_events_come_and_the_server_is_killed(
        self, sidecar: RestartedSidecar
    ) -> None:
        follower = sidecar.command("events", "subscribe", "tick", "--continuous", "--format", "json")
        lines = OutputLines(follower, within_s=WITHIN_S)
        count, enough = 0, threading.Event()

        def publish() -> None:
            nonlocal count
            with Client(sidecar.url, sidecar.token) as client:
                while not enough.is_set():
                    client.publish("tick", {"n": count}, key=f"tick-{count}")
                    count += 1

        publisher = threading.Thread(target=publish)
        publisher.start()
        got: list[int] = []
        for until in (40, 80, 120):
            while len(got) < until:
                got.append(json.loads(lines.next())["data"]["n"])
            sidecar.end("killed")
            sidecar.start()
        enough.set()
        publisher.join(timeout=WITHIN_S)
        while len(got) < count:
            got.append(json.loads(lines.next())["data"]["n"])
        interrupted(follower)
        assert lines.rest() == ""
        assert got == list(range(count))

    @pytest.mark.parametrize("how", ["killed", "stopped"])
    def test_goes_on_where_the_server_listens_when_it_is_back_on_another_port(
        self, sidecar: RestartedSidecar, how: str
    ) -> None:
        options = ("--continuous", "--format", "json")
        follower = sidecar.command("events", "subscribe", "tick", *options, by_storage=True)
        lines = OutputLines(follower, within_s=WITHIN_S)
        for n in range(2):
            sidecar.client.publish("tick", {"n": n})
            assert json.loads(lines.next())["data"] == {"n": n}
            if n == 0:
                sidecar.end(how)
                sidecar.start(elsewhere=True)
        interrupted(follower)

    def test_does_not_wait_for_a_server_that_was_never_there(self, sidecar: RestartedSidecar) -> None:
        sidecar.end("stopped")
        follower = sidecar.command("events", "subscribe", "tick", "--continuous")
        _, said = follower.communicate(timeout=WITHIN_S)
        sidecar.start()
        assert follower.returncode == 3
        assert "no sidecar answers" in said


def test_a_log_is_followed_through_restarts_of_the_server_line_by_line(
    sidecar: RestartedSidecar, project: Path
) -> None:
    agent = sidecar.client.spawn("go-specialist", "issue-1").agent_id
    follower = sidecar.command("agent", "logs", agent, "-f", "--tail", "10000")  # however long it took to start
    lines = OutputLines(follower, within_s=WITHIN_S)
    assert lines.next() == "1\n"
    for how in ("killed", "stopped"):
        sidecar.end(how)
        sidecar.start()
    (project / "told").touch()
    assert follower.wait(timeout=WITHIN_S) == 0
    *numbers, last = lines.rest().split()
    assert last == "told"
    assert numbers == [str(n) for n in range(2, len(numbers) + 2)]


def test_a_spawn_that_waits_for_the_end_learns_of_it_from_the_next_server(
    sidecar: RestartedSidecar, project: Path
) -> None:
    spawned = sidecar.command("agent", "spawn", "go-specialist", "issue-1", "--wait", "--format", "json")
    sidecar.client.wait("agent_started", timeout_s=WITHIN_S)
    sidecar.end("killed")
    sidecar.start()
    (project / "told").touch()
    shown, _ = spawned.communicate(timeout=WITHIN_S)
    agent = json.loads(shown)
    assert agent["agent_id"] == sidecar.client.agents()[0].agent_id
    # Before Linux 6.15 nobody can see how a process ended that is not the server's child: it is run once more.
    assert agent["state"] == "completed"


def test_top_says_that_the_server_is_away_and_shows_it_again(sidecar: RestartedSidecar) -> None:
    agent = sidecar.client.spawn("go-specialist", "issue-1").agent_id
    shown = ""
    leader, terminal = pty.openpty()
    env = {"SIDECAR_URL": sidecar.url, "JWT_TOKEN": sidecar.token, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
    process = subprocess.Popen(
        [*SIDECAR, "top", "--interval", "0.2"], stdin=terminal, stdout=terminal, stderr=terminal, env=os.environ | env
    )
    os.close(terminal)
    killer = threading.Timer(2 * WITHIN_S, process.kill)
    killer.start()

    def until(text: str) -> None:
        nonlocal shown
        while text not in shown:
            shown += os.read(leader, 65536).decode(errors="replace")

    try:
        until(agent)
        sidecar.end("killed")
        until("waiting for it to come back")
        shown = ""
        sidecar.start()
        until(agent)
        process.send_signal(signal.SIGINT)
        assert drained(leader, process) == 0
    finally:
        killer.cancel()
        process.kill()
        process.wait()
        os.close(leader)


def drained(leader: int, process: subprocess.Popen[Any]) -> int:
    """Read a terminal to its end: a process whose output nobody reads does not get to its own."""
    try:
        while os.read(leader, 65536):
            pass
    except OSError:  # Linux: the other end is closed
        pass
    return process.wait(timeout=WITHIN_S)
