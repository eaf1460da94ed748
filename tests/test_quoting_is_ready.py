"""To quote what an agent said last takes expressions and tables: no restart waits for them to be made.

Each fleet runs in a process of its own, in which nothing has been quoted yet.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BEGIN = """
import importlib.abc, os, signal, sys, threading
from pathlib import Path
import psutil
from sidecar.actors.agents.quoting import prepare_soon
from sidecar.supervision.restart import SETTLED_AFTER_S
from tests.fleet import Fleet, does, wait_until

SPEAKS = does("sh", "-c", "echo incarnation $AGENT_INCARNATION; exec sleep 600", restart="always")
assert not {"re2", "sidecar.actors.context.secrets.redaction"} & set(sys.modules), "a start has imported them"
"""

READY_BEFORE_AN_AGENT_ENDS = """
with Fleet(Path(sys.argv[1]), speaks=SPEAKS) as fleet:
    fleet.spawn("speaks")
    prepare_soon().join(20)
    from sidecar.actors.context.secrets.redaction import _marks
    assert _marks.cache_info().currsize == 1
    assert "re2" in sys.modules
"""

RESTARTED_BEFORE_IT_IS_READY = """
asked, may_go_on = threading.Event(), threading.Event()

class Held(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "re2":
            asked.set()
            assert may_go_on.wait(60)

sys.meta_path.insert(0, Held())
with Fleet(Path(sys.argv[1]), speaks=SPEAKS) as fleet:
    agent_id = fleet.spawn_id("speaks")
    fleet.wait_for_log(agent_id, "incarnation 1")
    process = psutil.Process(fleet.status(agent_id).process_id)
    log = Path(os.readlink(f"/proc/{process.pid}/fd/1"))
    assert asked.wait(20)
    wait_until(lambda: fleet.status(agent_id).uptime_seconds > SETTLED_AFTER_S + 0.1)
    fleet.status(agent_id)  # what was due before has been done
    process.send_signal(signal.SIGKILL)
    try:
        wait_until(lambda: "incarnation 2" in log.read_text(), what="the restart waits for RE2")
        assert "re2" not in sys.modules
    finally:
        may_go_on.set()
"""

ENDS_BEFORE_IT_IS_READY = """
asked, may_go_on = threading.Event(), threading.Event()

class Held(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "sidecar.actors.context.secrets.redaction":
            asked.set()
            assert may_go_on.wait(60)

sys.meta_path.insert(0, Held())
ENDS = does("sh", "-c", "echo its last words; exit 3", restart="never")
with Fleet(Path(sys.argv[1]), ends=ENDS) as fleet:
    agent_id = fleet.spawn_id("ends")
    assert asked.wait(20)
    try:
        fleet.wait_for_log(agent_id, "words")
        assert fleet.status(agent_id).state == "running", "its end is told before its last words can be"
    finally:
        may_go_on.set()
    wait_until(lambda: fleet.status(agent_id).state == "failed")
    assert fleet.status(agent_id).last_error == "ended with exit code 3: its last words"
"""


@pytest.mark.parametrize(
    "program",
    [READY_BEFORE_AN_AGENT_ENDS, RESTARTED_BEFORE_IT_IS_READY, ENDS_BEFORE_IT_IS_READY],
    ids=["ready", "held", "ended"],
)
def test_nothing_waits_for_what_quotes_an_agent(program: str, tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    ran = subprocess.run(
        [sys.executable, "-c", BEGIN + program, tmp_path], cwd=root, capture_output=True, text=True, timeout=90
    )
    assert ran.returncode == 0, ran.stderr
