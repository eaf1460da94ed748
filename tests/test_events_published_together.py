"""What is published together comes in its order, once, and all of it or a beginning; the Spawner tells of agents so."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.actors.event_bus import EventBus
from sidecar.actors.messages import PublishEvent, PublishTogether
from sidecar.state.errors import IdempotencyConflict, StorageUnavailable
from sidecar.state.journal.fs import _OsFile
from sidecar.state.models import AgentState
from tests.buses import Bus, got, ids, publishing
from tests.fleet import SLEEPS, Fleet, does


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    bus = Bus(tmp_path / "events")
    yield bus
    bus.close()


def numbered(*numbers: int, **changed: Any) -> PublishTogether:
    events = (publishing(data={"n": n} | changed, idempotency_key=f"key-{n}") for n in numbers)
    return PublishTogether(events=tuple(events))


def seen(bus: Bus) -> list[str]:
    return ids(bus.take("done", consumer="everything", limit=1000))


def test_they_come_in_their_order_and_wake_who_waits(bus: Bus) -> None:
    waiting = bus.wait("done")
    published = bus.ask(numbered(1, 2, 3))
    assert [p.event_id for p in published] == sorted(p.event_id for p in published)
    assert ids(got(waiting)) == [p.event_id for p in published]
    assert [p.subscribers for p in published] == [("a",)] * 3


def test_what_the_bus_has_already_is_not_published_again(bus: Bus) -> None:
    first = bus.ask(numbered(1, 2))
    again = bus.ask(numbered(1, 2, 3))
    assert [p.event_id for p in again[:2]] == [p.event_id for p in first]
    assert [p.event_id for p in bus.ask(numbered(1, 2, 3))] == [p.event_id for p in again] == seen(bus)
    bus.reopen()
    assert [p.event_id for p in bus.ask(numbered(1, 2, 3, 4))][:3] == [p.event_id for p in again]


def test_a_key_that_stands_for_something_else_keeps_all_of_them_out(bus: Bus) -> None:
    bus.ask(numbered(2))
    with pytest.raises(IdempotencyConflict):
        bus.ask(numbered(1, 2, 3, other=True))
    assert len(seen(bus)) == 1


def test_what_could_not_be_written_is_published_once_when_it_can(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    write, room = _OsFile.write, iter([False])

    def write_if_there_is_room(file: _OsFile, data: bytes) -> None:
        if not next(room, True):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, data)

    monkeypatch.setattr(_OsFile, "write", write_if_there_is_room)
    with pytest.raises(StorageUnavailable):
        bus.ask(numbered(1, 2, 3))
    assert seen(bus) == []
    published = bus.ask(numbered(1, 2, 3))
    assert [p.event_id for p in published] == seen(bus)
    assert len(published) == 3


class TroubledBus:
    """Refuses what it is asked to publish together as long as `refuses` says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[list[str]] = []
        publish = EventBus._publish_together

        def publish_together(bus: EventBus, events: tuple[PublishEvent, ...]) -> Any:
            self.asked.append([event.event_type for event in events])
            self.refuse(events)
            return publish(bus, events)

        monkeypatch.setattr(EventBus, "_publish_together", publish_together)

    def refuse(self, events: tuple[PublishEvent, ...]) -> None:
        """Raise for what is not to be published."""


def test_lifecycle_events_that_the_bus_could_not_take_come_later_in_order_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(TroubledBus):
        def refuse(self, events: tuple[PublishEvent, ...]) -> None:
            if len(self.asked) <= 2:
                raise StorageUnavailable(f"no room for {len(events)}")

    bus = Full(monkeypatch)
    with Fleet(tmp_path, sleeps=does(*SLEEPS)) as fleet:
        agent = fleet.spawn_id("sleeps")
        fleet.stop(agent)
        fleet.wait_for_event(agent, "agent_stopped")
        assert fleet.story(agent) == ["agent_spawned", "agent_started", "agent_exited", "agent_stopped"]
    assert len(bus.asked[1]) == 1, "after a failure one is tried alone"


def test_a_lifecycle_event_that_is_refused_for_good_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Picky(TroubledBus):
        def refuse(self, events: tuple[PublishEvent, ...]) -> None:
            if any(event.event_type == "agent_started" for event in events):
                raise IdempotencyConflict("that key published something else")

    Picky(monkeypatch)
    with Fleet(tmp_path, ends=does("true")) as fleet:
        agent = fleet.spawn_id("ends")
        fleet.wait_for_state(agent, AgentState.COMPLETED)
        fleet.wait_for_event(agent, "agent_exited")
        assert fleet.story(agent) == ["agent_spawned", "agent_exited"]
