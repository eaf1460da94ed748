"""Nothing of an agent outlives it: not children, not daemons, not those that will not listen."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from sidecar.actors import messages as m
from sidecar.actors.agents.adoption import UnrecordedStart, newest
from sidecar.actors.agents.spawner_facts import ProcessExited
from sidecar.state.agent_entries import AgentRecord
from sidecar.state.clock import utc_now
from sidecar.state.errors import WrongState
from sidecar.state.models import AgentId, AgentSpec, AgentState, ExitCause, ProcessIdentity
from sidecar.supervision import portable_processes, process_table, process_tree
from sidecar.supervision.limits import is_left_over
from sidecar.supervision.process_exit import ExitStatus
from sidecar.supervision.process_exits import Exited
from sidecar.supervision.process_identity import identity_of, is_alive, send_signal
from sidecar.supervision.process_tree import TreeProcess, kill_all
from sidecar.supervision.restart import SETTLED_AFTER_S
from tests.fleet import SLEEPS, Fleet, does, runs, wait_until

# A child in the agent's group, one in a group of its own, and a daemon by the book: fork, setsid, fork.
FAMILY = """
import os, subprocess, sys, time
subprocess.Popen(["sleep", "600"])
subprocess.Popen(["sleep", "600"], process_group=0)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "600"])
    os._exit(0)
os.wait()
print("ready", flush=True)
"""
IGNORES = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
)
SAYS_GOODBYE = """
import signal, sys, time
def end(*_):
    print("goodbye", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(600)
"""
POLITE_DAEMON = """
setsid sh -c 'trap "echo goodbye; exit" TERM; echo ready; while :; do sleep 0.02; done' &
exec sleep 600
"""
HOLDS_A_LOCK = "exec 9> lock; flock -w 1 9 && echo free || echo held; sleep 600 & exec sleep 600"
HIDES = """
import subprocess, time
subprocess.Popen(["sleep", "600"], env={}, start_new_session=True)
print("ready", flush=True)
time.sleep(600)
"""
BOMB = """
import os, time
until = time.monotonic() + 10  # were nobody to end it, it would end itself
while time.monotonic() < until:
    try:
        if os.fork() == 0:
            time.sleep(0.05)
    except OSError:
        time.sleep(0.01)
"""
HUNGRY = "import time; kept = bytearray(b'x' * 120_000_000); print('ready', flush=True); time.sleep(600)"
# Each by itself is small; the child alone computes.
BUSY = """
import os, time
kept = bytearray(b"x" * 50_000_000)
if os.fork() == 0:
    kept = bytearray(b"y" * 60_000_000)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        pass
time.sleep(600)
"""
once = {"restart": "never"}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(
        tmp_path,
        options={"sample_seconds": 0.1},
        family=runs(FAMILY + "time.sleep(600)", backoff_initial_seconds=30),
        leaves=runs(FAMILY),
        ignores=runs(IGNORES, stop_timeout_seconds=0.2),
        goodbye=runs(SAYS_GOODBYE),
        polite=does("sh", "-c", POLITE_DAEMON),
        holds=does("sh", "-c", HOLDS_A_LOCK),
        bomb=runs(BOMB, max_processes=40, **once),
        hungry=runs(HUNGRY, memory_limit_mb=60, stop_timeout_seconds=1, **once),
        timed=does(*SLEEPS, run_timeout_seconds=0.2, **once),
        silent=does(*SLEEPS, heartbeat_timeout_seconds=0.3, **once),
        sleeps=does(*SLEEPS),
        late=runs(IGNORES, run_timeout_seconds=0.5, stop_timeout_seconds=60),
        brief=does(*SLEEPS, run_timeout_seconds=0.7, **once),
        hides=runs(HIDES),
        busy=runs(BUSY),
    ) as fleet:
        yield fleet


def family(fleet: Fleet) -> tuple[m.SpawnedAgent, list[int]]:
    spawned = fleet.spawn("family")
    fleet.wait_for_log(spawned.status.agent_id, "ready")
    pids = fleet.processes()
    assert len(pids) == 4
    return spawned, pids


def alive(pids: list[int]) -> list[int]:
    """Not gone, nor waiting for init to notice."""
    return [pid for pid in pids if identity_of(pid) is not None]


def test_stop_ends_children_groups_of_their_own_and_daemons(fleet: Fleet) -> None:
    spawned, pids = family(fleet)
    stopped = fleet.stop(spawned.status.agent_id)
    assert (stopped.state, stopped.cause, stopped.process_id) == (AgentState.STOPPED, ExitCause.KILLED, None)
    assert alive(pids) == []
    fleet.wait_for_event(spawned.status.agent_id, "agent_stopped")
    assert fleet.story(spawned.status.agent_id)[-2:] == ["agent_exited", "agent_stopped"]


def test_a_crash_leaves_nothing_behind(fleet: Fleet) -> None:
    spawned, pids = family(fleet)
    os.kill(spawned.status.process_id or 0, signal.SIGKILL)
    fleet.wait_for_state(spawned.status.agent_id, AgentState.BACKING_OFF)
    wait_until(lambda: alive(pids) == [])


def test_one_that_waits_for_its_restart_is_stopped_when_its_daemon_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spared: list[int] = []
    is_spared = True

    def kill(processes: Iterable[TreeProcess]) -> tuple[TreeProcess, ...]:
        doomed = tuple(processes)
        if not is_spared:
            return kill_all(doomed)
        spared.extend(process.identity.pid for process in doomed)
        return ()

    monkeypatch.setattr("sidecar.actors.agents.stopping.kill_all", kill)
    leaves = "setsid sh -c '> there; exec sleep 600' & until [ -e there ]; do sleep 0.01; done; exit 3"
    with Fleet(tmp_path, leaves=does("sh", "-c", leaves, backoff_initial_seconds=30)) as fleet:
        agent = fleet.spawn_id("leaves")
        fleet.wait_for_state(agent, AgentState.BACKING_OFF)
        stopped = fleet.spawner.request(m.StopAgent(agent_id=agent, project_id=None))
        fleet.wait_for_state(agent, AgentState.STOPPED)
        looks = len(spared)
        wait_until(lambda: len(spared) >= looks + 3)
        assert not stopped.done()
        is_spared = False
        assert stopped.result(timeout=10).state is AgentState.STOPPED
        assert fleet.processes() == []


def test_an_agent_that_completes_takes_its_daemons_along(fleet: Fleet) -> None:
    agent = fleet.spawn_id("leaves")
    fleet.wait_for_state(agent, AgentState.COMPLETED)
    wait_until(lambda: fleet.processes() == [])


def test_a_held_log_does_not_delay_the_exit(fleet: Fleet) -> None:
    """Children hold the log open: a pipe would not end before they do."""
    agent = fleet.spawn_id("leaves")
    status = fleet.wait_for_state(agent, AgentState.COMPLETED, within_s=5)
    assert status.uptime_seconds < 5


def test_who_ignores_sigterm_is_killed_when_its_time_is_up(fleet: Fleet) -> None:
    agent = fleet.spawn_id("ignores")
    fleet.wait_for_log(agent, "ready")
    before = time.monotonic()
    assert fleet.stop(agent).state is AgentState.STOPPED
    assert 0.2 <= time.monotonic() - before < 2.0
    assert fleet.wait_for_event(agent, "agent_exited")["signal"] == signal.SIGKILL


def test_force_does_not_wait(fleet: Fleet) -> None:
    agent = fleet.spawn_id("goodbye")
    fleet.wait_for_log(agent, "ready")
    fleet.stop(agent, force=True)
    assert fleet.log(agent) == "ready\n"


def test_who_listens_has_time_to_say_goodbye(fleet: Fleet) -> None:
    agent = fleet.spawn_id("goodbye")
    fleet.wait_for_log(agent, "ready")
    stopped = fleet.stop(agent)
    assert (stopped.state, stopped.exit_code) == (AgentState.STOPPED, 0)
    assert fleet.log(agent) == "ready\ngoodbye\n"


def test_a_daemon_too_has_time_to_say_goodbye(fleet: Fleet) -> None:
    agent = fleet.spawn_id("polite")
    fleet.wait_for_log(agent, "ready")
    fleet.stop(agent)
    assert fleet.log(agent) == "ready\ngoodbye\n"


def test_what_a_dead_agents_children_held_is_free_for_the_next_incarnation(fleet: Fleet) -> None:
    agent = fleet.spawn("holds").status
    fleet.wait_for_log(agent.agent_id, "free")
    wait_until(lambda: fleet.status(agent.agent_id).uptime_seconds > SETTLED_AFTER_S)
    os.kill(agent.process_id or 0, signal.SIGKILL)
    wait_until(lambda: len(fleet.log(agent.agent_id).splitlines()) == 2)
    assert fleet.log(agent.agent_id) == "free\nfree\n"


def test_a_suspended_agent_can_be_stopped(fleet: Fleet) -> None:
    agent = fleet.spawn("goodbye").status
    fleet.wait_for_log(agent.agent_id, "ready")
    os.kill(agent.process_id or 0, signal.SIGSTOP)
    fleet.stop(agent.agent_id)
    assert fleet.log(agent.agent_id) == "ready\ngoodbye\n"


def test_a_second_stop_can_only_be_sooner(fleet: Fleet) -> None:
    agent = fleet.spawn_id("ignores")
    fleet.wait_for_log(agent, "ready")
    slow = fleet.spawner.request(m.StopAgent(agent_id=agent, project_id=None, timeout_s=60))
    assert fleet.status(agent).state is AgentState.STOPPING
    assert fleet.stop(agent, force=True).state is AgentState.STOPPED
    assert slow.result(timeout=5).state is AgentState.STOPPED


def test_a_later_stop_with_more_time_does_not_give_it(fleet: Fleet) -> None:
    agent = fleet.spawn_id("ignores")
    fleet.wait_for_log(agent, "ready")
    soon = fleet.spawner.request(m.StopAgent(agent_id=agent, project_id=None, timeout_s=0.3))
    fleet.spawner.request(m.StopAgent(agent_id=agent, project_id=None, timeout_s=60))
    assert soon.result(timeout=10).state is AgentState.STOPPED


def test_a_stop_comes_before_what_a_broken_limit_would_lead_to(fleet: Fleet) -> None:
    agent = fleet.spawn_id("late")
    fleet.wait_for_state(agent, AgentState.STOPPING)
    assert fleet.stop(agent, force=True).state is AgentState.STOPPED


def test_a_stop_comes_before_a_restart_that_was_asked_for(fleet: Fleet) -> None:
    agent = fleet.spawn_id("late")
    restarted = fleet.spawner.request(m.RestartAgent(agent_id=agent, project_id=None))
    fleet.wait_for_state(agent, AgentState.STOPPING)
    fleet.stop(agent, force=True)
    with pytest.raises(WrongState):
        restarted.result(timeout=5)


def test_each_incarnation_has_its_own_time(fleet: Fleet) -> None:
    agent = fleet.spawn_id("brief")
    wait_until(lambda: fleet.status(agent).uptime_seconds > 0.4)
    fleet.restart(agent)
    fleet.wait_for_event(agent, "agent_failed")
    assert fleet.wait_for_event(agent, "agent_exited", count=2)["uptime_seconds"] >= 0.7


def test_the_end_of_an_earlier_incarnation_ends_nothing(fleet: Fleet) -> None:
    agent = fleet.spawn_id("sleeps")
    fleet.restart(agent)
    fleet.spawner.tell(ProcessExited(Exited(agent, 1, ExitStatus(exit_code=0), time.monotonic(), None)))
    assert fleet.status(agent).state is AgentState.RUNNING


def test_a_fork_bomb_is_ended_whole(fleet: Fleet) -> None:
    agent = fleet.spawn_id("bomb")
    data = fleet.wait_for_event(agent, "agent_failed")
    assert data["cause"] == "killed"
    assert "its profile allows 40" in (fleet.status(agent).last_error or "")
    assert fleet.processes() == []


def test_an_agent_over_its_memory_limit_is_ended(fleet: Fleet) -> None:
    agent = fleet.spawn_id("hungry")
    assert fleet.wait_for_event(agent, "agent_failed")["cause"] == "memory"
    assert "its profile allows 60 MB" in (fleet.status(agent).last_error or "")


def test_an_agent_over_its_time_is_ended(fleet: Fleet) -> None:
    agent = fleet.spawn_id("timed")
    assert fleet.wait_for_event(agent, "agent_failed")["cause"] == "timeout"
    assert fleet.status(agent).last_error == "it ran longer than 0.2 s"


def test_a_heartbeat_keeps_an_agent_alive_and_silence_ends_it(fleet: Fleet) -> None:
    agent = fleet.spawn_id("silent")
    until = time.monotonic() + 0.6
    wait_until(lambda: fleet.ask(m.RecordHeartbeat(agent_id=agent)) and time.monotonic() > until)
    assert fleet.status(agent).state is AgentState.RUNNING
    assert fleet.wait_for_event(agent, "agent_failed")["cause"] == "heartbeat"


def test_usage_is_measured_over_the_whole_tree(fleet: Fleet) -> None:
    agent = fleet.spawn_id("busy")
    wait_until(lambda: fleet.status(agent).memory_mb > 100, what="both processes' memory")
    wait_until(lambda: fleet.status(agent).cpu_percent > 20, what="the child's work")
    fleet.stop(agent)
    assert (fleet.status(agent).memory_mb, fleet.status(agent).cpu_percent) == (0, 0)


def test_a_shutdown_stops_all_at_once_within_one_deadline(fleet: Fleet) -> None:
    agents = [fleet.spawn_id("ignores") for _ in range(5)]
    for agent in agents:
        fleet.wait_for_log(agent, "ready")
    before = time.monotonic()
    assert fleet.ask(m.Drain(timeout_s=1.0)) == 5
    assert time.monotonic() - before < 2.5
    assert {fleet.status(agent).state for agent in agents} == {AgentState.STOPPED}
    with pytest.raises(Exception, match="shutting down"):
        fleet.spawn("sleeps")


def test_a_child_that_only_its_parent_tells_of_is_ended_too(fleet: Fleet) -> None:
    status = fleet.spawn("hides").status
    fleet.wait_for_log(status.agent_id, "ready")
    (child,) = map(int, Path(f"/proc/{status.process_id}/task/{status.process_id}/children").read_text().split())
    # A look has seen it when its memory counts: an agent alone uses less than both.
    alone = psutil.Process(status.process_id).memory_info().rss
    wait_until(lambda: fleet.status(status.agent_id).memory_mb * 2**20 > alone + 2**17)
    fleet.stop(status.agent_id)
    assert identity_of(child) is None


def test_a_session_is_an_agents_only_while_its_leader_is() -> None:
    with subprocess.Popen(SLEEPS, start_new_session=True) as child:
        real = identity_of(child.pid)
        assert real is not None
        before = ProcessIdentity(real.boot_id, real.pid, real.start_ticks - 1)
        assert process_tree.ProcessCensus("nobody").take({before: process_tree.Owned("a", 1)}) == {}
        assert list(process_tree.ProcessCensus("nobody").take({real: process_tree.Owned("a", 1)})) == ["a"]
        child.kill()


def test_a_daemon_of_one_that_ended_is_not_taken_for_the_agent() -> None:
    daemon = process_tree.TreeProcess(
        identity=ProcessIdentity("boot", 7, 1), incarnation=1, group=7, session=7, cpu_s=0, rss_bytes=0
    )
    record = AgentRecord(
        spec=AgentSpec(agent_id=AgentId("a-1"), agent_type="a", issue_id="i", project_id="p"),
        serial=1,
        requested_by=AgentId("someone"),
        created_at=utc_now(),
        state=AgentState.BACKING_OFF,
        incarnation=1,
    )
    assert newest(record, {"a-1": (daemon,)}) is None
    starting = msgspec.structs.replace(record, state=AgentState.STARTING)
    assert newest(starting, {"a-1": (daemon,)}) == UnrecordedStart(1, daemon.identity)


def test_an_end_that_is_told_again_is_not_told_on(fleet: Fleet) -> None:
    agent = fleet.spawn_id("leaves")
    fleet.wait_for_state(agent, AgentState.COMPLETED)
    fleet.spawner.tell(ProcessExited(Exited(agent, 1, ExitStatus(exit_code=3), time.monotonic(), None)))
    assert fleet.status(agent).state is AgentState.COMPLETED
    fleet.wait_for_event(agent, "agent_exited")
    assert fleet.story(agent).count("agent_exited") == 1


def test_a_process_of_a_later_incarnation_is_not_left_over() -> None:
    def of(incarnation: int) -> process_tree.TreeProcess:
        return process_tree.TreeProcess(
            identity=ProcessIdentity("boot", 1, 1), incarnation=incarnation, group=1, session=1, cpu_s=0, rss_bytes=0
        )

    running = [is_left_over(of(n), state=AgentState.RUNNING, incarnation=2) for n in (1, 2, 3)]
    waiting = [is_left_over(of(n), state=AgentState.BACKING_OFF, incarnation=2) for n in (1, 2, 3)]
    assert (running, waiting) == ([True, False, False], [True, True, False])


def test_a_number_that_is_used_again_is_not_signalled() -> None:
    with subprocess.Popen(SLEEPS) as child:
        real = identity_of(child.pid)
        assert real is not None
        for other in (
            ProcessIdentity(real.boot_id, real.pid, real.start_ticks - 1),
            ProcessIdentity("another-boot", real.pid, real.start_ticks),
        ):
            assert not is_alive(other)
            assert not send_signal(other, signal.SIGKILL)
        assert child.poll() is None
        assert send_signal(real, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert not send_signal(real, signal.SIGKILL)


def test_a_process_that_may_not_be_signalled_is_said_once_and_not_waited_for(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spawned, pids = family(fleet)
    beyond = next(pid for pid in pids if os.getsid(pid) not in (spawned.status.process_id, os.getsid(0)))
    real = process_tree.send_signal

    def send_signal(identity: ProcessIdentity, number: int) -> bool:
        if identity.pid == beyond:
            raise PermissionError
        return real(identity, number)

    with monkeypatch.context() as patched:
        patched.setattr(process_tree, "send_signal", send_signal)
        assert fleet.stop(spawned.status.agent_id, timeout_s=0.2).state is AgentState.STOPPED
        assert fleet.processes() == [beyond]
    said = [record.message for record in caplog.records if "cannot be ended" in record.message]
    assert said == [f"process cannot be ended, it is another user's agent_id={spawned.status.agent_id} pid={beyond}"]
    os.kill(beyond, signal.SIGKILL)
    wait_until(lambda: fleet.processes() == [])


def test_a_process_of_another_sidecar_is_left_alone(fleet: Fleet) -> None:
    agent = fleet.spawn_id("sleeps")
    stranger_env = {**os.environ, "AGENT_ID": agent, "AGENT_INCARNATION": "1", "SIDECAR_INSTANCE": "somebody-else"}
    with subprocess.Popen(SLEEPS, env=stranger_env) as stranger:
        fleet.stop(agent)
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.skipif(not process_table.HAS_PROC, reason="there is no /proc")
def test_a_process_is_known_by_its_marks_while_it_becomes_another_program(tmp_path: Path) -> None:
    """Loading takes a hundredth of the time here, in which the kernel shows no environment."""
    again = tmp_path / "again"
    again.write_text('#!/bin/sh\nexec "$0"\n')
    again.chmod(0o755)
    with subprocess.Popen([again], env={"MARK": "1"}) as process:
        try:
            assert all(b"MARK=1" in process_table.environ(process.pid) for _ in range(5000))
        finally:
            process.kill()


def test_an_ended_agent_is_not_stopped_again(fleet: Fleet) -> None:
    agent = fleet.spawn_id("sleeps")
    fleet.stop(agent)
    with pytest.raises(WrongState, match="is stopped"):
        fleet.stop(agent)


@pytest.mark.soak
def test_a_thousand_crashes_leave_no_zombie_and_no_process(tmp_path: Path) -> None:
    quick = {"backoff_initial_seconds": 0.001, "backoff_max_seconds": 0.001}
    crashes = does("sh", "-c", "sleep 600 & exit 3", max_restarts=49, **quick)
    with Fleet(tmp_path, crashes=crashes) as fleet:
        agents = [fleet.spawn_id("crashes") for _ in range(20)]
        for agent in agents:
            assert fleet.wait_for_state(agent, AgentState.FAILED, within_s=120).incarnation == 50
        assert fleet.zombies() == []
        wait_until(lambda: fleet.processes() == [])


def test_without_proc_the_same_is_said_of_a_process() -> None:
    with subprocess.Popen(["sleep", "600"], env={"X_MARK": "here"}, start_new_session=True) as child:
        pid = child.pid
        (by_proc,) = (row for row in process_table.rows() if row.pid == pid)
        (portable,) = (row for row in portable_processes.rows() if row.pid == pid)
        same = ("pid", "parent", "group", "session", "is_zombie")
        assert [getattr(portable, name) for name in same] == [getattr(by_proc, name) for name in same]
        assert portable.rss_bytes > 0
        assert b"X_MARK=here" in portable_processes.environ(pid)
        assert portable_processes.start_ticks(pid) == portable.start_ticks
        assert not portable_processes.is_zombie(pid)
        child.kill()
        wait_until(lambda: portable_processes.is_zombie(pid))
    assert portable_processes.is_zombie(pid)
    assert portable_processes.start_ticks(pid) is None
