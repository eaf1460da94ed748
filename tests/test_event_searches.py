"""Looking through a long log goes in steps, with others in between, and finds what one look would find."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.actors.events import waiting_room
from sidecar.actors.events.reading import EventListing
from sidecar.actors.messages import CountEvents, ListEvents, ListMailboxes
from sidecar.actors.runtime.asking import R, Request
from sidecar.state.errors import EventsGone
from sidecar.state.events import search as event_search
from sidecar.state.events.filter import compile_filter
from sidecar.state.events.log import EventLog, Retention
from sidecar.state.events.mailbox import MailboxKey, new_mailbox
from sidecar.state.models import AgentId, Event, event_id
from tests.buses import WITHIN_S, Bus, awaiting, got, ids, publishing

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MANY = 150  # events, each of which is a step of its own here


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    monkeypatch.setattr(event_search, "STEP_S", 0.0)
    bus = Bus(tmp_path / "events")
    yield bus
    bus.close()


def fill(bus: Bus) -> None:
    laters = [bus.handle.request(publishing("done", data={"n": 2})) for _ in range(MANY)]
    for later in laters:
        later.result(timeout=WITHIN_S)


class TestOthersInBetween:
    """What takes long is asked first, and answered last."""

    @pytest.mark.parametrize(
        "long",
        [
            ListEvents(project_id="p", filter="n:1"),
            ListEvents(project_id=None, event_type="done", filter="n:1"),
            awaiting("done", filter="n:1", timeout_s=0.0),
            awaiting(filter="n:1", timeout_s=0.0),
            awaiting("done", filter="n:1", timeout_s=0.0, since="earliest"),
        ],
    )
    @pytest.mark.parametrize(
        "short", [publishing("other"), CountEvents(project_id=None), ListMailboxes(project_id=None)]
    )
    def test_are_answered_before(self, bus: Bus, long: Request[R], short: Request[R]) -> None:
        fill(bus)
        answered: list[str] = []
        slow = bus.handle.request(long)
        quick = bus.handle.request(short)
        slow.add_done_callback(lambda _: answered.append("long"))
        quick.add_done_callback(lambda _: answered.append("short"))
        slow.result(timeout=WITHIN_S)
        assert answered == ["short", "long"]

    def test_long_ones_take_turns(self, bus: Bus) -> None:
        bus.publish("done", data={"n": 1})
        fill(bus)
        slow = bus.wait("done", filter="n:3", timeout_s=0.0)
        assert ids(bus.take("done", agent="b", filter="n:1", limit=1)) == ids(bus.take(since="earliest", limit=1))
        assert got(slow).timed_out


class TestAWait:
    def test_finds_what_is_at_the_end_however_short_it_is(self, bus: Bus) -> None:
        fill(bus)
        wanted = bus.publish("done", data={"n": 1})
        assert ids(bus.take("done", filter="n:1")) == [wanted.event_id]
        assert ids(bus.take("done", filter="n:1", since="earliest")) == [wanted.event_id]

    def test_finds_what_is_published_while_it_looks(self, bus: Bus) -> None:
        fill(bus)
        waits = [bus.wait("done", filter="n:1", **more) for more in ({}, {"since": "earliest"})]
        wanted = bus.publish("done", data={"n": 1})
        assert [ids(got(wait)) for wait in waits] == [[wanted.event_id]] * 2

    def test_begins_to_wait_when_it_has_looked(self, bus: Bus) -> None:
        fill(bus)
        wait = bus.wait("done", filter="n:1")
        bus.ask(ListEvents(project_id="p", filter="n:1"))  # takes as many turns, and began later
        assert not wait.done()
        wanted = bus.publish("done", data={"n": 1})
        assert ids(got(wait)) == [wanted.event_id]

    def test_gives_way_to_a_later_one_of_the_same_mailbox(self, bus: Bus) -> None:
        fill(bus)
        wanted = bus.publish("done", data={"n": 1})
        older = bus.wait("done", filter="n:1", timeout_s=0.5)
        assert ids(got(bus.wait("done", filter="n:1"))) == [wanted.event_id]
        assert got(older).superseded

    def test_of_a_client_that_has_gone_costs_no_event(self, bus: Bus) -> None:
        fill(bus)
        wanted = bus.publish("done", data={"n": 1})
        assert bus.wait("done", filter="n:1").cancel()
        assert ids(bus.take("done", filter="n:1")) == [wanted.event_id]

    def test_whose_time_is_up_goes_on_in_the_next(self, bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(waiting_room, "LOOK_ON_S", 0.0)
        fill(bus)
        wanted = bus.publish("done", data={"n": 1})
        for more in ({}, {"since": "earliest"}):
            batch = bus.take("done", filter="n:1", **more)
            while batch.timed_out:
                more = more and {"since": batch.next_cursor}
                batch = bus.take("done", filter="n:1", **more)
            assert ids(batch) == [wanted.event_id]

    def test_is_answered_with_the_whole_of_it(self, bus: Bus) -> None:
        first = bus.publish("done", data={"n": 1})
        fill(bus)
        last = bus.publish("done", data={"n": 1})
        assert ids(bus.take("done", filter="n:1")) == [first.event_id, last.event_id]

    def test_of_many_whose_filters_take_long_is_answered_as_one_alone(self, bus: Bus) -> None:
        waits = {n: bus.wait("done", agent=f"a{n}", filter=f"n:<{n}") for n in range(1, 40)}
        few = bus.publish("done", data={"n": 20})
        others = bus.publish("done", data={"n": 0})
        for n, wait in waits.items():
            assert ids(got(wait))[0] == (few.event_id if n > 20 else others.event_id)


def event(number: int, *, wanted: bool) -> Event:
    return Event(
        event_id=event_id(number),
        project_id="p",
        event_type="done",
        publisher="x",
        publisher_type="x",
        topic="t",
        data=msgspec.Raw(msgspec.json.encode({"n": int(wanted)})),
        correlation_id=None,
        priority="normal",
        ttl_s=1000,
        published_at=NOW,
    )


moves = st.lists(st.sampled_from(["wanted", "other", "step", "step"]), max_size=40)
KEEP = 8
WANTED = compile_filter("n:1")


class World:
    """A log that keeps eight events, in which some are published and one is looked at, in any order."""

    def __init__(self) -> None:
        self.log = EventLog(Retention(max_events=KEEP))
        self.wanted: list[int] = []  # places

    def publish(self, *, wanted: bool) -> None:
        place = self.log.append(event(self.log.last_place + 1, wanted=wanted))
        self.log.expire(now=NOW)
        if wanted:
            self.wanted.append(place)


@settings(deadline=None)
@given(before=st.lists(st.booleans(), max_size=12), moves=moves, limit=st.integers(1, 4))
def test_a_mailbox_is_given_all_that_retention_left_and_told_the_rest(
    before: list[bool], moves: list[str], limit: int
) -> None:
    world = World()
    key = MailboxKey(project_id="p", agent_id=AgentId("a"), event_types=(), topics=(), filter="", consumer="")
    mailbox = new_mailbox(key, world.log, agent_since=NOW, now=NOW)
    for wanted in before:
        world.publish(wanted=wanted)
    search = mailbox.search(limit=limit)
    dropped_before_looked_at: set[int] = set()

    def step(until: float = 0.0) -> bool:
        dropped_before_looked_at.update(range(search.place + 1, world.log.dropped + 1))
        return mailbox.look(world.log, search, WANTED.matches, now=NOW, until=until)

    is_over = False
    for move in moves:
        if move == "step":
            is_over = is_over or step()
        elif not is_over:
            world.publish(wanted=move == "wanted")
    while not is_over:
        is_over = step()
    handed = [int(delivery.event.event_id[-8:]) for delivery in mailbox.hand_out(search, incarnation=0)]
    owed = [place for place in world.wanted if place not in dropped_before_looked_at]
    assert handed == owed[:limit]
    assert search.more == (len(owed) > limit)
    missed = {place for place in dropped_before_looked_at if place <= search.reached}
    if missed:
        assert mailbox.gap is not None
        assert mailbox.gap.dropped_at_most >= len(missed)
        assert mailbox.gap.to >= event_id(max(missed))
    else:
        assert mailbox.gap is None or search.more


@settings(deadline=None)
@given(
    before=st.lists(st.booleans(), max_size=KEEP),
    moves=moves,
    limit=st.integers(1, 4),
    cursor=st.none() | st.integers(1, 20),
    since=st.sampled_from([None, "earliest"]),
)
def test_a_list_is_one_look_at_what_was_there(
    before: list[bool], moves: list[str], limit: int, cursor: int | None, since: str | None
) -> None:
    world = World()
    for wanted in before:
        world.publish(wanted=wanted)
    listing = EventListing(
        [world.log],
        ListEvents(
            project_id="p",
            filter="n:1",
            limit=limit,
            since=since,
            before=event_id(cursor) if cursor is not None else None,
        ),
        now=NOW,
    )
    looked_at, lost, page = 0, set[int](), None

    def step() -> None:
        nonlocal looked_at, page
        lost.update(range(looked_at + 1, world.log.dropped + 1))
        looked_at = min(max(looked_at, world.log.dropped) + 1, world.log.last_place)
        page = listing.step(until=0.0)

    for move in moves:
        if page is not None:
            break
        if move == "step":
            step()
        else:
            world.publish(wanted=move == "wanted")
    while page is None:
        step()
    there = [event_id(place) for place in reversed(world.wanted) if place not in lost]
    older = [id_ for id_ in there if cursor is None or id_ < event_id(cursor)]
    assert [each.event_id for each in page.events] == older[:limit]
    assert page.total == len(there)
    assert page.next_cursor == (older[limit - 1] if len(older) > limit else None)
    assert (page.gap is not None) == bool(lost and since is not None)


def test_a_strict_list_is_refused_when_events_are_dropped_while_it_looks() -> None:
    world = World()
    for _ in range(KEEP):
        world.publish(wanted=False)
    listing = EventListing(
        [world.log], ListEvents(project_id="p", filter="n:1", since="earliest", strict=True), now=NOW
    )
    assert listing.step(until=0.0) is None
    for _ in range(3):
        world.publish(wanted=False)
    with pytest.raises(EventsGone):
        listing.step(until=0.0)
