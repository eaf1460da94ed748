"""Agents that cause one another end, and the queue has bounds: nothing that agents do grows for ever."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sidecar.actors import messages as m
from sidecar.actors.runtime.asking import ask
from sidecar.state.errors import ChainTooLong, ConfigError, QueueFull, TooManySpawns
from sidecar.state.models import AgentId, AgentState, AgentStatus
from sidecar.supervision.fleet import Trigger
from tests.fleet import SLEEPS, Fleet, does, wait_until

PING_PONG = (Trigger(on="agent_exited", filter="agent_type:ping", spawn="pong"),
             Trigger(on="agent_exited", filter="agent_type:pong", spawn="ping"))  # fmt: skip


def agents(fleet: Fleet) -> tuple[AgentStatus, ...]:
    return fleet.ask(m.ListAgents(project_id=None))


def in_order(fleet: Fleet) -> list[AgentId]:
    return [agent.agent_id for agent in reversed(agents(fleet))]


def publish(fleet: Fleet, event_type: str, publisher: str, publisher_type: str, **data: Any) -> None:
    event = m.PublishEvent(
        project_id="p",
        event_type=event_type,
        publisher=publisher,
        publisher_type=publisher_type,
        data=msgspec.Raw(msgspec.json.encode({"issue_id": "issue-1", **data})),
    )
    ask(fleet.bus, event, timeout_s=10)


def cut(fleet: Fleet, count: int = 1) -> dict[str, Any]:
    """The data of the newest chain_cut, once there are that many."""
    events = wait_until(lambda: found if len(found := fleet.events(event_type="chain_cut")) >= count else None)
    assert len(events) == count
    data: dict[str, Any] = msgspec.json.decode(events[-1].data)
    return data


def test_triggers_that_fire_each_other_end_and_the_path_is_told(tmp_path: Path) -> None:
    with Fleet(tmp_path, triggers=PING_PONG, ping=does("true"), pong=does("true")) as fleet:
        fleet.spawn("ping")
        told = cut(fleet)
        chain = in_order(fleet)
        assert len(chain) == 8
        assert (told["path"], told["agent_type"], told["issue_id"]) == (chain, "ping", "issue-1")


def test_a_chain_goes_on_where_it_was_after_a_restart_of_everything(tmp_path: Path) -> None:
    options = {"max_chain_depth": 3}
    with Fleet(tmp_path, triggers=PING_PONG, options=options, ping=does(*SLEEPS), pong=does(*SLEEPS)) as fleet:
        fleet.spawn("ping")
        second = after_the_next_sidecar_stopped_the_last(fleet, 2)
        third = after_the_next_sidecar_stopped_the_last(fleet, 3)
        assert second == third[:2]
        fleet.stop(third[-1])
        assert cut(fleet)["path"] == third


def after_the_next_sidecar_stopped_the_last(fleet: Fleet, count: int) -> list[AgentId]:
    fleet.vanish()
    fleet.open()
    fleet.stop(in_order(fleet)[-1])
    return wait_until(lambda: found if len(found := in_order(fleet)) == count else None)


def test_a_chain_is_known_when_its_agents_have_left_the_list(tmp_path: Path) -> None:
    options = {"keep_ended": 0, "max_chain_depth": 3}
    with Fleet(tmp_path, triggers=PING_PONG, options=options, ping=does("true"), pong=does("true")) as fleet:
        fleet.spawn("ping")
        assert len(cut(fleet)["path"]) == 3


def test_an_agent_at_the_end_of_a_chain_spawns_nobody_and_is_told_why(tmp_path: Path) -> None:
    with Fleet(tmp_path, options={"max_chain_depth": 2}, sleeps=does(*SLEEPS)) as fleet:
        first = fleet.spawn_id("sleeps")
        second = fleet.spawn_id("sleeps", requested_by=first)
        with pytest.raises(ChainTooLong, match=r"agents\.max_chain_depth") as refused:
            fleet.spawn("sleeps", requested_by=second)
        assert refused.value.details["path"] == [first, second] == cut(fleet)["path"]
        assert fleet.wait_for_event(second, "agent_started")["chain"] == [first]
        assert len(agents(fleet)) == 2


@pytest.mark.parametrize("in_whose_name", ["itself", "its type"])
def test_an_event_counts_for_who_published_it_in_whatever_name(tmp_path: Path, in_whose_name: str) -> None:
    trigger = Trigger(on="done", spawn="other")
    profiles = {"sleeps": does(*SLEEPS), "other": does("true")}
    with Fleet(tmp_path, triggers=(trigger,), options={"max_chain_depth": 2}, **profiles) as fleet:
        first = fleet.spawn_id("sleeps")
        second = fleet.spawn_id("sleeps", requested_by=first)
        publish(fleet, "done", second if in_whose_name == "itself" else "sleeps", "sleeps")
        assert cut(fleet)["path"] == [first, second]


def test_a_trigger_ignores_what_the_type_that_it_spawns_has_caused(tmp_path: Path) -> None:
    triggers = (Trigger(on="done", spawn="tester"), Trigger(on="agent_exited", spawn="tester"))
    with Fleet(tmp_path, triggers=triggers, tester=does("true")) as fleet:
        publish(fleet, "done", "tester-1", "tester")
        publish(fleet, "done", "someone", "operator")
        (agent,) = wait_until(lambda: agents(fleet))
        fleet.wait_for_state(agent.agent_id, AgentState.COMPLETED)
        publish(fleet, "done", "someone", "operator")  # after the exit, which has been looked at then
        wait_until(lambda: len(agents(fleet)) > 1)
        assert len(agents(fleet)) == 2


def test_a_trigger_that_allows_it_spawns_the_type_that_caused_the_event(tmp_path: Path) -> None:
    trigger = Trigger(on="agent_exited", spawn="again", allow_self=True)
    with Fleet(tmp_path, triggers=(trigger,), options={"max_chain_depth": 4}, again=does("true")) as fleet:
        fleet.spawn("again")
        assert len(cut(fleet)["path"]) == 4


def test_a_trigger_on_the_end_of_a_chain_is_refused(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, triggers=(Trigger(on="chain_cut", spawn="a"),), a=does("true"))
    with pytest.raises(ConfigError, match="chain_cut"):
        fleet.open()
    fleet.vanish()


def test_an_issue_has_no_more_agents_than_it_may(tmp_path: Path) -> None:
    with Fleet(tmp_path, options={"max_spawns_per_issue": 2}, ends=does("true")) as fleet:
        for _ in range(2):
            fleet.wait_for_state(fleet.spawn_id("ends"), AgentState.COMPLETED)
        with pytest.raises(TooManySpawns, match=r"issue-1 .* agents\.max_spawns_per_issue"):
            fleet.spawn("ends")
        fleet.spawn("ends", issue_id="issue-2")


def test_the_queue_holds_no_more_than_it_may_and_a_repeat_is_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with Fleet(tmp_path, options={"max_concurrent": 1, "max_queued": 2}, sleeps=does(*SLEEPS)) as fleet:
        first, *queued = (fleet.spawn_id("sleeps", idempotency_key=str(number)) for number in range(3))
        with pytest.raises(QueueFull, match=r"agents\.max_queued"):
            fleet.spawn("sleeps", idempotency_key="3")
        assert fleet.spawn_id("sleeps", idempotency_key="2") == queued[1]
        fleet.stop(first)
        fleet.wait_for_state(queued[0], AgentState.RUNNING)
        assert fleet.spawn("sleeps", idempotency_key="3").status.state is AgentState.QUEUED
    assert sum("queue is filling up" in record.message for record in caplog.records) == 1


def test_the_queue_holds_no_more_bytes_than_it_may(tmp_path: Path) -> None:
    options = {"max_concurrent": 1, "max_queued_mb": 0.1}
    with Fleet(tmp_path, options=options, sleeps=does(*SLEEPS)) as fleet:
        first = fleet.spawn_id("sleeps", task="x" * 100_000)
        second = fleet.spawn_id("sleeps", task="x" * 100_000)
        with pytest.raises(QueueFull, match=r"agents\.max_queued_mb"):
            fleet.spawn("sleeps", task="x" * 10_000)
        fleet.vanish()
        fleet.open()
        with pytest.raises(QueueFull, match=r"agents\.max_queued_mb"):
            fleet.spawn("sleeps", environment={"TASK_TEXT": "x" * 10_000})
        fleet.stop(first)
        fleet.wait_for_state(second, AgentState.RUNNING)
        fleet.spawn("sleeps", task="x" * 100_000, requested_by=AgentId("b"))
