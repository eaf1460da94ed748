"""Nobody waits in silence: what a queued agent waits for is said, and what can never be met is told or refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.actors import messages as m
from sidecar.http import config
from sidecar.http.cli.doctor import examine
from sidecar.http.references import check_references
from sidecar.state.errors import ConfigError
from sidecar.state.models import AgentId, AgentState, WaitingFor
from sidecar.supervision.dependencies import Dependency, Present, Standing, dependencies, standing
from sidecar.supervision.restart import SETTLED_AFTER_S
from tests.fleet import SLEEPS, Fleet, does

ONCE = {"restart": "never"}


def waits_for(fleet: Fleet, agent_id: AgentId) -> WaitingFor:
    waiting_for = fleet.status(agent_id).waiting_for
    assert waiting_for is not None
    return waiting_for


# --- what it waits for


def test_a_queued_agent_says_for_what_it_waits_and_where_it_stands(tmp_path: Path) -> None:
    profiles = {"sleeps": does(*SLEEPS), "after": does("true", depends_on=("base",)), "base": does(*SLEEPS)}
    with Fleet(tmp_path, options={"max_concurrent": 1}, **profiles) as fleet:
        first, low = fleet.spawn_id("sleeps"), fleet.spawn_id("sleeps", priority="low")
        high, after = fleet.spawn_id("sleeps", priority="high"), fleet.spawn_id("after")
        assert fleet.status(first).waiting_for is None
        assert [(waits_for(fleet, a).what, waits_for(fleet, a).place) for a in (high, low)] == [
            ("slot", 1),
            ("slot", 2),
        ]
        assert (waits_for(fleet, after).what, waits_for(fleet, after).place) == ("dependency", None)
        assert "base, of which issue issue-1 has none" in waits_for(fleet, after).text
        base = fleet.spawn_id("base")
        assert "base, which is queued" in waits_for(fleet, after).text
        listed = {status.agent_id: status.waiting_for for status in fleet.ask(m.ListAgents(project_id=None))}
        assert listed[base] == waits_for(fleet, base)
        queued = fleet.wait_for_event(after, "agent_queued")["waiting_for"]
        assert (queued["what"], queued["dependencies"]) == ("dependency", [{"agent_type": "base", "state": None}])
        fleet.stop(first)
        fleet.wait_for_state(high, AgentState.RUNNING)
        assert fleet.status(high).waiting_for is None


def test_a_child_that_a_trigger_spawned_counts_as_one_that_waits(tmp_path: Path) -> None:
    with Fleet(tmp_path, options={"max_concurrent": 1}, sleeps=does(*SLEEPS)) as fleet:
        parent = fleet.spawn_id("sleeps")
        child = fleet.spawn_id("sleeps", requested_by=AgentId("triggers"), caused_by=(parent,))
        assert waits_for(fleet, child).is_deadlock


def test_an_agent_that_waits_for_its_turn_says_so(tmp_path: Path) -> None:
    with Fleet(tmp_path, options={"spawn_burst": 1, "spawns_per_second": 0.01}, sleeps=does(*SLEEPS)) as fleet:
        fleet.spawn("sleeps")
        assert waits_for(fleet, fleet.spawn_id("sleeps")).what == "rate"


def test_parents_that_hold_every_slot_while_their_children_wait_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with Fleet(tmp_path, options={"max_concurrent": 2}, sleeps=does(*SLEEPS)) as fleet:
        parents = [fleet.spawn_id("sleeps") for _ in range(2)]
        first = fleet.spawn_id("sleeps", requested_by=parents[0])
        assert not waits_for(fleet, first).is_deadlock
        second = fleet.spawn_id("sleeps", requested_by=parents[1])
        assert waits_for(fleet, first).is_deadlock
        assert fleet.wait_for_event(second, "agent_queued")["waiting_for"]["is_deadlock"]
        assert sum("queue may stand still" in record.message for record in caplog.records) == 1
        fleet.stop(parents[0])
        fleet.wait_for_state(first, AgentState.RUNNING)
        assert not waits_for(fleet, second).is_deadlock


def test_over_http_and_the_command_line_it_is_said_too(start_sidecar: Any) -> None:
    sidecar = start_sidecar("[agents]\nmax_concurrent = 1\n")
    sidecar.spawn("go-specialist")
    spawned = sidecar.spawn("python-specialist")
    assert (spawned["spawned"], spawned["state"]) == (False, "queued")
    shown = sidecar.operator.get(f"/api/agents/{spawned['agent_id']}").json()["waiting_for"]
    assert (shown["what"], shown["place"]) == ("slot", 1)
    assert sidecar.wait_for("agent_queued")["data"]["waiting_for"] == shown


# --- dependencies that can no longer be met


@pytest.mark.parametrize("how", ["failed", "stopped"])
def test_an_agent_whose_dependency_ended_badly_is_blocked_until_that_comes_again(tmp_path: Path, how: str) -> None:
    base = does("false", **ONCE) if how == "failed" else does(*SLEEPS)
    profiles = {"base": base, "after": does("true", depends_on=("base",)), "last": does("true", depends_on=("after",))}
    with Fleet(tmp_path, **profiles) as fleet:
        first = fleet.spawn_id("base")
        if how == "stopped":
            fleet.stop(first)
        fleet.wait_for_state(first, AgentState(how))
        after, last = fleet.spawn_id("after"), fleet.spawn_id("last")
        assert fleet.wait_for_event(after, "agent_blocked")["why"] == f"base is {how}"
        assert fleet.wait_for_event(last, "agent_blocked")["why"] == "after is blocked"
        assert f"base, which is {how}" in waits_for(fleet, after).text
        fleet.profiles = {**profiles, "base": does("true")}
        fleet.vanish()
        fleet.open()
        assert fleet.status(after).state is AgentState.BLOCKED
        fleet.spawn("base")
        fleet.wait_for_state(last, AgentState.COMPLETED)
        assert fleet.story(after).count("agent_blocked") == 1


@pytest.mark.parametrize(
    ("policy", "state"),
    [("wait", AgentState.BLOCKED), ("fail", AgentState.FAILED), ("run", AgentState.COMPLETED)],
)
def test_a_profile_says_what_follows_a_lost_dependency(tmp_path: Path, policy: str, state: AgentState) -> None:
    after = does("true", depends_on=("base",), on_dependency_failure=policy)
    with Fleet(tmp_path, base=does("false", **ONCE), after=after) as fleet:
        waiting = fleet.spawn_id("after")
        assert fleet.status(waiting).state is AgentState.QUEUED
        fleet.wait_for_state(fleet.spawn_id("base"), AgentState.FAILED)
        fleet.wait_for_state(waiting, state)
        if policy == "fail":
            assert "base is failed" in fleet.wait_for_event(waiting, "agent_failed")["reason"]


@pytest.mark.parametrize(
    ("now", "state"),
    [
        ({}, AgentState.COMPLETED),
        ({"depends_on": ("other",)}, AgentState.COMPLETED),
        ({"depends_on": ("base",), "on_dependency_failure": "run"}, AgentState.COMPLETED),
        ({"depends_on": ("base",), "on_dependency_failure": "fail"}, AgentState.FAILED),
    ],
)
def test_a_blocked_agent_follows_its_profile_as_the_next_sidecar_reads_it(
    tmp_path: Path, now: dict[str, Any], state: AgentState
) -> None:
    profiles = {"base": does("false", **ONCE), "other": does("true")}
    with Fleet(tmp_path, after=does("true", depends_on=("base",)), **profiles) as fleet:
        fleet.wait_for_state(fleet.spawn_id("other"), AgentState.COMPLETED)
        fleet.wait_for_state(fleet.spawn_id("base"), AgentState.FAILED)
        after = fleet.spawn_id("after")
        fleet.wait_for_state(after, AgentState.BLOCKED)
        fleet.profiles = {"after": does("true", **now), **profiles}
        fleet.vanish()
        fleet.open()
        fleet.wait_for_state(after, state)


def test_a_blocked_agent_can_be_stopped(tmp_path: Path) -> None:
    with Fleet(tmp_path, base=does("false", **ONCE), after=does("true", depends_on=("base",))) as fleet:
        fleet.wait_for_state(fleet.spawn_id("base"), AgentState.FAILED)
        after = fleet.spawn_id("after")
        fleet.wait_for_state(after, AgentState.BLOCKED)
        assert fleet.stop(after).state is AgentState.STOPPED


def test_a_dependency_that_fails_at_once_is_not_met(tmp_path: Path) -> None:
    profiles = {"base": does("false", **ONCE), "after": does("true", depends_on=("base",))}
    with Fleet(tmp_path, **profiles) as fleet:
        after = fleet.spawn_id("after")
        fleet.wait_for_state(fleet.spawn_id("base"), AgentState.FAILED)
        fleet.wait_for_event(after, "agent_blocked")
        assert fleet.status(after).incarnation == 0


def test_a_dependency_on_success_waits_for_the_end(tmp_path: Path) -> None:
    profiles = {
        "base": does("sleep", str(SETTLED_AFTER_S + 0.5)),
        "started": does("true", depends_on=("base",)),
        "done": does("true", depends_on=(Dependency("base"),)),
    }
    with Fleet(tmp_path, **profiles) as fleet:
        base, started, done = (fleet.spawn_id(kind) for kind in profiles)
        fleet.wait_for_state(started, AgentState.COMPLETED)
        fleet.wait_for_state(done, AgentState.COMPLETED)
        ended, begun = fleet.status(base).ended_at, fleet.status(done).started_at
        assert ended is not None
        assert begun is not None
        assert begun >= ended


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(AgentState), st.sampled_from([0.0, 0.5, 1.0, 9.0]))
    ),
    st.sampled_from(["a", Dependency("a")]),
)
def test_a_dependency_is_met_open_or_lost(present: list[tuple[str, AgentState, float]], named: Any) -> None:
    (dependency,) = dependencies((named,))
    of_type = [(state, ran_for_s) for agent_type, state, ran_for_s in present if agent_type == "a"]
    met = any(
        state is AgentState.COMPLETED
        or (dependency.on == "start" and state is AgentState.RUNNING and ran_for_s >= SETTLED_AFTER_S)
        for state, ran_for_s in of_type
    )
    stand_still = {AgentState.FAILED, AgentState.STOPPED, AgentState.BLOCKED}
    lost = not met and bool(of_type) and {state for state, _ in of_type} <= stand_still
    expected = Standing.MET if met else Standing.LOST if lost else Standing.OPEN
    assert standing(dependency, [Present(*agent) for agent in present]) is expected


# --- what can never be is refused


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ('[profiles.a]\ncommand = ["x"]\ndepends_on = ["a"]', r"profiles\.a\.depends_on .* a → a"),
        (
            '[profiles.a]\ncommand = ["x"]\ndepends_on = ["b"]\n[profiles.b]\ncommand = ["x"]\ndepends_on = ["a"]',
            r"profiles\.a\.depends_on .* a → b → a",
        ),
        (
            '[profiles.a]\ncommand = ["x"]\ndepends_on = ["rust-spec"]\n[profiles.rust-special]\ncommand = ["x"]',
            r"profiles\.a\.depends_on names rust-spec, .* did you mean rust-special\?",
        ),
        (
            '[profiles.a]\ncommand = ["x"]\ndepends_on = [{type = "b"}]\n[profiles.b]\nrestart = "never"',
            r"profiles\.a\.depends_on names b, whose profile has no command",
        ),
        (
            '[profiles.test-engineer]\ncommand = ["x"]\n[[triggers]]\non = "done"\nspawn = "tst-engineer"',
            r"triggers\[0\]\.spawn names tst-engineer, .* did you mean test-engineer\?",
        ),
        ('[profiles.a]\n[[triggers]]\non = "done"\nspawn = "a"', r"triggers\[0\]\.spawn names a, .* no command"),
        ('[profiles.a]\ncommand = ["x"]\n[[triggers]]\non = "chain_cut"\nspawn = "a"', r"triggers\[0\]\.on"),
        ('[profiles.a]\ncommand = ["x"]\ndepends_on = [{typ = "a"}]', r"profiles\.a\.depends_on"),
    ],
)
def test_types_that_can_never_run_stop_the_start(tmp_path: Path, settings: str, named: str) -> None:
    (tmp_path / "sidecar.toml").write_text(settings)
    with pytest.raises(ConfigError, match=named):
        check_references(config.load(config.Flags(), {}, working_dir=tmp_path))


def test_serve_and_doctor_refuse_them_and_other_commands_go_on(start_sidecar: Any, tmp_path: Path) -> None:
    settings = "[[triggers]]\non = 'done'\nspawn = 'pyton-specialist'\n"
    with pytest.raises(ConfigError, match=r"\.toml: setting triggers\[0\]\.spawn .* python-specialist"):
        start_sidecar(settings)
    found = [
        finding for finding in examine(config_of(tmp_path, settings), holder=None) if finding.check == "references"
    ]
    assert [(finding.verdict, "pyton-specialist" in finding.found) for finding in found] == [("wrong", True)]
    assert not [f for f in examine(config_of(tmp_path, ""), holder=None) if f.check == "references"]


def config_of(directory: Path, settings: str) -> config.Config:
    (directory / "sidecar.toml").write_text(settings)
    return config.load(config.Flags(storage=directory / "none", port=0), {}, working_dir=directory)


def test_a_dependency_may_be_written_in_either_way(tmp_path: Path) -> None:
    (tmp_path / "sidecar.toml").write_text(
        '[profiles.b]\ncommand = ["x"]\n[profiles.a]\ncommand = ["x"]\ndepends_on = ["b", {type = "b", on = "start"}]'
    )
    profile = config.load(config.Flags(), {}, working_dir=tmp_path).profiles.of("a")
    assert profile.depends_on == ("b", Dependency("b", on="start"))
    assert dependencies(profile.depends_on) == (Dependency("b", on="start"),) * 2
