"""Agents that live together are restarted together, in order, and given up together, whatever dies meanwhile."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.state.models import AgentId, AgentState, AgentStatus
from sidecar.supervision.strategy import Group, GroupMember, affected
from tests.fleet import SLEEPS, Fleet, does, wait_until

QUICK = {"backoff_initial_seconds": 0.02, "backoff_max_seconds": 0.1}
FOREVER = {"max_restarts": 1000}


def grouped(directory: Path, strategy: Any, **options: Any) -> Fleet:
    group = Group(agents=("a", "b", "c"), strategy=strategy, **options)
    sleeps = does(*SLEEPS, **QUICK)
    return Fleet(directory, options={"groups": {"team": group}}, a=sleeps, b=sleeps, c=sleeps)


@pytest.mark.parametrize(
    ("strategy", "restarted"),
    [("one_for_one", {"b"}), ("one_for_all", {"a", "b", "c"}), ("rest_for_one", {"b", "c"})],
)
def test_a_death_restarts_whom_the_strategy_says(tmp_path: Path, strategy: str, restarted: set[str]) -> None:
    with grouped(tmp_path, strategy) as fleet:
        team = {name: fleet.spawn(name).status for name in ("a", "b", "c")}
        others = [fleet.spawn("c", issue_id="another-issue").status, fleet.spawn("c", project_id="another").status]
        os.kill(team["b"].process_id or 0, signal.SIGKILL)
        for name in restarted:
            wait_until(lambda name=name: fleet.status(team[name].agent_id).incarnation == 2)  # type: ignore[misc]
            fleet.wait_for_state(team[name].agent_id, AgentState.RUNNING)
        for status in (*(team[name] for name in {"a", "b", "c"} - restarted), *others):
            assert fleet.status(status.agent_id).process_id == status.process_id


def test_a_group_stops_in_reverse_and_starts_in_order(tmp_path: Path) -> None:
    with grouped(tmp_path, "one_for_all") as fleet:
        team = {name: fleet.spawn(name).status for name in ("c", "a", "b")}
        names = {status.agent_id: name for name, status in team.items()}
        os.kill(team["a"].process_id or 0, signal.SIGKILL)
        for status in team.values():
            fleet.wait_for_event(status.agent_id, "agent_started", count=2)
        story = [(e.event_type, names[AgentId(msgspec.json.decode(e.data)["agent_id"])]) for e in fleet.events()]
        assert [name for kind, name in story if kind == "agent_exited"] == ["a", "c", "b"]
        assert [name for kind, name in story if kind == "agent_started"][3:] == ["a", "b", "c"]


def test_a_group_that_restarts_too_often_is_given_up_whole(tmp_path: Path) -> None:
    with grouped(tmp_path, "one_for_all", max_restarts=1) as fleet:
        team = [fleet.spawn(name).status for name in ("a", "b", "c")]
        os.kill(team[0].process_id or 0, signal.SIGKILL)
        for status in team:
            wait_until(lambda status=status: fleet.status(status.agent_id).incarnation == 2)  # type: ignore[misc]
        again = fleet.wait_for_state(team[0].agent_id, AgentState.RUNNING)
        os.kill(again.process_id or 0, signal.SIGKILL)
        for status in team:
            fleet.wait_for_event(status.agent_id, "agent_failed")


def test_deaths_count_for_the_limit_of_the_group_whoever_was_restarted_in_between(tmp_path: Path) -> None:
    with grouped(tmp_path, "one_for_one", max_restarts=1) as fleet:
        team = [fleet.spawn(name).status for name in ("a", "b")]
        kill(team[0])
        wait_until(lambda: fleet.status(team[0].agent_id).incarnation == 2)
        fleet.vanish()
        fleet.open()
        kill(team[1])
        for status in team:
            fleet.wait_for_event(status.agent_id, "agent_failed")


def kill(status: AgentStatus) -> None:
    assert status.process_id is not None
    os.kill(status.process_id, signal.SIGKILL)


def team_of(directory: Path, group: Group, **profiles: dict[str, Any]) -> Fleet:
    return Fleet(directory, options={"groups": {"team": group}}, **profiles)


def test_members_do_not_wait_for_one_that_was_started_by_hand(tmp_path: Path) -> None:
    slow = does(*SLEEPS, backoff_initial_seconds=60, backoff_max_seconds=60)
    with team_of(tmp_path, Group(agents=("a", "b"), strategy="one_for_all"), a=slow, b=does(*SLEEPS)) as fleet:
        a, b = fleet.spawn("a").status, fleet.spawn("b").status
        kill(a)
        fleet.wait_for_state(b.agent_id, AgentState.BACKING_OFF)
        fleet.restart(a.agent_id)
        assert fleet.wait_for_state(b.agent_id, AgentState.RUNNING).incarnation == 2


def test_none_starts_before_an_earlier_one_that_cannot_start(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexec sleep 600\n", encoding="utf-8")
    program.chmod(0o700)
    flaky = does("./program", **QUICK, **FOREVER)
    sleeps = does(*SLEEPS, **QUICK)
    with team_of(tmp_path, Group(agents=("a", "b"), strategy="one_for_all", **FOREVER), a=flaky, b=sleeps) as fleet:
        a, b = fleet.spawn("a").status, fleet.spawn("b").status
        program.rename(tmp_path / "elsewhere")
        kill(a)
        wait_until(lambda: fleet.status(a.agent_id).incarnation > 3)
        assert fleet.status(b.agent_id).state is AgentState.BACKING_OFF
        (tmp_path / "elsewhere").rename(program)
        assert fleet.wait_for_state(b.agent_id, AgentState.RUNNING).incarnation == 2
        assert fleet.status(a.agent_id).state is AgentState.RUNNING


SLOW_TO_END = does("sh", "-c", "trap 'sleep 0.5; exit 0' TERM; echo ready; while :; do sleep 0.02; done", **QUICK)


def test_the_next_sidecar_goes_on_with_a_restart_of_a_group(tmp_path: Path) -> None:
    sleeps = does(*SLEEPS, **QUICK)
    group = Group(agents=("a", "b", "c"), strategy="one_for_all")
    fleet = team_of(tmp_path, group, a=sleeps, b=sleeps, c=SLOW_TO_END)
    fleet.open()
    team = [fleet.spawn(name).status for name in ("a", "b", "c")]
    fleet.wait_for_log(team[2].agent_id, "ready")
    kill(team[1])
    fleet.wait_for_state(team[2].agent_id, AgentState.STOPPING)
    fleet.vanish()
    with team_of(tmp_path, group, a=sleeps, b=sleeps, c=SLOW_TO_END) as fleet:
        for status in team:
            fleet.wait_for_event(status.agent_id, "agent_started", count=2)
        names = {status.agent_id: name for status, name in zip(team, "abc", strict=True)}
        told = [(e.event_type, names[AgentId(msgspec.json.decode(e.data)["agent_id"])]) for e in fleet.events()]
        assert [name for kind, name in told if kind == "agent_exited"] == ["b", "c", "a"]
        assert [name for kind, name in told if kind == "agent_started"][3:] == ["a", "b", "c"]


@pytest.mark.parametrize("strategy", ["one_for_one", "rest_for_one"])
def test_restarts_that_concern_no_other_count_for_the_group_too(tmp_path: Path, strategy: Any) -> None:
    crashes = does("sh", "-c", "echo boom >&2; exit 3", **QUICK, **FOREVER)
    group = Group(agents=("a", "b"), strategy=strategy, max_restarts=3)
    with team_of(tmp_path, group, a=does(*SLEEPS), b=crashes) as fleet:
        a, b = fleet.spawn_id("a"), fleet.spawn_id("b")
        failed = fleet.wait_for_event(b, "agent_failed")
        assert (failed["reason"], failed["last_lines"]) == ("its group team restarted too often", ["boom"])
        assert fleet.status(b).incarnation == 4
        assert fleet.story(b)[-2:] == ["agent_exited", "agent_failed"]
        assert fleet.wait_for_event(a, "agent_failed")["reason"] == "its group team was given up"


def test_a_member_that_was_restarted_at_once_is_given_up_with_its_group(tmp_path: Path) -> None:
    group = Group(agents=("a",), max_restarts=0)
    with team_of(tmp_path, group, a=does(*SLEEPS)) as fleet:
        a = fleet.spawn("a").status
        wait_until(lambda: fleet.status(a.agent_id).uptime_seconds > 1.1)
        kill(a)
        assert fleet.wait_for_state(a.agent_id, AgentState.FAILED).incarnation == 2


def test_a_member_that_is_being_stopped_is_given_up_with_its_group(tmp_path: Path) -> None:
    stubborn = does(
        "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.02; done",
        run_timeout_seconds=0.5, stop_timeout_seconds=1.5, **QUICK,
    )  # fmt: skip
    group = Group(agents=("a", "b"), max_restarts=0)
    with team_of(tmp_path, group, a=does(*SLEEPS, **QUICK), b=stubborn) as fleet:
        a, b = fleet.spawn("a").status, fleet.spawn_id("b")
        fleet.wait_for_state(b, AgentState.STOPPING)
        kill(a)
        assert fleet.wait_for_state(b, AgentState.FAILED).incarnation == 1


def test_one_that_is_never_restarted_ends_with_its_group_and_stays_ended(tmp_path: Path) -> None:
    group = Group(agents=("a", "b"), strategy="one_for_all")
    with team_of(tmp_path, group, a=does(*SLEEPS, **QUICK), b=does(*SLEEPS, restart="never")) as fleet:
        a, b = fleet.spawn("a").status, fleet.spawn_id("b")
        kill(a)
        wait_until(lambda: fleet.status(a.agent_id).incarnation == 2)
        assert (fleet.status(b).state, fleet.status(b).incarnation) == (AgentState.STOPPED, 1)


def test_agents_that_were_lost_with_the_sidecar_do_not_give_up_their_group(tmp_path: Path) -> None:
    group = Group(agents=("a",), max_restarts=1)
    fleet = team_of(tmp_path, group, a=does(*SLEEPS, **QUICK))
    fleet.open()
    team = [fleet.spawn("a").status for _ in range(4)]
    fleet.vanish()
    for status in team:
        kill(status)
        os.waitpid(status.process_id or 0, 0)
    with team_of(tmp_path, group, a=does(*SLEEPS, **QUICK)) as fleet:
        for status in team:
            wait_until(lambda status=status: fleet.status(status.agent_id).incarnation == 2)  # type: ignore[misc]
            fleet.wait_for_state(status.agent_id, AgentState.RUNNING)


def test_one_that_waits_or_starts_is_restarted_with_the_others() -> None:
    group = Group(agents=("a", "b", "c"), strategy="one_for_all")
    dead = GroupMember(AgentId("1"), "a", 1, AgentState.BACKING_OFF)
    waits = GroupMember(AgentId("2"), "b", 2, AgentState.BACKING_OFF)
    starts = GroupMember(AgentId("3"), "c", 3, AgentState.STARTING)
    assert affected(group, dead, (dead, waits, starts)) == ("2", "3")


members = st.lists(st.tuples(st.sampled_from("abcx"), st.sampled_from(list(AgentState))), min_size=1, max_size=12)


@given(members, st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"]))
def test_a_death_never_concerns_who_has_ended_or_came_before(team: list[tuple[str, AgentState]], strategy: Any) -> None:
    group = Group(agents=("a", "b", "c"), strategy=strategy)
    everyone = [GroupMember(AgentId(str(n)), kind, n, state) for n, (kind, state) in enumerate(team)]
    dead = next((one for one in everyone if one.agent_type != "x"), None)
    if dead is None:
        return
    by_id = {one.agent_id: one for one in everyone}
    concerned = [by_id[agent_id] for agent_id in affected(group, dead, everyone)]
    assert dead not in concerned
    assert all(one.agent_type in group.agents and not one.state.has_ended for one in concerned)
    assert [(one.agent_type, one.age) for one in concerned] == sorted((one.agent_type, one.age) for one in concerned)
    if strategy == "one_for_one":
        assert concerned == []
    if strategy == "rest_for_one":
        assert all((one.agent_type, one.age) > (dead.agent_type, dead.age) for one in concerned)
