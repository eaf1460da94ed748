"""Dead letters are bounded in bytes: what finds no room among them is given again, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.actors.messages import ListDeadLetters
from sidecar.state.events import dead_letters
from sidecar.state.events.log import EVENT_OVERHEAD_BYTES
from tests.buses import Bus, ids

ROOM = 3 * (EVENT_OVERHEAD_BYTES + 100)  # for three small events


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    bus = Bus(tmp_path / "events")
    yield bus
    bus.close()


def die_of_everything(bus: Bus, agent: str) -> None:
    bus.agent_runs(agent, 1)
    for incarnation in range(2, 8):
        for consumer in ("x", "y"):
            bus.take("done", agent=agent, consumer=consumer)
        bus.agent_runs(agent, incarnation)


@pytest.mark.parametrize("bound", ["MAX_DEAD_BYTES", "MAX_DEAD_BYTES_OF_AGENT"])
def test_what_finds_no_room_is_given_again(bus: Bus, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    monkeypatch.setattr(dead_letters, bound, ROOM)
    published = [bus.publish("done").event_id for _ in range(5)]
    die_of_everything(bus, "a")
    letters = bus.ask(ListDeadLetters(project_id="p"))
    assert len(letters) == 3
    for consumer in ("x", "y"):
        dead = {letter.event.event_id for letter in letters if letter.mailbox.consumer == consumer}
        assert ids(bus.take("done", agent="a", consumer=consumer)) == [id_ for id_ in published if id_ not in dead]


def test_one_agent_leaves_room_for_others(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "MAX_DEAD_BYTES_OF_AGENT", ROOM)
    for _ in range(5):
        bus.publish("done")
    for agent in ("a", "b"):
        die_of_everything(bus, agent)
    letters = bus.ask(ListDeadLetters(project_id="p"))
    assert sorted(letter.mailbox.agent_id for letter in letters) == ["a"] * 3 + ["b"] * 3
