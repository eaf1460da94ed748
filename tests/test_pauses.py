"""A pause of the sidecar harms no agent: what waited to be heard is heard first, and deadlines begin again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sidecar.actors import messages as m
from sidecar.actors.agents.spawner_facts import CensusTaken
from sidecar.actors.runtime.timers import GAP_S, ClockGap
from sidecar.state.models import AgentState
from tests.fleet import SLEEPS, WITHIN_S, Fleet, does, runs, wait_until

IGNORES_TERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); signal.pause()"

TELLS_GAPS = """
from sidecar.actors.runtime.timers import ClockGap, Timers
from sidecar.actors.runtime.asking import Fact

class Due(Fact, frozen=True):
    pass

class Told:
    name = "told"
    def tell(self, fact):
        print(type(fact).__name__, getattr(fact, "gap_s", 0.0), flush=True)

timers = Timers()
timers.tell_gaps(Told())
timers.tell_after(0.4, Told(), Due())
timers.start()
print("up", flush=True)
input()
"""


def test_a_heartbeat_that_waits_to_be_read_counts(tmp_path: Path) -> None:
    asked: list[Callable[[], None]] = []
    profile = does(*SLEEPS, heartbeat_timeout_seconds=0.1, restart="never")
    with Fleet(tmp_path, input_read=asked.append, sleeps=profile) as fleet:
        agent = fleet.spawn_id("sleeps")
        for _ in range(2):
            judge = wait_until(lambda: asked.pop() if asked else None)
            fleet.ask(m.RecordHeartbeat(agent_id=agent))
            judge()
            assert fleet.status(agent).state is AgentState.RUNNING
        wait_until(lambda: asked)[0]()
        assert fleet.wait_for_event(agent, "agent_failed")["cause"] == "heartbeat"


def test_after_a_gap_a_silent_agent_has_its_whole_time_again(tmp_path: Path) -> None:
    asked: list[Callable[[], None]] = []
    profile = does(*SLEEPS, heartbeat_timeout_seconds=0.3, restart="never")
    with Fleet(tmp_path, input_read=asked.append, sleeps=profile) as fleet:
        agent = fleet.spawn_id("sleeps")
        judge = wait_until(lambda: asked.pop() if asked else None)
        fleet.spawner.tell(ClockGap(10.0))
        before = time.monotonic()
        judge()
        wait_until(lambda: asked)
        assert time.monotonic() - before >= 0.29
        assert fleet.status(agent).state is AgentState.RUNNING


def test_a_gap_counts_neither_for_the_time_to_run_nor_for_the_time_to_stop(tmp_path: Path) -> None:
    profiles = {
        "runs": does(*SLEEPS, run_timeout_seconds=0.5, restart="never"),
        "stops": runs(IGNORES_TERM, stop_timeout_seconds=0.5),
    }
    with Fleet(tmp_path, **profiles) as fleet:
        longer, stubborn = fleet.spawn_id("runs"), fleet.spawn_id("stops")
        fleet.spawner.tell(ClockGap(1.0))
        fleet.wait_for_log(stubborn, "ready")
        before = time.monotonic()
        stopping = threading.Thread(target=fleet.stop, args=(stubborn,))
        stopping.start()
        fleet.wait_for_state(stubborn, AgentState.STOPPING)
        fleet.spawner.tell(ClockGap(1.0))
        stopping.join(WITHIN_S)
        assert time.monotonic() - before >= 1.4
        assert fleet.wait_for_event(longer, "agent_failed")["cause"] == "timeout"
        assert fleet.wait_for_event(longer, "agent_exited")["uptime_seconds"] >= 1.4


def test_a_late_look_at_the_processes_does_not_shorten_the_time_to_stop(tmp_path: Path) -> None:
    """After a pause, such a look may come before the gap is known."""
    with Fleet(tmp_path, stops=runs(IGNORES_TERM, stop_timeout_seconds=60.0)) as fleet:
        stubborn = fleet.spawn_id("stops")
        fleet.wait_for_log(stubborn, "ready")
        stopping = threading.Thread(target=fleet.stop, args=(stubborn,))
        stopping.start()
        fleet.wait_for_state(stubborn, AgentState.STOPPING)
        fleet.spawner.tell(CensusTaken(fleet.trees(), 0, time.monotonic() + 100.0))
        assert fleet.status(stubborn).state is AgentState.STOPPING
        assert len(fleet.trees()[stubborn]) == 1
        fleet.stop(stubborn, force=True)
        stopping.join(WITHIN_S)


def test_a_process_that_was_stopped_tells_the_gap_before_what_was_due_in_it() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", TELLS_GAPS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    os.kill(process.pid, signal.SIGSTOP)
    stopped_at = time.monotonic()
    wait_until(lambda: time.monotonic() > stopped_at + GAP_S + 1.0)
    os.kill(process.pid, signal.SIGCONT)
    gap, due = process.stdout.readline().split(), process.stdout.readline().split()
    assert (gap[0], due[0]) == ("ClockGap", "Due")
    assert GAP_S + 1.0 <= float(gap[1]) < WITHIN_S, "all of it, also what lay before the next timer"
    process.communicate("\n", timeout=WITHIN_S)
