"""An agent that dies is restarted, as often as its profile says and no more; how it died is told."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.state.errors import NoCommand, SpawnFailed, WrongState
from sidecar.state.models import AgentState, ExitCause
from sidecar.supervision.lifecycle import LIFECYCLE, Occurrence, after
from sidecar.supervision.process import Prepared, StartedProcess
from sidecar.supervision.process_exits import ExitWatcher
from sidecar.supervision.restart import (
    SETTLED_AFTER_S,
    Backoff,
    Death,
    RestartHistory,
    RestartIntensity,
    RestartPolicy,
    RestartVerdict,
)
from tests.fleet import SLEEPS, Fleet, does, runs, wait_until

ONCE = """
import os, pathlib, sys
seen = pathlib.Path(os.environ["PROJECT_ROOT"]) / os.environ["AGENT_ID"]
if seen.exists():
    print("second run")
else:
    seen.touch()
    sys.stderr.write("first run fails\\n")
    sys.exit(3)
"""


SAYS_GOODBYE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
time.sleep(600)
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    quick = {"backoff_initial_seconds": 0.02, "backoff_max_seconds": 0.1}
    with Fleet(
        tmp_path,
        once=runs(ONCE, **quick),
        fails=does("sh", "-c", "echo boom >&2; exit 3", max_restarts=2, **quick),
        usage=does("sh", "-c", "exit 64", **quick),
        sighs=does("sh", "-c", "printf 'no key\\n\\n  \\n' >&2; exit 64"),
        never=does("sh", "-c", "exit 3", restart="never"),
        always=does("sh", "-c", "exit 0", restart="always", max_restarts=2, **quick),
        ends=does("true"),
        waits=does("sh", "-c", "exit 3", backoff_initial_seconds=30),
        probes=does("sh", "-c", "exit 3", max_restarts=1, probe_after_seconds=0.05, **quick),
        sleeps=does(*SLEEPS),
        missing=does("/no/such/program"),
        vanishes=does("./agent"),
        polite=runs(SAYS_GOODBYE, run_timeout_seconds=0.3, restart="never"),
        timed=does(*SLEEPS, run_timeout_seconds=0.5, **quick),
        slows=does("sh", "-c", "exit 3", backoff_initial_seconds=0.2, backoff_max_seconds=20.0),
    ) as fleet:
        yield fleet


def test_an_agent_that_crashes_once_is_restarted_and_completes(fleet: Fleet) -> None:
    agent = fleet.spawn_id("once")
    status = fleet.wait_for_state(agent, AgentState.COMPLETED)
    assert (status.incarnation, status.restarts, status.exit_code, status.last_error) == (2, 1, 0, None)
    assert fleet.log(agent) == "second run\n"
    fleet.wait_for_event(agent, "agent_exited", count=2)
    assert fleet.story(agent) == [
        "agent_spawned",
        "agent_started",
        "agent_exited",
        "agent_restarting",
        "agent_started",
        "agent_exited",
    ]


def test_an_exit_is_told_with_code_cause_and_last_lines(fleet: Fleet) -> None:
    agent = fleet.spawn_id("once")
    data = fleet.wait_for_event(agent, "agent_exited")
    assert (data["exit_code"], data["signal"], data["cause"]) == (3, None, "exit")
    assert (data["agent_type"], data["issue_id"], data["incarnation"]) == ("once", "issue-1", 1)
    assert data["last_lines"] == ["first run fails"]
    assert fleet.wait_for_event(agent, "agent_restarting")["delay_ms"] in range(16, 21)


def test_an_agent_that_keeps_crashing_is_given_up(fleet: Fleet) -> None:
    agent = fleet.spawn_id("fails")
    data = fleet.wait_for_event(agent, "agent_failed")
    assert (data["restarts"], data["exit_code"], data["cause"]) == (2, 3, "exit")
    status = fleet.status(agent)
    assert (status.state, status.incarnation) == (AgentState.FAILED, 3)
    assert status.last_error == "ended with exit code 3: boom"
    (failed,) = fleet.events(agent, "agent_failed")
    assert (failed.topic, failed.publisher) == ("error", "sidecar")


@pytest.mark.parametrize("agent_type", ["usage", "never"])
def test_what_another_try_cannot_mend_is_not_tried_again(fleet: Fleet, agent_type: str) -> None:
    agent = fleet.spawn_id(agent_type)
    fleet.wait_for_event(agent, "agent_failed")
    assert fleet.status(agent).incarnation == 1


def test_an_agent_that_always_runs_is_restarted_also_when_it_ended_well(fleet: Fleet) -> None:
    agent = fleet.spawn_id("always")
    fleet.wait_for_event(agent, "agent_failed")
    assert [fleet.status(agent).incarnation, fleet.status(agent).exit_code] == [3, 0]


def test_an_agent_that_ends_well_is_not_restarted_and_nothing_is_called_a_failure(fleet: Fleet) -> None:
    agent = fleet.spawn_id("ends")
    status = fleet.wait_for_state(agent, AgentState.COMPLETED)
    assert (status.incarnation, status.exit_code, status.cause) == (1, 0, ExitCause.EXIT)
    fleet.wait_for_event(agent, "agent_exited")
    assert fleet.events(agent, "agent_failed") == []


def test_a_killed_agent_is_restarted_and_the_signal_is_told(fleet: Fleet) -> None:
    spawned = fleet.spawn("sleeps").status
    assert spawned.process_id is not None
    os.kill(spawned.process_id, signal.SIGKILL)
    data = fleet.wait_for_event(spawned.agent_id, "agent_exited")
    assert (data["exit_code"], data["signal"], data["cause"]) == (None, 9, "signal")
    again = wait_until(lambda: s if (s := fleet.status(spawned.agent_id)).incarnation == 2 else None)
    fleet.wait_for_state(again.agent_id, AgentState.RUNNING)


@pytest.mark.parametrize("number", [signal.SIGRTMIN + 1, signal.SIGRTMAX])
def test_a_death_by_a_signal_without_a_name_is_a_death_like_any_other(fleet: Fleet, number: int) -> None:
    spawned = fleet.spawn("sleeps").status
    assert spawned.process_id is not None
    os.kill(spawned.process_id, number)
    assert fleet.wait_for_event(spawned.agent_id, "agent_exited")["signal"] == number
    wait_until(lambda: fleet.status(spawned.agent_id).incarnation == 2)
    assert str(fleet.status(spawned.agent_id).last_error) in (f"ended by signal {int(number)}", "ended by SIGRTMAX")


def test_the_last_line_that_says_something_is_the_last_error(fleet: Fleet) -> None:
    agent = fleet.spawn_id("sighs")
    fleet.wait_for_state(agent, AgentState.FAILED)
    assert fleet.status(agent).last_error == "ended with exit code 64: no key"


def test_a_settled_agent_is_restarted_at_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[str] = []
    prepared: list[StartedProcess] = []
    real_start, real_prepare = Prepared.start, ExitWatcher.prepare

    def start(this: Prepared, *, at_once: bool = False) -> StartedProcess:
        starts.append(threading.current_thread().name)
        return real_start(this, at_once=at_once)

    def prepare(this: ExitWatcher, process: StartedProcess, succeed: Any) -> None:
        real_prepare(this, process, succeed)
        prepared.append(process)

    monkeypatch.setattr(Prepared, "start", start)
    monkeypatch.setattr(ExitWatcher, "prepare", prepare)
    spawned = fleet.spawn("sleeps").status
    wait_until(lambda: prepared and fleet.status(spawned.agent_id).uptime_seconds > SETTLED_AFTER_S)
    assert spawned.process_id is not None
    os.kill(spawned.process_id, signal.SIGKILL)
    assert fleet.wait_for_event(spawned.agent_id, "agent_restarting")["delay_ms"] == 0
    assert starts[-1].startswith("exits-")  # not when the Spawner gets to it
    status = fleet.wait_for_state(spawned.agent_id, AgentState.RUNNING)
    assert (status.incarnation, status.process_id != spawned.process_id) == (2, True)


def test_an_agent_that_waits_for_its_restart_says_so_and_can_be_stopped(fleet: Fleet) -> None:
    agent = fleet.spawn_id("waits")
    fleet.wait_for_state(agent, AgentState.BACKING_OFF)
    assert fleet.stop(agent).state is AgentState.STOPPED
    with pytest.raises(WrongState):
        fleet.stop(agent)
    fleet.wait_for_event(agent, "agent_stopped")


def test_a_half_open_agent_is_tried_again_instead_of_failing(fleet: Fleet) -> None:
    agent = fleet.spawn_id("probes")
    wait_until(lambda: fleet.status(agent).incarnation >= 4)
    assert fleet.events(agent, "agent_failed") == []
    wait_until(lambda: fleet.status(agent).state is AgentState.BACKING_OFF and fleet.stop(agent))


def test_a_first_start_that_is_impossible_is_answered_and_recorded(fleet: Fleet) -> None:
    with pytest.raises(SpawnFailed, match="started: program cannot be run: No such file") as refused:
        fleet.spawn("missing")
    agent = refused.value.details["agent_id"]
    data = fleet.wait_for_event(agent, "agent_failed")  # type: ignore[arg-type]
    assert (data["cause"], data["process_id"]) == ("start_failed", None)
    assert fleet.status(agent).state is AgentState.FAILED  # type: ignore[arg-type]


def test_a_later_start_that_is_impossible_is_a_death_like_any_other(fleet: Fleet) -> None:
    program = fleet.directory / "agent"
    program.write_text("#!/bin/sh\nrm agent; exit 3\n", encoding="utf-8")
    program.chmod(0o700)
    agent = fleet.spawn_id("vanishes")
    wait_until(lambda: fleet.status(agent).cause is ExitCause.START_FAILED)
    assert "agent cannot be run: No such file" in (fleet.status(agent).last_error or "")
    assert fleet.status(agent).state is AgentState.BACKING_OFF


def test_a_type_without_a_command_is_not_spawned(fleet: Fleet) -> None:
    with pytest.raises(NoCommand, match="python-specialist"):
        fleet.spawn("python-specialist")


def test_an_ended_agent_can_be_started_again_by_hand(fleet: Fleet) -> None:
    agent = fleet.spawn_id("ends")
    fleet.wait_for_state(agent, AgentState.COMPLETED)
    assert fleet.restart(agent).incarnation == 2
    running = fleet.spawn("sleeps").status
    again = fleet.restart(running.agent_id)
    assert (again.state, again.incarnation) == (AgentState.RUNNING, 2)
    assert again.process_id != running.process_id


def test_no_zombie_is_left_after_many_crashes(fleet: Fleet) -> None:
    agents = [fleet.spawn_id("fails") for _ in range(10)]
    for agent in agents:
        fleet.wait_for_state(agent, AgentState.FAILED)
    assert fleet.zombies() == []


def test_who_asked_for_a_restart_that_is_impossible_is_told_so(fleet: Fleet) -> None:
    program = fleet.directory / "agent"
    program.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    program.chmod(0o700)
    agent = fleet.spawn_id("vanishes")
    fleet.wait_for_state(agent, AgentState.COMPLETED)
    program.unlink()
    with pytest.raises(SpawnFailed, match="agent cannot be run"):
        fleet.restart(agent)


def test_a_limit_that_was_broken_decides_whatever_the_exit_code_is(fleet: Fleet) -> None:
    data = fleet.wait_for_event(fleet.spawn_id("polite"), "agent_failed")
    assert (data["cause"], data["exit_code"]) == ("timeout", 0)


def test_a_crash_after_a_broken_limit_has_its_own_cause(fleet: Fleet) -> None:
    agent = fleet.spawn_id("timed")
    assert fleet.wait_for_event(agent, "agent_exited")["cause"] == "timeout"
    again = wait_until(lambda: status if (status := fleet.status(agent)).incarnation == 2 else None)
    again = fleet.wait_for_state(agent, AgentState.RUNNING) if again.process_id is None else again
    os.kill(again.process_id or 0, signal.SIGKILL)
    assert fleet.wait_for_event(agent, "agent_exited", count=2)["cause"] == "signal"


def test_a_restart_by_hand_begins_with_a_clean_history(fleet: Fleet) -> None:
    agent = fleet.spawn_id("slows")
    fleet.wait_for_event(agent, "agent_restarting", count=2)
    fleet.wait_for_state(agent, AgentState.BACKING_OFF)
    fleet.restart(agent)
    assert fleet.wait_for_event(agent, "agent_restarting", count=3)["delay_ms"] <= 200


# --- the policy


times = st.lists(st.floats(0, 1000), max_size=30).map(sorted)


@given(times, st.integers(0, 8), st.floats(0.1, 100))
def test_no_window_ever_holds_more_restarts_than_allowed(deaths: list[float], most: int, within_s: float) -> None:
    intensity = RestartIntensity(max_restarts=most, within_s=within_s)
    history: tuple[float, ...] = ()
    restarted: list[float] = []
    for now in deaths:
        verdict, history = intensity.decide(history, now=now)
        if verdict is RestartVerdict.RESTART:
            restarted.append(now)
        in_window = [t for t in restarted if now - t <= within_s]
        assert len(in_window) <= most
        assert all(now - t <= within_s for t in history)


@given(st.floats(0.001, 10), st.floats(0.001, 1000), st.floats(0, 0.9), st.integers(1, 10_000), st.floats(0, 0.999))
def test_a_delay_is_never_above_its_bound_nor_far_below(
    initial_s: float, max_s: float, jitter: float, deaths: int, chance: float
) -> None:
    backoff = Backoff(initial_s=initial_s, max_s=max_s, jitter=jitter)
    delay_s = backoff.delay_s(deaths, chance=chance)
    assert min(initial_s, max_s) * (1 - jitter) <= delay_s <= max_s
    assert backoff.delay_s(deaths + 1, chance=chance) >= delay_s


def test_a_half_open_agent_is_tried_once_an_interval_until_a_try_is_healthy() -> None:
    policy = RestartPolicy(intensity=RestartIntensity(max_restarts=2, within_s=10.0), probe_after_s=300.0)
    now, history, delays = 0.0, RestartHistory(), []
    for _ in range(6):
        decision = policy.decide(history, Death(exit_code=3, uptime_s=0.1), now=now, chance=0.0)
        assert decision.verdict is RestartVerdict.RESTART
        history = decision.history
        delays.append(decision.delay_s)
        now += decision.delay_s + 0.1
    assert delays == [0.5, 1.0, 300.0, 300.0, 300.0, 300.0]
    healthy = policy.decide(history, Death(exit_code=3, uptime_s=10.0), now=now + 10.0, chance=0.0)
    assert (healthy.delay_s, healthy.history.is_open) == (0.0, False)
    assert policy.decide(healthy.history, Death(exit_code=3, uptime_s=0.1), now=now + 11.0, chance=0.0).delay_s == 1.0


def test_only_the_first_death_of_a_settled_agent_is_free() -> None:
    policy = RestartPolicy(backoff=Backoff(initial_s=1.0, max_s=60.0, jitter=0.0))
    history, delays = RestartHistory(), []
    for n in (1, 2, 3):
        decision = policy.decide(history, Death(exit_code=1, uptime_s=2.0), now=2.0 * n, chance=0.0)
        history = decision.history
        delays.append(decision.delay_s)
    assert delays == [0.0, 2.0, 4.0]


def test_a_healthy_spell_ends_a_row_of_deaths() -> None:
    policy = RestartPolicy(backoff=Backoff(initial_s=1.0, max_s=60.0, jitter=0.0))
    history, now = RestartHistory(), 0.0
    delays = []
    for uptime_s in (0.1, 0.1, 0.1, 60.0, 0.1):
        now += uptime_s
        decision = policy.decide(history, Death(exit_code=1, uptime_s=uptime_s), now=now, chance=0.0)
        history = decision.history
        delays.append(decision.delay_s)
    assert delays == [1.0, 2.0, 4.0, 0.0, 2.0]


@given(st.sampled_from(sorted(AgentState)), st.lists(st.sampled_from(list(Occurrence)), max_size=20))
def test_what_the_table_does_not_say_cannot_happen(state: AgentState, facts: list[Occurrence]) -> None:
    for fact in facts:
        if (state, fact) in LIFECYCLE:
            state = after(state, fact)
        else:
            with pytest.raises(WrongState, match=state):
                after(state, fact)


def test_from_every_state_an_agent_can_reach_an_end_and_from_every_end_a_start() -> None:
    reachable = {state: {state} for state in AgentState}
    for _ in AgentState:
        for (state, _fact), following in LIFECYCLE.items():
            reachable[state] |= reachable[following]
    for state in AgentState:
        assert any(end.has_ended for end in reachable[state])
        assert AgentState.RUNNING in reachable[state]
