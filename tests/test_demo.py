"""The demo: it really happens, says so truly, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from sidecar.examples.demo.project import TEAM
from sidecar.examples.demo.story import Story
from sidecar.http.sdk import Event
from sidecar.state.models import EventId
from tests.output_lines import OutputLines

DEMO = [sys.executable, "-m", "sidecar.http.cli.main", "demo"]
DEADLINE_S = 60.0


class Demo:
    """A demo in a process of its own, whose temporary files all lie in `place`."""

    def __init__(self, place: Path, *options: str, **env: str) -> None:
        self.place = place
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
        self.process = subprocess.Popen(
            [*DEMO, *options],
            env=environment | {"TMPDIR": str(place)} | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = OutputLines(self.process, within_s=DEADLINE_S)

    def end(self) -> tuple[str, str]:
        """What it prints from here on, and what it has said on standard error."""
        output = self.lines.rest()
        self.process.wait(timeout=DEADLINE_S)
        assert self.process.stderr is not None
        return output, self.process.stderr.read()

    def processes(self) -> list[psutil.Process]:
        """Everything that runs with its scratch directory in its command line or as its own directory."""
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.place) in " ".join(process.cmdline()) or process.cwd().startswith(str(self.place)):
                    found.append(process)
            except psutil.Error:  # it ended while we looked, or is another user's
                continue
        return found


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Any]:
    started: list[Demo] = []

    def begin(*options: str, **env: str) -> Demo:
        started.append(Demo(tmp_path, *options, **env))
        return started[-1]

    yield begin
    for one in started:
        one.process.kill()
        one.process.wait()
        for process in one.processes():
            process.kill()


def test_every_agent_completes_one_of_them_after_a_crash_and_nothing_is_left(demo: Any, tmp_path: Path) -> None:
    shown = demo()
    output, error = shown.end()
    assert shown.process.returncode == 0, output + error
    assert "6 of 6 agents completed" in output
    for agent_type in TEAM:
        assert re.search(rf"^{agent_type} +completed", output, re.MULTILINE), output
        assert re.search(rf"^{agent_type} +success", output, re.MULTILINE), output
    assert "python-specialist     agent_exited             crashed: killed by signal 9" in output
    cost = re.search(r"python-specialist \(killed by signal 9\) cost (\d+) ms from crash to running", output)
    assert cost is not None
    assert 0 <= int(cost.group(1)) < 10_000  # 0 on a busy host: it ran for so long that no back-off follows
    assert "6 tests: success, 100.0 % of the lines executed" in output
    assert "The project's last commit:" in output
    assert "sidecar serve" in output
    assert list(tmp_path.iterdir()) == []
    assert shown.processes() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_in_the_middle_it_leaves_nothing_and_says_it_did_not_finish(
    demo: Any, tmp_path: Path, number: int
) -> None:
    shown = demo()
    shown.lines.next_with("test-engineer         agent_started")
    shown.process.send_signal(number)
    _, error = shown.end()
    assert shown.process.returncode == 128 + number
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
    assert shown.processes() == []


def test_kept_it_leaves_a_server_that_the_printed_commands_reach(demo: Any) -> None:
    shown = demo("--keep")
    output, error = shown.end()
    assert shown.process.returncode == 0, error
    exported = re.search(r"export SIDECAR_URL=(\S+) SIDECAR_STORAGE=(\S+)", output)
    assert exported is not None
    env = os.environ | {"SIDECAR_URL": exported.group(1), "SIDECAR_STORAGE": exported.group(2)}
    command = [sys.executable, "-m", "sidecar.http.cli.main"]
    listed = subprocess.run(
        [*command, "agent", "list", "--format", "csv"], env=env, capture_output=True, text=True, timeout=30, check=True
    )
    assert listed.stdout.count(",completed,") == 6
    subprocess.run([*command, "stop"], env=env, capture_output=True, timeout=30, check=True)
    psutil.wait_procs(shown.processes(), timeout=10)  # it lets go of its storage a moment before it ends
    assert shown.processes() == []


def test_without_git_it_says_what_is_missing(demo: Any, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    shown = demo(PATH=str(tmp_path / "bin"))
    _, error = shown.end()
    assert shown.process.returncode == 1
    assert "git is not installed" in error


class Telling:
    """Feeds a story with lifecycle events, a tenth of a second apart."""

    def __init__(self, *team: str) -> None:
        self.story = Story(team)
        self._n = 0

    def tell(
        self, event_type: str, agent_type: str, *, incarnation: int = 1, topic: str = "system", **data: Any
    ) -> str:
        self._n += 1
        event = Event(
            event_id=EventId(f"evt-{self._n}"),
            event_type=event_type,
            publisher="sidecar",
            publisher_type="sidecar",
            topic=topic,
            data={"agent_type": agent_type, "incarnation": incarnation, **data},
            timestamp=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=0.1 * self._n),
        )
        return self.story.see(event).text


class TestTheStory:
    def test_is_good_only_when_every_member_completed(self) -> None:
        telling = Telling("a", "b")
        telling.tell("agent_started", "a")
        telling.tell("agent_exited", "a", cause="exit", exit_code=0)
        assert not telling.story.is_over
        telling.tell("agent_exited", "b", cause="exit", exit_code=0)
        assert telling.story.is_over
        assert telling.story.is_good

    def test_is_over_and_not_good_when_one_gave_up(self) -> None:
        telling = Telling("a", "b")
        telling.tell("agent_exited", "a", cause="exit", exit_code=1)
        assert not telling.story.is_over
        telling.tell("agent_failed", "a", topic="error", cause="exit", exit_code=1, reason="enough")
        assert telling.story.is_over
        assert not telling.story.is_good

    def test_counts_what_a_restart_cost_from_crash_to_running(self) -> None:
        telling = Telling("a")
        telling.tell("agent_started", "a", process_id=1)
        said = telling.tell("agent_exited", "a", cause="signal", signal=9, uptime_seconds=9)
        assert said == "crashed: killed by signal 9"
        telling.tell("agent_restarting", "a", cause="signal", signal=9, delay_ms=150)
        assert telling.tell("agent_started", "a", incarnation=2, process_id=2).startswith("runs again as process 2")
        (restart,) = telling.story.restarts
        assert (restart.agent_type, round(restart.took_ms), restart.back_off_ms) == ("a", 200, 150.0)

    def test_counts_from_the_crash_also_when_that_was_told_late(self) -> None:
        telling = Telling("a")
        telling.tell("agent_started", "a", process_id=1)
        telling.tell("agent_exited", "a", cause="signal", signal=9, uptime_seconds=0.03)
        telling.tell("agent_started", "a", incarnation=2, process_id=2)
        assert round(telling.story.restarts[0].took_ms) == 170
