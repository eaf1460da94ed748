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

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.actors import messages as m
from sidecar.actors.agents.quoting import quoted
from sidecar.state.models import AgentState
from sidecar.supervision.agent_logs import MAX_READ_BYTES, AgentLogs, Chunk, Stream
from sidecar.supervision.process_exits import ExitWatcher
from tests.fleet import Fleet, does, runs, wait_until
from tests.secret_samples import TOKENS

COUNTS = "import sys\nfor n in range({lines}): sys.stdout.write(f'{{n:09d}} ' + 'x' * 54 + '\\n')"
SLOWLY = "import time\nfor n in range(3):\n    print(n, flush=True)\n    time.sleep(0.15)"
WRITES_MUCH = "import sys\nfor _ in range(60): sys.stdout.write(('y' * 63 + '\\n') * 1000)"
LEAKS = "import os, sys; sys.stderr.write('my token is ' + os.environ['JWT_TOKEN'] + '\\n'); sys.exit(3)"
HESITATES = r"printf 'x\303'; until [ -e go-on ]; do sleep 0.01; done; printf '\251\n\303'"
# What is opened anew as /dev/stdout is the log itself, and `>` cuts it.
CUTS = """
echo line 1; echo line 2
until [ -e cut ]; do sleep 0.01; done; : > /dev/stdout
until [ -e go-on ]; do sleep 0.01; done; echo more than there was before
exec sleep 600
"""
# The third says nothing.
COMPLAINS = "[ $AGENT_INCARNATION = 3 ] || echo fatal: no such thing > /dev/stderr; exit 3"


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
        greets=does("sh", "-c", "echo $AGENT_INCARNATION; exec sleep 600"),
        hesitates=does("sh", "-c", HESITATES),
        cuts=does("sh", "-c", CUTS),
        complains=does("sh", "-c", COMPLAINS, max_restarts=3, backoff_initial_seconds=0.05),
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


def test_a_follower_gets_a_character_when_it_is_whole(fleet: Fleet) -> None:
    agent = fleet.spawn_id("hesitates")
    wait_until(lambda: (fleet.directory / "logs" / "000001.stdout.log").stat().st_size == 2)
    begun = fleet.ask(m.ReadLogs(agent_id=agent, project_id=None))
    assert (begun.data, begun.next_offset) == (b"x", 1)
    for timeout_s in (0.0, 0.3):
        nothing = fleet.ask(m.ReadLogs(agent_id=agent, project_id=None, offset=1, timeout_s=timeout_s))
        assert (nothing.data, nothing.next_offset, nothing.ended) == (b"", 1, False)
    seen, offset, ended = "", 1, False
    (fleet.directory / "go-on").touch()
    while not ended:
        chunk = fleet.ask(m.ReadLogs(agent_id=agent, project_id=None, offset=offset, timeout_s=5))
        seen, offset, ended = seen + chunk.data.decode("utf-8", "replace"), chunk.next_offset, chunk.ended
    assert seen == "é\n\N{REPLACEMENT CHARACTER}"  # the last will not become whole any more


@given(st.text(st.sampled_from("aé€😀"), max_size=6), st.integers(0, 24), st.binary(max_size=3))
def test_chunks_of_whole_characters_say_what_the_whole_says(text: str, cut: int, more: bytes) -> None:
    """more: bytes that may be no UTF-8."""
    data = text.encode() + more
    first = Chunk(data[:cut], 0, at_end=False).of_whole_characters()
    assert len(data[:cut]) - len(first.data) <= 3
    rest = data[first.next_offset :]
    assert first.data.decode("utf-8", "replace") + rest.decode("utf-8", "replace") == data.decode("utf-8", "replace")


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
    report = ExitWatcher._report

    def report_late(watcher: ExitWatcher[Any], unreported: list[Any]) -> None:
        if unreported:
            wait_until(lambda: written.read_text() == "1\n2\n")
        report(watcher, unreported)

    monkeypatch.setattr(ExitWatcher, "_report", report_late)
    os.kill(fleet.status(agent).process_id or 0, signal.SIGKILL)
    assert fleet.wait_for_event(agent, "agent_exited")["last_lines"] == ["1"]


def test_who_follows_a_log_that_its_writer_cuts_reads_on_from_its_start(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = fleet.spawn_id("cuts")
    fleet.wait_for_log(agent, "line 2\n")
    read = AgentLogs.read

    def read_and_let_go_on(logs: AgentLogs, serial: int, stream: Stream, offset: int) -> Chunk:
        found = read(logs, serial, stream, offset)
        if found.offset == 0:  # that it is shorter can be seen only now
            (fleet.directory / "go-on").touch()
        return found

    monkeypatch.setattr(AgentLogs, "read", read_and_let_go_on)
    (fleet.directory / "cut").touch()
    chunk = fleet.ask(m.ReadLogs(agent_id=agent, project_id=None, offset=14, timeout_s=10))
    assert (chunk.offset, chunk.data) == (0, b"more than there was before\n")


def test_the_last_lines_of_an_agent_that_cuts_its_log_at_each_start_are_known(fleet: Fleet) -> None:
    agent = fleet.spawn_id("complains")
    assert fleet.wait_for_event(agent, "agent_failed")["last_lines"] == ["fatal: no such thing"]
    exits = [fleet.wait_for_event(agent, "agent_exited", count=n).get("last_lines") for n in (1, 2, 3, 4)]
    assert exits == [["fatal: no such thing"], ["fatal: no such thing"], None, ["fatal: no such thing"]]


@pytest.mark.parametrize(
    ("written", "since", "until", "said"),
    [
        (b"new\n", 8, None, b"new\n"),  # shorter than it was at the start: cut
        (b"new\n", 8, 4, b"new\n"),
        (b"next's\n", 0, 8, b""),  # shorter than it was at its end: the next one cut it
        (b"old\nnew\n", 4, None, b"new\n"),
        (b"old\nnew\nnext's\n", 4, 8, b"new\n"),
        (b"old\n", 4, None, b""),
    ],
)
def test_what_an_incarnation_said_is_told_by_how_long_the_log_was(
    tmp_path: Path, written: bytes, since: int, until: int | None, said: bytes
) -> None:
    logs = AgentLogs(tmp_path / "logs", max_bytes=1 << 20)
    logs.path(1, "stdout").write_bytes(written)
    assert logs.tail(1, "stdout", 5, since=since, until=until).data == said


def test_a_token_that_an_agent_printed_does_not_reach_those_who_read_of_its_failure(fleet: Fleet) -> None:
    agent = fleet.spawn_id("leaks")
    data = fleet.wait_for_event(agent, "agent_failed")
    assert data["last_lines"] == ["my token is [REDACTED:jwt]"]
    assert "eyJ" not in (fleet.status(agent).last_error or "")


def test_no_part_of_a_token_is_left_of_a_line_that_is_cut(tmp_path: Path) -> None:
    logs = AgentLogs(tmp_path, max_bytes=1 << 20)
    logs.path(1, "stderr").write_text("x" * 440 + " eyJ" + "a" * 40 + "." + "b" * 200 + "." + "c" * 40)
    (line,) = quoted(logs.last_lines(1, 20, since=(0, 0)))
    assert line == "x" * 440 + " [REDACTED:jwt]"
    logs.path(2, "stderr").write_text("x" * 5000)
    assert quoted(logs.last_lines(2, 20, since=(0, 0))) == ("x" * 500,)


def test_a_key_of_many_lines_is_taken_out_of_what_is_quoted_even_without_its_beginning() -> None:
    key = TOKENS["pem-rsa"].split("\n")
    assert quoted(["before", *key, "after"]) == ("before", "[REDACTED:private-key]", *[""] * 7, "after")
    assert quoted([*key[3:], "after"]) == ("[REDACTED:private-key]", *[""] * 4, "after")


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


def test_a_tail_that_reaches_what_was_given_back_begins_with_a_whole_line(tmp_path: Path) -> None:
    logs = AgentLogs(tmp_path / "logs", max_bytes=1 << 16)
    path = logs.path(1, "stdout")
    path.write_bytes((b"x" * 198 + b"\n") * 1000)
    logs.bound([1])
    assert logs.read(1, "stdout", 0).offset % 199 != 0
    lines = logs.tail(1, "stdout", 1000).data.splitlines()
    assert len(lines) > 300
    assert set(lines) == {b"x" * 198}


def test_a_tail_of_one_line_that_is_too_long_is_its_end(tmp_path: Path) -> None:
    logs = AgentLogs(tmp_path / "logs", max_bytes=1 << 30)
    logs.path(1, "stdout").write_bytes(b"x" * 2 * MAX_READ_BYTES)
    assert logs.tail(1, "stdout", 10).data == b"x" * MAX_READ_BYTES
    logs.path(1, "stdout").write_bytes(b"x" * 2 * MAX_READ_BYTES + b"\ny\n")
    assert logs.tail(1, "stdout", 10).data == b"y\n"


def test_logs_are_bounded_while_agents_run(tmp_path: Path) -> None:
    chatty = runs(f"{WRITES_MUCH}\nimport time\ntime.sleep(600)")
    with Fleet(tmp_path, options={"log_max_mb": 1.0, "sample_seconds": 0.1}, chatty=chatty) as fleet:
        agent = fleet.spawn_id("chatty")
        path = tmp_path / "logs" / "000001.stdout.log"
        wait_until(lambda: path.exists() and path.stat().st_size > 3_500_000)
        wait_until(lambda: path.stat().st_blocks * 512 <= 1.3 * 2**20)
        first = fleet.ask(m.ReadLogs(agent_id=agent, project_id=None, offset=0))
        assert first.offset > 0


@pytest.mark.parametrize("ends", ["raise SystemExit(1)", "raise SystemExit(0)"])
def test_a_log_is_bounded_when_its_writer_has_ended(tmp_path: Path, ends: str) -> None:
    chatty = runs(f"{WRITES_MUCH}\n{ends}", max_restarts=2, backoff_initial_seconds=0.01)
    with Fleet(tmp_path, options={"log_max_mb": 1.0, "sample_seconds": 600.0}, chatty=chatty) as fleet:
        agent = fleet.spawn_id("chatty")
        wait_until(lambda: fleet.status(agent).state.has_ended)
        assert fleet.status(agent).state is (AgentState.FAILED if "1" in ends else AgentState.COMPLETED)
        assert (tmp_path / "logs" / "000001.stdout.log").stat().st_blocks * 512 <= 1.3 * 2**20
        assert fleet.log(agent, tail=1) == "y" * 63 + "\n"


def test_a_disk_that_runs_short_leaves_an_agent_that_is_backing_off_its_newest_lines(tmp_path: Path) -> None:
    chatty = runs(f"{WRITES_MUCH}\nraise SystemExit(1)", backoff_initial_seconds=600.0, backoff_max_seconds=600.0)
    options = {"sample_seconds": 0.05, "min_free_disk_mb": 256.0}
    with Fleet(tmp_path, options=options, chatty=chatty, sleeps=does("sleep", "600")) as fleet:
        fleet.spawn("sleeps")
        agent = fleet.spawn_id("chatty")
        fleet.wait_for_state(agent, AgentState.BACKING_OFF)
        log = tmp_path / "logs" / "000002.stdout.log"
        assert log.stat().st_blocks * 512 > 3_500_000
        with disk_of(lambda: 255):
            wait_until(lambda: log.stat().st_blocks * 512 <= 1.3 * 2**20)
        assert fleet.log(agent, tail=1) == "y" * 63 + "\n"


def test_a_disk_that_runs_short_costs_the_oldest_logs_of_the_ended_and_no_agent(tmp_path: Path) -> None:
    chatty = runs(f"{WRITES_MUCH}\nimport time\ntime.sleep(600)")
    said = does("sh", "-c", "echo said")
    options = {"sample_seconds": 0.05, "min_free_disk_mb": 256.0}
    with Fleet(tmp_path, options=options, chatty=chatty, said=said) as fleet:
        running = fleet.spawn_id("chatty")
        ended = []
        for _ in range(3):  # one ends before the next: the oldest go first
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
