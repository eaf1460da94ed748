"""A mailbox's lag: events that match its question and were not taken; none for an agent that has ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.actors.agent_facts import AgentEnded
from sidecar.actors.events import mailbox_lag
from sidecar.actors.messages import CountEvents, ListDeadLetters, ListMailboxes
from sidecar.state.events.mailbox import MAX_DELIVERIES
from sidecar.state.models import AgentId
from tests.buses import Bus


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    bus = Bus(tmp_path / "events")
    yield bus
    bus.close()


def lag(bus: Bus, agent: str = "a") -> int:
    (found,) = [each.lag for each in bus.ask(ListMailboxes(project_id="p")) if each.agent_id == agent]
    return found


def test_events_of_other_types_topics_and_data_are_no_lag(bus: Bus) -> None:
    bus.take("done", topics=frozenset({"testing"}), filter="status:success")
    for event_type, topic, status in (
        ("done", "testing", "success"),
        ("other", "testing", "success"),
        ("done", "security", "success"),
        ("done", "testing", "failed"),
        ("done", "testing", "success"),
    ):
        bus.publish(event_type, topic=topic, data={"status": status})
        bus.publish("done", project="q", topic=topic, data={"status": status})
    assert lag(bus) == 2
    assert bus.ask(CountEvents(project_id="p")).max_lag == 2
    bus.take("done", topics=frozenset({"testing"}), filter="status:success", limit=1)
    bus.take("done", topics=frozenset({"testing"}), filter="status:success", limit=1)
    assert lag(bus) == 1


def test_an_agent_that_has_ended_is_not_behind(bus: Bus) -> None:
    bus.agent_runs("a", 1)
    bus.take("done")
    bus.take("done", agent="b")
    for _ in range(3):
        bus.publish("done")
    assert bus.ask(CountEvents(project_id=None)).queue_depth == 6
    bus.handle.tell(AgentEnded(agent_id=AgentId("a")))
    counted = bus.ask(CountEvents(project_id=None))
    assert (counted.queue_depth, counted.max_lag, counted.mailboxes) == (3, 3, 2)
    assert (lag(bus, "a"), lag(bus, "b")) == (0, 3)


def test_a_dead_letter_is_no_lag_as_soon_as_the_mailbox_gives_up(bus: Bus) -> None:
    bus.agent_runs("a", 1)
    bus.publish("done")
    for incarnation in range(2, MAX_DELIVERIES + 2):
        bus.take("done")
        assert lag(bus) == 1
        bus.agent_runs("a", incarnation)
    assert len(bus.ask(ListDeadLetters(project_id="p"))) == 1
    assert lag(bus) == 0
    assert bus.ask(CountEvents(project_id="p")).queue_depth == 0


@settings(max_examples=30, deadline=None)
@given(moves=st.lists(st.sampled_from(["match", "other", "take", "look"]), max_size=25))
def test_it_is_what_a_whole_look_at_the_log_counts(tmp_path_factory: pytest.TempPathFactory, moves: list[str]) -> None:
    bus = Bus(tmp_path_factory.mktemp("bus"))
    bus.take("done", filter="n:1")
    bus.take("done", filter="n:1")
    owed = handed = 0
    for move in moves:
        if move == "take":
            owed -= handed
            handed = len(bus.take("done", filter="n:1", limit=2).deliveries)
        elif move == "look":
            assert lag(bus) == owed
        else:
            bus.publish("done", data={"n": 1 if move == "match" else 2})
            owed += move == "match"
    assert lag(bus) == owed
    bus.close()


def test_a_look_is_bounded_and_what_was_not_looked_at_counts(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    bus.take("done", filter="n:1")
    for _ in range(6):
        bus.publish("done", data={"n": 2})
    monkeypatch.setattr(mailbox_lag, "MAX_LOOKED_AT_BYTES", 2500)
    assert [lag(bus) for _ in range(4)] == [4, 2, 0, 0]


def test_the_bound_holds_for_mailboxes_without_a_filter_too(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    bus.take("done", topics=frozenset({"testing"}))
    for _ in range(6):
        bus.publish("done", topic="security")
    monkeypatch.setattr(mailbox_lag, "MAX_LOOKED_AT_BYTES", 256)
    assert [lag(bus) for _ in range(4)] == [4, 2, 0, 0]
