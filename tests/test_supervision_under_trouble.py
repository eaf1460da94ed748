"""What supervision does when what it leans on fails: the clock, the bus, the disk, its own actor."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.actors import messages as m
from sidecar.state.agent_registry import AgentRegistry
from sidecar.state.errors import StorageUnavailable, Unavailable
from sidecar.state.journal.journal import Journal
from sidecar.state.models import AgentState, ExitCause
from sidecar.supervision.oom import OomKills
from sidecar.supervision.proc_fs import oom_kills
from sidecar.supervision.restart import SETTLED_AFTER_S
from tests.fleet import SLEEPS, Fleet, does, wait_until


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    quick = {"backoff_initial_seconds": 0.05, "backoff_max_seconds": 0.05}
    with Fleet(
        tmp_path,
        sleeps=does(*SLEEPS, **quick),
        fails=does("sh", "-c", "exit 3", max_restarts=4, **quick),
        stays=does("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"),
        waits=does("sh", "-c", "exit 3", backoff_initial_seconds=30),
        beats=does(*SLEEPS, heartbeat_timeout_seconds=30, run_timeout_seconds=3600),
    ) as fleet:
        yield fleet


class MovedClock(datetime):
    by = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> MovedClock:
        moved = datetime.now(tz) + cls.by
        return cls.fromtimestamp(moved.timestamp(), tz)


@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_jumps_neither_ends_nor_delays_anything(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    agents = [fleet.spawn("beats").status, fleet.spawn("sleeps").status]
    monkeypatch.setattr(MovedClock, "by", timedelta(days=days))
    monkeypatch.setattr("sidecar.state.clock.datetime", MovedClock)
    os.kill(agents[1].process_id or 0, signal.SIGKILL)
    before = time.monotonic()
    wait_until(lambda: fleet.status(agents[1].agent_id).incarnation == 2)
    assert time.monotonic() - before < 5
    beats = fleet.status(agents[0].agent_id)
    assert (beats.state, beats.incarnation) == (AgentState.RUNNING, 1)
    assert 0 <= beats.uptime_seconds < 60


def test_events_are_told_once_and_in_order_however_often_the_bus_dies(fleet: Fleet) -> None:
    agents = []
    for _ in range(5):
        agents.append(fleet.spawn_id("fails"))
        fleet.supervisor.restart("event_bus", "a test says so")
    for agent in agents:
        fleet.wait_for_state(agent, AgentState.FAILED)
    wait_until(lambda: fleet.bus.status().state == "running")
    once = ["agent_started", "agent_exited", "agent_restarting"]
    for agent in agents:
        fleet.wait_for_event(agent, "agent_failed")
        assert fleet.story(agent) == ["agent_spawned", *once * 4, "agent_started", "agent_exited", "agent_failed"]
        numbers = [msgspec.json.decode(event.data)["incarnation"] for event in fleet.events(agent, "agent_exited")]
        assert numbers == [1, 2, 3, 4, 5]


def test_events_that_the_bus_never_got_are_told_by_the_next_sidecar(fleet: Fleet) -> None:
    fleet.bus.stop()
    agent = fleet.spawn_id("fails")
    fleet.wait_for_state(agent, AgentState.FAILED)
    fleet.vanish()
    fleet.open()
    fleet.wait_for_event(agent, "agent_failed")
    assert fleet.story(agent)[:2] == ["agent_spawned", "agent_started"]


class FullDisk:
    """Nothing can be written to the registry while it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = True
        self._commit = Journal.commit
        monkeypatch.setattr(Journal, "commit", lambda journal: self._try_to_commit(journal))

    def _try_to_commit(self, journal: Journal) -> None:
        if self.is_full and "registry" in str(journal.directory):
            raise StorageUnavailable("no space left")
        self._commit(journal)


def test_nothing_is_started_that_could_not_be_recorded_but_what_runs_is_supervised(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = fleet.spawn("sleeps").status
    disk = FullDisk(monkeypatch)
    with pytest.raises(StorageUnavailable):
        fleet.spawn("sleeps")
    wait_until(lambda: len(fleet.processes()) == 1, what="one process each")
    os.kill(agent.process_id or 0, signal.SIGKILL)
    wait_until(lambda: fleet.status(agent.agent_id).incarnation == 2)
    assert fleet.events(agent.agent_id, "agent_exited") == []  # its number could be given to another after a crash
    disk.is_full = False
    fleet.wait_for_event(agent.agent_id, "agent_started", count=2)
    fleet.vanish()
    registry = AgentRegistry(fleet.directory / "registry")
    assert registry.agents[agent.agent_id].incarnation == 2
    registry.close()
    fleet.open()


def test_no_stop_or_restart_is_answered_that_could_not_be_recorded(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next sidecar would run again what somebody was told is stopped."""
    stops, waits, restarts = (fleet.spawn_id(agent_type) for agent_type in ("sleeps", "waits", "sleeps"))
    fleet.wait_for_state(waits, AgentState.BACKING_OFF)
    disk = FullDisk(monkeypatch)
    unrecorded = "but that could not be recorded: no space left"
    for agent in (stops, waits):
        with pytest.raises(StorageUnavailable, match=f"agent {agent} is stopped, {unrecorded}"):
            fleet.stop(agent)
    with pytest.raises(StorageUnavailable, match=f"agent {restarts} is running, {unrecorded}"):
        fleet.restart(restarts)
    disk.is_full = False
    assert fleet.restart(restarts).incarnation == 3
    fleet.vanish()
    fleet.open()
    states = [fleet.status(agent).state for agent in (stops, waits, restarts)]
    assert states == [AgentState.STOPPED, AgentState.STOPPED, AgentState.RUNNING]


def test_a_spawner_that_dies_while_agents_crash_loses_none(fleet: Fleet) -> None:
    agents = [fleet.spawn("sleeps").status for _ in range(5)]
    for agent in agents:
        os.kill(agent.process_id or 0, signal.SIGKILL)
        fleet.supervisor.restart("spawner", "a test says so")

    def all_back() -> bool:
        statuses = fleet.spawner.request(m.ListAgents(project_id=None))
        try:
            return all(s.state is AgentState.RUNNING and s.incarnation == 2 for s in statuses.result(timeout=5))
        except Unavailable:
            return False  # it was just being restarted

    wait_until(all_back)
    wait_until(lambda: len(fleet.processes()) == 5, what="one process each")
    assert fleet.zombies() == []


def test_without_pidfds_agents_are_restarted_taken_over_and_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts, identity = "supervision.process", "supervision.process_identity"
    for module in (starts, identity, "supervision.process_exits", "actors.agents.adoption"):
        monkeypatch.setattr(f"sidecar.{module}.HAS_PIDFD", False)
    with Fleet(tmp_path, sleeps=does(*SLEEPS, backoff_initial_seconds=0.05), ends=does("true")) as fleet:
        assert fleet.wait_for_state(fleet.spawn_id("ends"), AgentState.COMPLETED).exit_code == 0
        agent = fleet.spawn("sleeps").status
        os.kill(agent.process_id or 0, signal.SIGKILL)
        wait_until(lambda: fleet.status(agent.agent_id).incarnation == 2)
        running = fleet.wait_for_state(agent.agent_id, AgentState.RUNNING)
        fleet.vanish()
        fleet.open()
        assert fleet.status(agent.agent_id).process_id == running.process_id
        os.kill(running.process_id or 0, signal.SIGKILL)
        wait_until(lambda: fleet.status(agent.agent_id).incarnation == 3)
        fleet.wait_for_state(agent.agent_id, AgentState.RUNNING)
        assert fleet.stop(agent.agent_id).state is AgentState.STOPPED
        assert fleet.zombies() == []


def test_a_kill_for_want_of_memory_is_told_from_any_other(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel counts what it kills, and does not say whom."""
    agent = fleet.spawn("sleeps").status
    os.kill(agent.process_id or 0, signal.SIGKILL)
    assert fleet.wait_for_event(agent.agent_id, "agent_exited")["cause"] == ExitCause.SIGNAL
    running = wait_until(lambda: status if (status := fleet.status(agent.agent_id)).incarnation == 2 else None)
    kills = oom_kills()
    monkeypatch.setattr("sidecar.actors.agents.exit_judge.oom_kills", lambda: kills + 1)
    os.kill(running.process_id or 0, signal.SIGKILL)
    assert fleet.wait_for_event(agent.agent_id, "agent_exited", count=2)["cause"] == ExitCause.OOM
    running = wait_until(lambda: status if (status := fleet.status(agent.agent_id)).incarnation == 3 else None)
    os.kill(running.process_id or 0, signal.SIGTERM)
    assert fleet.wait_for_event(agent.agent_id, "agent_exited", count=3)["cause"] == ExitCause.SIGNAL


@given(st.lists(st.tuples(st.sampled_from(["kernel", "other", "census"]), st.floats(0, 0.4)), max_size=40))
def test_as_many_deaths_are_the_kernels_as_it_has_just_counted(happens: list[tuple[str, float]]) -> None:
    counted, now = 7, 100.0
    kills = OomKills(counted)
    for what, later in happens:
        now += later
        if what == "kernel":  # of an agent: told at once
            counted += 1
            assert kills.take(counted, now=now)
        elif what == "other":  # somebody's kill -9 of an agent
            assert not kills.take(counted, now=now)
        else:
            kills.look(counted, now=now)
    counted += 3  # they die together, and are told of one after the other
    assert [kills.take(counted, now=now) for _ in range(3)] == [True, True, True]
    kills.look(counted + 1, now=now + 1.0)  # somebody else's process
    assert not kills.take(counted + 1, now=now + 3.0)


def test_nothing_is_started_while_the_sidecar_shuts_down(fleet: Fleet) -> None:
    stays = fleet.spawn_id("stays")
    fleet.wait_for_log(stays, "ready")
    waits = fleet.spawn_id("waits")
    fleet.wait_for_state(waits, AgentState.BACKING_OFF)
    drained = fleet.spawner.request(m.Drain(timeout_s=1.0))
    with pytest.raises(Unavailable, match="shutting down"):
        fleet.spawn("sleeps")
    with pytest.raises(Unavailable, match="shutting down"):
        fleet.restart(stays)
    assert fleet.status(waits).state is AgentState.STOPPED
    assert not drained.done()
    assert drained.result(timeout=10) == 1
    assert fleet.status(stays).state is AgentState.STOPPED
    assert fleet.processes() == []


def test_a_spawner_that_is_restarted_then_starts_nobody_either(tmp_path: Path) -> None:
    with Fleet(tmp_path, options={"max_concurrent": 1}, sleeps=does(*SLEEPS)) as fleet:
        runs_on, queued = (fleet.spawn_id("sleeps") for _ in range(2))
        fleet.draining.set()
        fleet.supervisor.restart("spawner", "a test says so")
        wait_until(lambda: fleet.spawner.status().restarts == 1 and fleet.spawner.status().state == "running")
        fleet.stop(runs_on)
        assert fleet.ask(m.Drain(timeout_s=1.0)) == 0
        assert fleet.status(queued).state is AgentState.QUEUED


def test_no_descriptor_is_left_of_agents_that_ended(fleet: Fleet) -> None:
    """Three are open for each that runs, and a server has only so many."""

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def one_life() -> None:
        begun = time.monotonic()
        agent = fleet.spawn("sleeps").status
        wait_until(lambda: time.monotonic() - begun > SETTLED_AFTER_S)  # its restart is prepared
        os.kill(agent.process_id or 0, signal.SIGKILL)
        wait_until(lambda: fleet.status(agent.agent_id).incarnation == 2)
        fleet.wait_for_state(agent.agent_id, AgentState.RUNNING)
        fleet.stop(agent.agent_id, force=True)

    def leaves_nothing() -> bool:
        before = descriptors()
        one_life()
        try:
            return wait_until(lambda: descriptors() <= before, within_s=5)
        except AssertionError:
            return False

    one_life()  # what is opened once, and stays
    # A server opens some only when it first needs them; what a life leaves open, each leaves.
    assert any(leaves_nothing() for _ in range(3)), "no life closed what it had opened"
