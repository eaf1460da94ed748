"""What agents write is kept in files they write to themselves: read, followed, and bounded without loss."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.actors import messages as m
from sidecar.state.models import AgentState
from sidecar.supervision.agent_logs import AgentLogs, Chunk
from sidecar.supervision.process_exits import ExitWatcher
from tests.fleet import Fleet, does, runs, wait_until

COUNTS = "import sys\nfor n in range({lines}): sys.stdout.write(f'{{n:09d}} ' + 'x' * 54 + '\\n')"
SLOWLY = "import time\nfor n in range(3):\n    print(n, flush=True)\n    time.sleep(0.15)"
TORN = """
import os, time
for _ in range(5):
    for part in (b"x\\xe2\\x82", b"\\xac\\n"):
        os.write(1, part)
        time.sleep(0.12)
os.write(1, b"end\\n")
time.sleep(600)
"""
LEAKS = "import os, sys; sys.stderr.write('my token is ' + os.environ['JWT_TOKEN'] + '\\n'); sys.exit(3)"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(
        tmp_path,
        both=does("sh", "-c", "echo out; echo err >&2; exit 0"),
        slowly=runs(SLOWLY),
        leaks=runs(LEAKS, restart="never"),
        twice=does("sh", "-c", "echo $AGENT_INCARNATION; exit 3", max_restarts=1, backoff_initial_seconds=0.01),
        bytes=does("printf", "\\377\\376 caf\\303\\251\\n"),
        sleeps=does("sleep", "600"),
        empties=does(
            "sh",
            "-c",
            "echo before before before before; sleep 0.3; echo written > /dev/stdout; echo after;"
            "[ $AGENT_INCARNATION = 1 ] && echo at first > /dev/stderr || echo again > /dev/stderr; exit 3",
            max_restarts=1,
            backoff_initial_seconds=0.01,
        ),
        torn=runs(TORN),
        greets=does("sh", "-c", "echo $AGENT_INCARNATION; exec sleep 600"),
    ) as fleet:
        yield fleet


def test_streams_are_kept_apart_and_private(fleet: Fleet) -> None:
    agent = fleet.spawn_id("both")
    fleet.wait_for_state(agent, AgentState.COMPLETED)
    assert (fleet.log(agent), fleet.log(agent, "stderr")) == ("out\n", "err\n")
    for path in (fleet.directory / "logs").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


def test_a_tail_is_the_last_lines(fleet: Fleet) -> None:
    agent = fleet.spawn_id("slowly")
    fleet.wait_for_state(agent, AgentState.COMPLETED)
    assert [fleet.log(agent, tail=n) for n in (0, 1, 2, 10)] == ["", "2\n", "1\n2\n", "0\n1\n2\n"]


def test_a_follower_sees_every_byte_once_and_learns_of_the_end(fleet: Fleet) -> None:
    agent = fleet.spawn_id("slowly")
    seen, offset, ended = b"", 0, False
    while not ended:
        chunk = fleet.ask(m.ReadLogs(agent_id=agent, project_id=None, offset=offset, timeout_s=5))
        assert chunk.offset == offset
        seen, offset, ended = seen + chunk.data, chunk.next_offset, chunk.ended
    assert seen == b"0\n1\n2\n"


def test_a_follower_of_a_silent_agent_is_answered_when_its_time_is_up(fleet: Fleet) -> None:
    agent = fleet.spawn_id("sleeps")
    before = time.monotonic()
    chunk = fleet.ask(m.ReadLogs(agent_id=agent, project_id=None, offset=0, timeout_s=0.3))
    assert (chunk.data, chunk.ended) == (b"", False)
    assert 0.3 <= time.monotonic() - before < 2.0


def test_bytes_come_back_as_they_were_written(fleet: Fleet) -> None:
    agent = fleet.spawn_id("bytes")
    fleet.wait_for_state(agent, AgentState.COMPLETED)
    assert fleet.ask(m.ReadLogs(agent_id=agent, project_id=None)).data == b"\xff\xfe caf\xc3\xa9\n"


def test_a_log_that_its_agent_has_emptied_is_read_from_its_beginning(fleet: Fleet) -> None:
    agent = fleet.spawn_id("empties")
    seen, offset = "", 0
    while "after" not in seen:
        chunk = fleet.ask(m.ReadLogs(agent_id=agent, project_id=None, stream="stdout", offset=offset, timeout_s=5.0))
        seen, offset = seen + chunk.data.decode(), chunk.next_offset
    assert [*dict.fromkeys(seen.split())] == ["before", "written", "after"]
    fleet.wait_for_state(agent, AgentState.FAILED)
    exits = [msgspec.json.decode(e.data) for e in fleet.events(agent, "agent_exited")]
    assert [exited["last_lines"] for exited in exits] == [["at first"], ["again"]]


def test_no_character_is_torn_for_a_follower(fleet: Fleet) -> None:
    agent = fleet.spawn_id("torn")
    seen, offset = "", 0
    while not seen.endswith("end\n"):
        chunk = fleet.ask(m.ReadLogs(agent_id=agent, project_id=None, stream="stdout", offset=offset, timeout_s=5.0))
        seen, offset = seen + chunk.data.decode(), chunk.next_offset
    assert seen == "x\u20ac\n" * 5 + "end\n"


@given(st.text(), st.integers(0, 40))
def test_a_chunk_ends_with_a_whole_character_and_loses_nothing_else(text: str, cut: int) -> None:
    data = text.encode()[:cut]
    whole = Chunk(data, 0, True).of_whole_characters().data
    assert data.startswith(whole)
    assert len(data) - len(whole) < 4
    assert whole.decode() == data.decode(errors="ignore")


def test_a_log_is_bounded_also_when_its_agent_has_ended(tmp_path: Path) -> None:
    writes = runs("print(('x' * 99 + chr(10)) * 50_000, end='')")
    with Fleet(tmp_path, options={"log_max_mb": 1.0, "sample_seconds": 1000.0}, writes=writes) as fleet:
        agent = fleet.spawn_id("writes")
        fleet.wait_for_state(agent, AgentState.COMPLETED)
        stat = (tmp_path / "logs/000001.stdout.log").stat()
        assert stat.st_size > 4_000_000
        assert stat.st_blocks * 512 <= 1_500_000
        assert {len(line) for line in fleet.log(agent, tail=100_000).split("\n")} <= {0, 99}


def test_the_last_lines_of_an_exit_are_those_of_that_incarnation(fleet: Fleet) -> None:
    agent = fleet.spawn_id("twice")
    fleet.wait_for_event(agent, "agent_failed")
    exits = [fleet.wait_for_event(agent, "agent_exited", count=n)["last_lines"] for n in (1, 2)]
    assert exits == [["1"], ["2"]]
    assert fleet.log(agent) == "1\n2\n"


def test_what_its_successor_has_written_already_is_none_of_an_incarnations_last_lines(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart at once is told of only after it."""
    agent = fleet.spawn_id("greets")
    wait_until(lambda: fleet.status(agent).uptime_seconds > 1.3, what="its restart is prepared")
    written = fleet.directory / "logs" / "000001.stdout.log"
    tell = ExitWatcher._tell

    def tell_late(watcher: ExitWatcher, untold: list[Any]) -> None:
        if untold:
            wait_until(lambda: written.read_text() == "1\n2\n")
        tell(watcher, untold)

    monkeypatch.setattr(ExitWatcher, "_tell", tell_late)
    os.kill(fleet.status(agent).process_id or 0, signal.SIGKILL)
    assert fleet.wait_for_event(agent, "agent_exited")["last_lines"] == ["1"]


def test_a_token_that_an_agent_printed_does_not_reach_those_who_read_of_its_failure(fleet: Fleet) -> None:
    agent = fleet.spawn_id("leaks")
    data = fleet.wait_for_event(agent, "agent_failed")
    assert data["last_lines"] == ["my token is [token]"]
    assert "eyJ" not in (fleet.status(agent).last_error or "")


def test_no_part_of_a_token_is_left_of_a_line_that_is_cut(tmp_path: Path) -> None:
    logs = AgentLogs(tmp_path, max_bytes=1 << 20)
    logs.path(1, "stderr").write_text("x" * 440 + " eyJ" + "a" * 40 + "." + "b" * 200 + "." + "c" * 40)
    (line,) = logs.last_lines(1, 20, since=(0, 0))
    assert line == "x" * 440 + " [token]"
    logs.path(2, "stderr").write_text("x" * 5000)
    assert logs.last_lines(2, 20, since=(0, 0)) == ("x" * 500,)


def test_an_agent_that_never_ran_has_an_empty_log(tmp_path: Path) -> None:
    with Fleet(tmp_path, options={"max_concurrent": 0}, both=does("true")) as fleet:
        assert fleet.log(fleet.spawn_id("both")) == ""


def counted(data: bytes) -> list[int]:
    return [int(line.split()[0]) for line in data.splitlines()]


def write_under_rotation(directory: Path, lines: int, max_bytes: int) -> tuple[AgentLogs, list[int]]:
    """A writer at full speed, a reader who follows it, and the bound kept all the time. Returns what the reader saw."""
    logs = AgentLogs(directory, max_bytes=max_bytes)
    stdout = logs.path(1, "stdout")
    stdout.touch()
    seen: list[int] = []
    with (
        stdout.open("ab") as output,
        subprocess.Popen([sys.executable, "-c", COUNTS.format(lines=lines)], stdout=output) as writer,
    ):
        done = threading.Event()

        def follow() -> None:
            offset = 0
            while True:
                over = done.is_set()
                chunk = logs.read(1, "stdout", offset)
                whole = chunk.data[: chunk.data.rfind(b"\n") + 1]
                seen.extend(counted(whole))
                offset = chunk.offset + len(whole)
                if over and chunk.at_end:
                    return

        follower = threading.Thread(target=follow)
        follower.start()
        while writer.poll() is None:
            logs.bound([1])
        done.set()
        follower.join(30)
    return logs, seen


def test_bounding_a_log_under_a_running_writer_loses_no_line(tmp_path: Path) -> None:
    lines, max_bytes = 200_000, 4 << 20
    logs, seen = write_under_rotation(tmp_path / "logs", lines, max_bytes)
    assert seen == list(range(lines))
    logs.bound([1])
    path = logs.path(1, "stdout")
    assert path.stat().st_size == lines * 65
    assert path.stat().st_blocks * 512 <= max_bytes * 5 // 4 + 4096
    kept = logs.read(1, "stdout", 0)
    assert kept.offset > 0
    assert counted(kept.data[kept.data.index(b"\n") + 1 :])[0] > 0
    assert counted(logs.tail(1, "stdout", 3).data) == [lines - 3, lines - 2, lines - 1]


@pytest.mark.soak
def test_many_rotations_lose_no_line(tmp_path: Path) -> None:
    _, seen = write_under_rotation(tmp_path / "logs", 3_000_000, 16 << 20)
    assert seen == list(range(3_000_000))


@given(st.lists(st.sampled_from([b"\n", b"\r", b"a", b"\xff"]), max_size=40).map(b"".join), st.integers(0, 12))
def test_a_tail_agrees_with_the_whole(data: bytes, lines: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        logs = AgentLogs(Path(directory) / "logs", max_bytes=1 << 20)
        stdout = logs.path(7, "stdout")
        stdout.write_bytes(data)
        chunk = logs.tail(7, "stdout", lines)
        *ended, rest = data.split(b"\n")
        whole = [line + b"\n" for line in ended] + ([rest] if rest else [])
        assert chunk.data == (b"".join(whole[-lines:]) if lines else b"")
        assert chunk.next_offset == len(data)


def test_logs_are_bounded_while_agents_run(tmp_path: Path) -> None:
    chatty = runs("for _ in range(60_000): print('y' * 63)\nimport time\ntime.sleep(600)")
    with Fleet(tmp_path, options={"log_max_mb": 1.0, "sample_seconds": 0.1}, chatty=chatty) as fleet:
        agent = fleet.spawn_id("chatty")
        path = tmp_path / "logs" / "000001.stdout.log"
        wait_until(lambda: path.exists() and path.stat().st_size > 3_500_000)
        wait_until(lambda: path.stat().st_blocks * 512 <= 1.3 * 2**20)
        first = fleet.ask(m.ReadLogs(agent_id=agent, project_id=None, offset=0))
        assert first.offset > 0


def test_a_disk_that_runs_short_costs_the_oldest_logs_of_the_ended_and_no_agent(tmp_path: Path) -> None:
    chatty = runs("for _ in range(60_000): print('y' * 63)\nimport time\ntime.sleep(600)")
    said = does("sh", "-c", "echo said")
    options = {"sample_seconds": 0.05, "min_free_disk_mb": 256.0}
    with Fleet(tmp_path, options=options, chatty=chatty, said=said) as fleet:
        running = fleet.spawn_id("chatty")
        ended = []
        for _ in range(3):  # one after the other: those that ended first go first
            ended.append(fleet.spawn_id("said"))
            fleet.wait_for_state(ended[-1], AgentState.COMPLETED)
        kept = tmp_path / "logs" / "000001.stdout.log"
        wait_until(lambda: kept.stat().st_size == 60_000 * 64)
        assert [fleet.log(agent) for agent in ended] == ["said\n"] * 3

        free_mb = iter([255, 255, 257])  # short, still short without the first, not without the second
        with disk_of(lambda: next(free_mb, 257)):
            wait_until(lambda: not (tmp_path / "logs" / "000003.stdout.log").exists())
            assert [fleet.log(agent) for agent in ended] == ["", "", "said\n"]
            assert kept.stat().st_blocks * 512 > 3_500_000
        with disk_of(lambda: 255):
            wait_until(lambda: kept.stat().st_blocks * 512 <= 1.3 * 2**20)
            assert [fleet.log(agent) for agent in ended] == ["", "", ""]
            assert fleet.log(running, tail=1) == "y" * 63 + "\n"
        assert fleet.status(running).state is AgentState.RUNNING
        assert [fleet.status(agent).state for agent in ended] == [AgentState.COMPLETED] * 3


@contextmanager
def disk_of(free_mb: Callable[[], int]) -> Iterator[None]:
    """A disk that has so much left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AgentLogs, "free_bytes", lambda _: free_mb() * 2**20)
        yield
