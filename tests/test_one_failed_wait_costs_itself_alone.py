"""Waits that end together are answered one by one: one that cannot be answered costs no other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.actors.events.publishing import record_of
from sidecar.actors.events.searches import Searches
from sidecar.actors.events.waiting_room import WaitingRoom
from sidecar.actors.messages import AwaitEvents
from sidecar.actors.replies import EventBatch
from sidecar.actors.runtime.asking import Later
from sidecar.state.events.log import Retention
from sidecar.state.events.mailboxes import Mailboxes
from sidecar.state.events.store import EventStore
from sidecar.state.journal.journal import Durability
from tests.buses import awaiting, publishing


class Room:
    """A waiting room over a log, and three agents that wait in it; each test breaks the mailbox of one."""

    def __init__(self, folder: Path) -> None:
        self.store = EventStore(folder / "log", Retention(), Durability.OS)
        self.mailboxes = Mailboxes(folder / "mailboxes")
        self.room = WaitingRoom(self.mailboxes, self.store.log, Searches(), max_wait_s=60)
        self.laters = [self.enter(awaiting("done", agent=agent)) for agent in ("first", "broken", "last")]
        self.broken = next(mailbox for mailbox in self.mailboxes if mailbox.key.agent_id == "broken")

    def enter(self, request: AwaitEvents) -> Later[EventBatch]:
        later: Later[EventBatch] = Later()
        self.room.enter(request, later, gone=lambda number: None, may_wait=True)
        return later

    def answered(self) -> set[str]:
        return {waiter.request.agent_id for waiter, _ in self.room.answers()}

    def close(self) -> None:
        self.store.close()


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path)
    yield room
    room.close()


def time_out(room: Room) -> None:
    room.broken.place = 99
    room.room.end_overdue(now=math.inf)


def shut_down(room: Room) -> None:
    room.broken.place = 99
    assert room.room.end_all() == 3


def publish(room: Room) -> None:
    room.broken.given_up_to = None  # type: ignore[assignment]
    room.store.append(record_of(publishing("done"), None, retention_s=60))
    (event,) = room.store.commit()
    for waiter in room.room.matching(event, until=math.inf):
        room.room.wake(waiter, until=math.inf)


@pytest.mark.parametrize("end", [time_out, shut_down, publish])
def test_the_others_are_answered_and_the_broken_one_is_told(room: Room, end: Callable[[Room], Any]) -> None:
    end(room)
    assert room.answered() == {"first", "last"}
    assert room.laters[1].exception() is not None
    assert len(room.room) == 0


def test_a_wait_that_cannot_begin_is_not_kept(room: Room) -> None:
    room.broken.place = 99
    before = len(room.room)
    with pytest.raises(Exception, match="place 99"):
        room.room.enter(
            awaiting("done", agent="broken", timeout_s=0.0), Later(), gone=lambda number: None, may_wait=True
        )
    assert len(room.room) == before
