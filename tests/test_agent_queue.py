"""Who is started when: by priority, then age, never too many, once for each request, after those it depends on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from freezegun import freeze_time

from sidecar.actors import messages as m
from sidecar.actors.agents.spawner_facts import QueueDue
from sidecar.actors.runtime.asking import Envelope, Fact, Later, Recipient, ask
from sidecar.actors.runtime.timers import Timers
from sidecar.state.agent_entries import AgentRecord, Departed
from sidecar.state.agent_registry import AgentRegistry
from sidecar.state.clock import utc_now
from sidecar.state.errors import ConfigError, IdempotencyConflict, NotFound
from sidecar.state.models import AgentId, AgentSpec, AgentState, AgentStatus
from sidecar.supervision.fleet import Trigger
from tests.fleet import SLEEPS, Fleet, does, wait_until

QUICK = {"backoff_initial_seconds": 0.01}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path, options={"max_concurrent": 1}, sleeps=does(*SLEEPS), missing=does("/no/such")) as fleet:
        yield fleet


def running(fleet: Fleet) -> list[AgentId]:
    return [s.agent_id for s in fleet.ask(m.ListAgents(project_id=None)) if s.state is AgentState.RUNNING]


def test_over_the_limit_an_agent_is_queued_without_a_process_or_a_token(fleet: Fleet) -> None:
    first, second = fleet.spawn("sleeps"), fleet.spawn("sleeps")
    assert (first.status.state, second.status.state) == (AgentState.RUNNING, AgentState.QUEUED)
    assert (second.status.process_id, second.token, second.context_injected) == (None, None, False)
    fleet.wait_for_event(second.status.agent_id, "agent_queued")
    assert fleet.story(second.status.agent_id) == ["agent_queued"]


def test_the_queue_goes_by_priority_then_age(fleet: Fleet) -> None:
    now = fleet.spawn_id("sleeps")
    waiting = {p: [fleet.spawn_id("sleeps", priority=p) for _ in range(2)] for p in ("low", "normal", "high")}
    for following in (*waiting["high"], *waiting["normal"], *waiting["low"]):
        fleet.stop(now)
        fleet.wait_for_state(following, AgentState.RUNNING)
        assert running(fleet) == [following]
        now = following


def test_a_queued_agent_can_be_stopped_before_it_ever_ran(fleet: Fleet) -> None:
    fleet.spawn("sleeps")
    queued = fleet.spawn_id("sleeps")
    assert fleet.stop(queued).state is AgentState.STOPPED
    assert fleet.wait_for_event(queued, "agent_stopped")["incarnation"] == 0


def test_an_agent_that_cannot_start_does_not_block_the_queue(fleet: Fleet) -> None:
    first = fleet.spawn_id("sleeps")
    missing, following = fleet.spawn_id("missing"), fleet.spawn_id("sleeps")
    fleet.stop(first)
    fleet.wait_for_state(following, AgentState.RUNNING)
    assert fleet.status(missing).state is AgentState.FAILED


def test_a_repeat_with_the_same_key_gets_the_first_answer_also_from_the_next_sidecar(fleet: Fleet) -> None:
    first = fleet.spawn("sleeps", idempotency_key="once")
    again = fleet.spawn("sleeps", idempotency_key="once")
    assert (again.status.agent_id, again.token) == (first.status.agent_id, first.token)
    with pytest.raises(IdempotencyConflict):
        fleet.spawn("sleeps", idempotency_key="once", task="another")
    assert fleet.spawn("sleeps", idempotency_key="once", requested_by=AgentId("b")).status.state is AgentState.QUEUED
    fleet.restart(first.status.agent_id)
    fleet.vanish()
    fleet.open()
    assert told(fleet.spawn("sleeps", idempotency_key="once")) == told(first)
    fleet.stop(first.status.agent_id)
    assert told(fleet.spawn("sleeps", idempotency_key="once")) == told(first)


def test_the_same_key_in_another_project_is_another_spawn(fleet: Fleet) -> None:
    first = fleet.spawn("sleeps", idempotency_key="once")
    other = fleet.spawn("sleeps", idempotency_key="once", project_id="other")
    assert other.status.agent_id != first.status.agent_id
    assert other.status.project_id == "other"


def told(spawned: m.SpawnedAgent) -> tuple[object, ...]:
    """What whoever spawned it is told."""
    token = spawned.token.text if spawned.token is not None else None
    status = spawned.status
    return status.agent_id, status.state, status.process_id, token, spawned.context_injected, spawned.at


def test_who_was_told_that_an_agent_is_queued_is_told_so_again(fleet: Fleet) -> None:
    fleet.spawn("sleeps")
    sleeps, missing = (fleet.spawn(kind, idempotency_key=kind) for kind in ("sleeps", "missing"))
    for agent in fleet.ask(m.ListAgents(project_id=None))[::-1]:
        if agent.state is AgentState.RUNNING:
            fleet.stop(agent.agent_id)
    fleet.wait_for_state(missing.status.agent_id, AgentState.QUEUED)
    fleet.wait_for_state(sleeps.status.agent_id, AgentState.RUNNING)
    fleet.stop(sleeps.status.agent_id)
    fleet.wait_for_state(missing.status.agent_id, AgentState.FAILED)
    for kind, first in (("sleeps", sleeps), ("missing", missing)):
        assert first.status.state is AgentState.QUEUED
        assert told(fleet.spawn(kind, idempotency_key=kind)) == told(first)


def test_a_key_outlives_its_agent_in_the_list_for_a_day(tmp_path: Path) -> None:
    with Fleet(tmp_path, options={"keep_ended": 1}, ends=does("true")) as fleet:
        first = fleet.spawn("ends", idempotency_key="once")
        fleet.wait_for_state(first.status.agent_id, AgentState.COMPLETED)
        fleet.spawn("ends")
        wait_until(lambda: len(fleet.ask(m.ListAgents(project_id=None))) == 1)
        with pytest.raises(NotFound):
            fleet.status(first.status.agent_id)
        for _ in range(2):
            assert told(fleet.spawn("ends", idempotency_key="once")) == told(first)
            fleet.vanish()
            fleet.open()
        with pytest.raises(IdempotencyConflict):
            fleet.spawn("ends", idempotency_key="once", task="another")
        registry = AgentRegistry(tmp_path / "elsewhere")
        record = AgentRecord(
            spec=AgentSpec(agent_id=AgentId("a-1"), agent_type="a", issue_id="i", project_id="p"),
            serial=1,
            requested_by=AgentId("someone"),
            idempotency_key="once",
            created_at=utc_now(),
        )
        registry.put(Departed(record=record))
        registry.forget_departed(created_before=record.created_at)
        assert registry.spawned_with(("p", record.requested_by, "once")) == record
        registry.forget_departed(created_before=record.created_at + timedelta(seconds=1))
        assert registry.spawned_with(("p", record.requested_by, "once")) is None
        registry.close()


def test_one_on_which_a_queued_agent_depends_stays_in_the_list(tmp_path: Path) -> None:
    profiles = {"base": does("true"), "other": does("true"), "after": does("true", depends_on=("base", "other"))}
    with Fleet(tmp_path, options={"keep_ended": 0}, **profiles) as fleet:
        after = fleet.spawn_id("after")
        base = fleet.spawn_id("base")
        fleet.wait_for_state(base, AgentState.COMPLETED)
        fleet.spawn("base", issue_id="another-issue")
        wait_until(lambda: {s.agent_id for s in fleet.ask(m.ListAgents(project_id=None))} == {base, after})
        fleet.spawn("other")
        wait_until(lambda: fleet.ask(m.CountAgents(project_id="p")).completed == 4)


def test_it_is_enough_that_the_one_it_depends_on_runs(tmp_path: Path) -> None:
    with Fleet(tmp_path, base=does(*SLEEPS), after=does(*SLEEPS, depends_on=("base",))) as fleet:
        after = fleet.spawn_id("after")
        fleet.spawn("base")
        fleet.wait_for_state(after, AgentState.RUNNING)


def test_one_that_is_stopped_while_it_waits_for_its_restart_leaves_its_slot(tmp_path: Path) -> None:
    waits = does("sh", "-c", "exit 3", backoff_initial_seconds=30)
    with Fleet(tmp_path, options={"max_concurrent": 1}, waits=waits, sleeps=does(*SLEEPS)) as fleet:
        first, second = fleet.spawn_id("waits"), fleet.spawn_id("sleeps")
        fleet.wait_for_state(first, AgentState.BACKING_OFF)
        stopped: Later[AgentStatus] = Later()
        spawned: Later[m.SpawnedAgent] = Later()
        third = m.SpawnAgent(agent_type="sleeps", issue_id="i", project_id="p", requested_by=AgentId("someone"))
        # Nobody who comes in that very moment overtakes those that wait.
        stop = m.StopAgent(agent_id=first, project_id=None)
        fleet.spawner.send((Envelope(stop, stopped), Envelope(third, spawned)))
        assert spawned.result(timeout=5).status.state is AgentState.QUEUED
        fleet.wait_for_state(second, AgentState.RUNNING)


def test_the_next_sidecar_starts_those_for_whom_it_has_room(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, options={"max_concurrent": 0}, sleeps=does(*SLEEPS))
    fleet.open()
    agent = fleet.spawn_id("sleeps")
    fleet.vanish()
    with Fleet(tmp_path, options={"max_concurrent": 1}, sleeps=does(*SLEEPS)) as fleet:
        fleet.wait_for_state(agent, AgentState.RUNNING)


def test_one_that_is_started_again_waits_for_those_it_depends_on(tmp_path: Path) -> None:
    profiles = {"base": does(*SLEEPS), "after": does(*SLEEPS, depends_on=("base",))}
    with Fleet(tmp_path, **profiles) as fleet:
        base, after = fleet.spawn_id("base"), fleet.spawn_id("after")
        fleet.stop(after)
        fleet.stop(base)
        assert fleet.restart(after).state is AgentState.QUEUED
        fleet.restart(base)
        fleet.wait_for_state(after, AgentState.RUNNING)


def test_agents_of_other_projects_are_not_seen(fleet: Fleet) -> None:
    agent = fleet.spawn_id("sleeps", project_id="a")
    with pytest.raises(NotFound):
        fleet.ask(m.GetAgent(agent_id=agent, project_id="b"))
    with pytest.raises(NotFound):
        fleet.ask(m.StopAgent(agent_id=agent, project_id="b"))
    with pytest.raises(NotFound):
        fleet.ask(m.RestartAgent(agent_id=agent, project_id="b"))
    with pytest.raises(NotFound):
        fleet.ask(m.ReadLogs(agent_id=agent, project_id="b"))
    assert fleet.ask(m.ListAgents(project_id="b")) == ()
    assert fleet.ask(m.CountAgents(project_id="b")).spawned_total == 0
    assert fleet.ask(m.CountAgents(project_id="a")).active == 1


def test_agents_that_ended_long_ago_leave_the_list_but_not_the_totals(tmp_path: Path) -> None:
    with Fleet(tmp_path, options={"keep_ended": 2}, ends=does("true")) as fleet:
        agents = []
        for count in range(1, 6):  # one after the other: those that ended first leave first
            agents.append(fleet.spawn_id("ends"))
            wait_until(lambda count=count: fleet.ask(m.CountAgents(project_id=None)).completed == count)  # type: ignore[misc]
        wait_until(lambda: len(fleet.ask(m.ListAgents(project_id=None))) == 2)
        numbers = fleet.ask(m.CountAgents(project_id="p"))
        assert (numbers.spawned_total, numbers.by_type) == (5, {"ends": 5})
        kept = {path.name.partition(".")[0] for path in (tmp_path / "logs").iterdir()}
        assert kept == {"000004", "000005"}
        fleet.vanish()
        fleet.open()
        assert fleet.ask(m.CountAgents(project_id="p")) == numbers
        assert numbers.avg_execution_time_ms > 0
        assert fleet.spawn_id("ends") not in agents


def test_first_starts_are_spread_when_too_many_come_at_once(tmp_path: Path) -> None:
    with Fleet(tmp_path, options={"spawn_burst": 2, "spawns_per_second": 1.0}, sleeps=does(*SLEEPS)) as fleet:
        states = [fleet.spawn("sleeps").status.state for _ in range(4)]
        assert states == [AgentState.RUNNING, AgentState.RUNNING, AgentState.QUEUED, AgentState.QUEUED]
        wait_until(lambda: len(running(fleet)) == 4)


def test_one_timer_is_enough_however_many_wait_for_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    real = Timers.tell_after

    def tell_after(timers: Timers, delay_s: float, recipient: Recipient, fact: Fact) -> None:
        told.append(fact)
        real(timers, delay_s, recipient, fact)

    monkeypatch.setattr(Timers, "tell_after", tell_after)
    with Fleet(tmp_path, options={"spawn_burst": 1, "spawns_per_second": 0.01}, sleeps=does(*SLEEPS)) as fleet:
        states = [fleet.spawn("sleeps").status.state for _ in range(20)]
        assert states == [AgentState.RUNNING, *[AgentState.QUEUED] * 19]
        assert told.count(QueueDue(by_bucket=True)) == 1


# --- dependencies


def test_an_agent_starts_after_those_it_depends_on(tmp_path: Path) -> None:
    with Fleet(tmp_path, base=does("true"), after=does("true", depends_on=("base",))) as fleet:
        after = fleet.spawn("after").status
        fleet.spawn("base", issue_id="another-issue")
        assert after.state is AgentState.QUEUED
        assert fleet.status(after.agent_id).state is AgentState.QUEUED
        fleet.spawn("base")
        fleet.wait_for_state(after.agent_id, AgentState.COMPLETED)


# --- triggers


def publish(fleet: Fleet, event_type: str, **data: Any) -> None:
    ask(
        fleet.bus,
        m.PublishEvent(
            project_id="p",
            event_type=event_type,
            publisher="python-specialist-1",
            publisher_type="python-specialist",
            data=msgspec.Raw(msgspec.json.encode(data)),
        ),
        timeout_s=10,
    )


def triggered(directory: Path) -> Fleet:
    trigger = Trigger(on="implementation_complete", filter="status:success", spawn="tester")
    return Fleet(directory, triggers=(trigger,), tester=does("true"))


def spawned_for(fleet: Fleet) -> list[str]:
    return [s.issue_id for s in reversed(fleet.ask(m.ListAgents(project_id=None)))]


def test_an_event_spawns_what_its_trigger_says_once_for_its_issue(tmp_path: Path) -> None:
    with triggered(tmp_path) as fleet:
        publish(fleet, "implementation_complete", issue_id="i-1", status="failed")
        publish(fleet, "implementation_complete", status="success")
        publish(fleet, "something_else", issue_id="i-1", status="success")
        publish(fleet, "implementation_complete", issue_id="i-1", status="success")
        publish(fleet, "implementation_complete", issue_id="i-2", status="success")
        wait_until(lambda: spawned_for(fleet) == ["i-1", "i-2"])
        fleet.vanish()
        fleet.open()
        publish(fleet, "implementation_complete", issue_id="i-3", status="success")
        wait_until(lambda: spawned_for(fleet) == ["i-1", "i-2", "i-3"])


def test_a_trigger_does_not_act_on_the_past(tmp_path: Path) -> None:
    with Fleet(tmp_path, tester=does("true")) as before:
        publish(before, "implementation_complete", issue_id="i-1", status="success")
    with triggered(tmp_path) as fleet:
        publish(fleet, "implementation_complete", issue_id="i-2", status="success")
        wait_until(lambda: spawned_for(fleet) == ["i-2"])


def test_a_trigger_acts_on_events_after_it_was_set_up_whatever_the_clock_says(tmp_path: Path) -> None:
    fleet = triggered(tmp_path)
    with freeze_time(utc_now() + timedelta(days=400), tick=True):
        fleet.open()
        fleet.ask(m.ListAgents(project_id=None))
        fleet.vanish()
    with triggered(tmp_path) as fleet:
        publish(fleet, "implementation_complete", issue_id="i-1", status="success")
        wait_until(lambda: spawned_for(fleet) == ["i-1"])


def test_an_event_published_while_no_spawner_ran_spawns_afterwards(tmp_path: Path) -> None:
    with triggered(tmp_path) as fleet:
        fleet.spawner.stop()
        publish(fleet, "implementation_complete", issue_id="i-1", status="success")
        fleet.vanish()
        fleet.open()
        wait_until(lambda: spawned_for(fleet) == ["i-1"])


def test_two_triggers_on_one_event_spawn_one_agent_each(tmp_path: Path) -> None:
    two = tuple(Trigger(on="done", spawn=kind) for kind in ("x", "y"))
    with Fleet(tmp_path, triggers=two, x=does("true"), y=does("true")) as fleet:
        publish(fleet, "done", issue_id="i-1")
        wait_until(lambda: spawned_for(fleet) == ["i-1", "i-1"])


def test_a_trigger_that_could_never_spawn_is_refused(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, triggers=(Trigger(on="done", spawn="tester"),))
    with pytest.raises(ConfigError, match="tester"):
        fleet.open()
    fleet.vanish()
