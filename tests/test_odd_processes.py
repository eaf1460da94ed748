"""Processes and files in states that are seldom met: a first thread that has ended, a log that was deleted."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sidecar.supervision import process_table
from sidecar.supervision.agent_logs import AgentLogs
from tests.fleet import Fleet, runs, wait_until

# Its first thread ends, another goes on; it ignores SIGTERM and has a session of its own.
HEADLESS = """
import ctypes, os, signal, threading, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    def goes_on():
        print("ready", os.getpid(), flush=True)
        time.sleep(600)
    threading.Thread(target=goes_on).start()
    ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)  # exit(2), of this thread alone
time.sleep(600)
"""

SAYS_WHICH = "import os, time; print('incarnation', os.environ['AGENT_INCARNATION'], flush=True); time.sleep(600)"


def test_a_process_whose_first_thread_has_ended_ends_with_its_agent(tmp_path: Path) -> None:
    with Fleet(tmp_path, headless=runs(HEADLESS, stop_timeout_seconds=0.2)) as fleet:
        agent = fleet.spawn_id("headless")
        pid = int(fleet.wait_for_log(agent, "\n").split()[1])
        wait_until(lambda: "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text(), what="its first thread ends")
        (row,) = (row for row in process_table.rows() if row.pid == pid)
        assert not row.is_zombie
        assert f"AGENT_ID={agent}".encode() in process_table.environ(pid)
        assert pid in fleet.processes()
        fleet.stop(agent)
        wait_until(lambda: all(row.pid != pid or row.is_zombie for row in process_table.rows()))


def test_a_log_that_was_deleted_is_made_again_for_the_next_incarnation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Fleet(tmp_path, tells=runs(SAYS_WHICH)) as fleet:
        agent = fleet.spawn_id("tells")
        fleet.wait_for_log(agent, "incarnation 1")
        wait_until(lambda: fleet.status(agent).uptime_seconds > 1.3, what="its restart is prepared")
        for path in (tmp_path / "logs").iterdir():
            path.unlink()
        wait_until(lambda: "log file was deleted" in caplog.text)
        os.kill(fleet.status(agent).process_id or 0, signal.SIGKILL)
        assert fleet.wait_for_log(agent, "incarnation 2") == "incarnation 2\n"


def test_what_an_agent_writes_between_two_looks_is_bounded(tmp_path: Path) -> None:
    """A look at its limits comes once an hour here: what bounds the log is what looks at the log itself."""
    floods = runs("import os, sys\nwhile True: os.write(1, b'x' * 65535 + b'\\n')", stop_timeout_seconds=0.2)
    with Fleet(tmp_path, options={"log_max_mb": 1, "sample_seconds": 3600}, floods=floods) as fleet:
        fleet.spawn("floods")
        path = AgentLogs(tmp_path / "logs", max_bytes=1 << 20).path(1, "stdout")
        wait_until(lambda: path.stat().st_size > 200 << 20, what="it has written 200 MB")
        wait_until(lambda: path.stat().st_blocks * 512 < path.stat().st_size // 2, what="most of it was given back")
