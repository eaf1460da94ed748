"""What the EventBus promises through its messages: exact delivery, waiting, stateless reads, repeats, restarts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time

from sidecar.actors.messages import (
    AnswerSettled,
    AnswerWaiters,
    CountEvents,
    ListDeadLetters,
    ListEvents,
    ListMailboxes,
    ReplayDeadLetter,
)
from sidecar.actors.replies import EventBatch, PublishedEvent
from sidecar.actors.runtime.asking import Envelope, Later
from sidecar.state.errors import EventsGone, IdempotencyConflict, InvalidRequest, RateLimited
from tests.buses import WITHIN_S, Bus, awaiting, got, ids, publishing


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    bus = Bus(tmp_path / "events")
    yield bus
    bus.close()


def test_an_event_wakes_whoever_waits_for_its_type(bus: Bus) -> None:
    waiting = bus.wait("done")
    other = bus.wait("other", agent="b")
    published = bus.publish("done", data={"n": 1})
    batch = got(waiting)
    assert ids(batch) == [published.event_id]
    assert published.subscribers == ("a",)
    assert not batch.timed_out
    assert not other.done()


def test_a_first_wait_finds_what_was_published_before_it(bus: Bus) -> None:
    first, second = bus.publish(), bus.publish()
    assert ids(bus.take("done")) == [first.event_id, second.event_id]


def test_each_wait_goes_on_where_the_one_before_ended(bus: Bus) -> None:
    published = [bus.publish(data={"n": n}).event_id for n in range(5)]
    taken: list[str] = []
    while batch := bus.take("done", limit=2).deliveries:
        taken += [delivery.event.event_id for delivery in batch]
    assert taken == published


def test_a_wait_ends_at_its_time_out_and_says_so(bus: Bus) -> None:
    batch = got(bus.wait("done", timeout_s=0.05))
    assert batch.timed_out
    assert batch.deliveries == ()


def test_a_wait_longer_than_the_configured_maximum_is_cut_to_it(tmp_path: Path) -> None:
    bus = Bus(tmp_path, max_wait_ms=50)
    assert got(bus.wait("done", timeout_s=3600)).timed_out
    bus.close()


def test_two_agents_and_two_filters_are_different_mailboxes(bus: Bus) -> None:
    event = bus.publish(data={"status": "success"}).event_id
    assert ids(bus.take("done", agent="a")) == [event]
    assert ids(bus.take("done", agent="b")) == [event]
    assert ids(bus.take("done", agent="a", filter="status:success")) == [event]
    assert ids(bus.take("done", agent="a", filter="status:failed")) == []
    assert ids(bus.take("done", agent="a", consumer="second loop")) == [event]
    assert ids(bus.take("done", agent="a")) == []


def test_events_of_another_project_are_never_seen(bus: Bus) -> None:
    waiting = bus.wait("done", project="q")
    assert bus.publish("done", project="p").subscribers == ()
    mine = bus.publish("done", project="q")
    assert ids(got(waiting)) == [mine.event_id]
    assert [e.event_id for e in bus.ask(ListEvents(project_id="q")).events] == [mine.event_id]


def test_topics_and_types_must_both_hold(bus: Bus) -> None:
    bus.publish("done", topic="testing")
    wanted = bus.publish("done", topic="security")
    bus.publish("other", topic="security")
    assert ids(bus.take("done", topics=frozenset({"security"}))) == [wanted.event_id]


def test_a_topic_left_out_is_the_standard_one_of_the_type(bus: Bus) -> None:
    assert bus.publish("architecture_defined").topic == "architecture"
    assert bus.publish("anything_else").topic == "coordination"


def test_the_newest_of_two_waiters_on_one_mailbox_gets_the_answer(bus: Bus) -> None:
    older = bus.wait("done", timeout_s=0.3)
    newer = bus.wait("done")
    published = bus.publish("done")
    assert ids(got(newer)) == [published.event_id]
    batch = got(older)
    assert (batch.timed_out, batch.superseded) == (True, True)


def test_a_waiter_that_went_away_is_handed_nothing(bus: Bus) -> None:
    waiting = bus.wait("done")
    waiting.cancel()
    published = bus.publish("done")
    assert published.subscribers == ()
    assert ids(bus.take("done")) == [published.event_id]
    assert bus.ask(CountEvents(project_id="p")).active_subscriptions == 0


def test_an_answer_that_was_lost_is_given_again_and_says_so(bus: Bus) -> None:
    event = bus.publish("done").event_id
    first = bus.take("done")
    assert first.answer is not None
    bus.handle.tell(AnswerSettled(answer=first.answer, taken=False))
    again = bus.take("done")
    assert [(d.event.event_id, d.redelivered) for d in again.deliveries] == [(event, True)]
    assert ids(bus.take("done")) == []


def test_without_a_verdict_a_proxied_answer_counts_as_lost(bus: Bus) -> None:
    event = bus.publish("done").event_id
    assert ids(bus.take("done")) == [event]
    assert ids(bus.take("done", is_proxied=True)) == [event]
    assert ids(bus.take("done")) == []


def test_with_ack_nothing_less_counts_as_taken(bus: Bus) -> None:
    first, second = bus.publish().event_id, bus.publish().event_id
    assert ids(bus.take("done")) == [first, second]
    assert ids(bus.take("done", ack=first)) == [second]
    assert ids(bus.take("done")) == [second]
    assert ids(bus.take("done", ack=second)) == []


def test_an_ack_of_what_was_never_handed_out_skips_nothing(bus: Bus) -> None:
    bus.take("done")
    event = bus.publish().event_id
    assert ids(bus.take("done", ack="evt-9999999999999999")) == [event]


def test_since_reads_from_there_and_touches_no_mailbox(bus: Bus) -> None:
    first, second = bus.publish().event_id, bus.publish().event_id
    assert ids(bus.take("done", since=first)) == [second]
    assert ids(bus.take("done", since="earliest")) == [first, second]
    assert ids(bus.take("done", since="2000-01-01T00:00:00Z")) == [first, second]
    assert ids(bus.take("done", since="latest")) == []
    assert bus.take("done", since="earliest", limit=1).next_cursor == first
    assert ids(bus.take("done")) == [first, second]
    waiting = bus.wait("done", since="latest")
    third = bus.publish().event_id
    assert ids(got(waiting)) == [third]


@pytest.mark.parametrize("since", ["yesterday", "evt-1", "2026-01-01T00:00:00", ""])
def test_a_since_that_cannot_be_read_is_refused(bus: Bus, since: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        bus.take("done", since=since)
    assert refused.value.details["field"] == "since"


def test_events_that_retention_dropped_are_reported_as_a_gap(tmp_path: Path) -> None:
    bus = Bus(tmp_path, max_events=3)
    first = bus.publish().event_id
    assert ids(bus.take("done")) == [first]
    published = [bus.publish().event_id for _ in range(6)]
    batch = bus.take("done")
    assert ids(batch) == published[3:]
    assert batch.gap is not None
    assert (batch.gap.from_, batch.gap.to, batch.gap.dropped_at_most) == (first, published[2], 3)
    assert batch.gap.reason == "count"
    assert bus.take("done").gap is None
    with pytest.raises(EventsGone) as gone:
        bus.take("done", since=first, strict=True)
    assert gone.value.details["oldest"] == published[3]
    since = bus.take("done", since=first)
    assert since.gap is not None
    bus.close()


def test_an_event_past_its_ttl_is_not_given_but_leaves_a_gap(bus: Bus) -> None:
    with freeze_time("2026-01-01", tick=True) as clock:
        bus.take("done")
        bus.publish("done", ttl_s=5)
        kept = bus.publish("done", ttl_s=60).event_id
        clock.tick(timedelta(seconds=10))
        batch = bus.take("done")
    assert ids(batch) == [kept]
    assert batch.gap is not None
    assert batch.gap.reason == "ttl"


def test_an_idempotency_key_publishes_once(bus: Bus) -> None:
    first = bus.publish("done", data={"n": 1}, idempotency_key="k")
    assert bus.publish("done", data={"n": 1}, idempotency_key="k").event_id == first.event_id
    with pytest.raises(IdempotencyConflict):
        bus.publish("done", data={"n": 2}, idempotency_key="k")
    bus.reopen()
    assert bus.publish("done", data={"n": 1}, idempotency_key="k").event_id == first.event_id
    assert len(bus.ask(ListEvents(project_id="p")).events) == 1


def test_everything_stands_where_it_stood_after_a_restart(bus: Bus) -> None:
    first = bus.publish("done").event_id
    bus.publish("other", project="q")
    assert ids(bus.take("done")) == [first]
    assert ids(bus.take("done")) == []
    bus.reopen()
    second = bus.publish("done").event_id
    assert second > first
    assert ids(bus.take("done")) == [second]
    assert ids(bus.take("done", agent="b")) == [first, second]
    assert bus.ask(CountEvents(project_id=None)).total_published == 1


def test_an_answer_whose_fate_a_restart_hid_is_given_again(bus: Bus) -> None:
    event = bus.publish("done").event_id
    assert ids(bus.take("done")) == [event]
    bus.reopen()
    again = bus.take("done")
    assert [(d.event.event_id, d.redelivered) for d in again.deliveries] == [(event, True)]


def test_a_bus_whose_loop_dies_goes_on_and_nobody_hangs(bus: Bus) -> None:
    event = bus.publish("done").event_id
    waiting = bus.wait("other")
    bus.handle.restart("drill")
    assert waiting.exception(timeout=WITHIN_S) is not None
    assert ids(bus.take("done")) == [event]
    assert bus.handle.status().restarts == 1


def test_what_a_dead_process_took_without_ack_is_given_to_the_next(bus: Bus) -> None:
    bus.agent_runs("a", 1)
    event = bus.publish("done").event_id
    first = bus.take("done")
    assert first.answer is not None
    bus.handle.tell(AnswerSettled(answer=first.answer, taken=True))
    bus.agent_runs("a", 2)
    again = bus.take("done")
    assert [(d.event.event_id, d.redelivered) for d in again.deliveries] == [(event, True)]
    assert ids(bus.take("done")) == []
    bus.agent_runs("a", 3)
    assert ids(bus.take("done")) == []


def test_an_event_that_killed_five_incarnations_becomes_a_dead_letter_and_can_be_replayed(bus: Bus) -> None:
    bus.agent_runs("a", 1)
    poison = bus.publish("done").event_id
    for incarnation in range(2, 7):
        assert ids(bus.take("done")) == [poison]
        bus.agent_runs("a", incarnation)
    good = bus.publish("done").event_id
    assert ids(bus.take("done")) == [good]
    letters = bus.ask(ListDeadLetters(project_id="p"))
    assert [letter.event.event_id for letter in letters] == [poison]
    assert bus.ask(ReplayDeadLetter(event_id=letters[0].event.event_id, project_id=None)) == 1
    assert bus.ask(ListDeadLetters(project_id="p")) == ()
    assert ids(bus.take("done")) == [poison]


def test_events_older_than_the_agent_are_marked_as_replayed(bus: Bus) -> None:
    bus.publish("done")
    batch = bus.take("done", agent_since=datetime.now(UTC) + timedelta(seconds=1))
    assert [d.replayed for d in batch.deliveries] == [True]
    bus.publish("done")
    assert [d.replayed for d in bus.take("done", agent="b").deliveries] == [False, False]


def test_subscribers_are_those_who_wait_and_those_whose_profile_subscribes(bus: Bus) -> None:
    bus.agent_runs("profile-subscriber", 1, topics=frozenset({"security"}))
    bus.wait("finding", agent="waiter")
    assert bus.publish("finding", topic="security").subscribers == ("profile-subscriber", "waiter")
    assert bus.publish("finding", topic="testing").subscribers == ()


def test_shutdown_answers_everyone_who_waits(bus: Bus) -> None:
    waiting = [bus.wait("done", agent=f"a{n}") for n in range(20)]
    assert bus.ask(AnswerWaiters()) == 20
    assert all(got(later).timed_out for later in waiting)
    assert got(bus.wait("done", agent="late")).timed_out


def test_an_agent_may_have_only_so_many_mailboxes(bus: Bus) -> None:
    for n in range(256):
        bus.take("done", consumer=f"c{n}")
    with pytest.raises(RateLimited):
        bus.take("done", consumer="one too many")
    assert bus.take("done", consumer="c0").timed_out


def test_the_list_shows_newest_first_in_pages(bus: Bus) -> None:
    published = [bus.publish("done", data={"n": n}, topic="testing").event_id for n in range(5)]
    bus.publish("other")
    page = bus.ask(ListEvents(project_id="p", event_type="done", limit=2))
    assert [e.event_id for e in page.events] == [published[4], published[3]]
    assert page.total == 5
    rest = bus.ask(ListEvents(project_id="p", event_type="done", limit=9, before=page.next_cursor))
    assert [e.event_id for e in rest.events] == published[2::-1]
    assert rest.next_cursor is None
    assert bus.ask(ListEvents(project_id="p", topic="testing", filter="n:>3")).total == 1


def test_a_mailbox_is_shown_with_its_place_and_lag(bus: Bus) -> None:
    first = bus.publish("done").event_id
    bus.take("done")
    bus.take("done")
    bus.publish("done")
    (mailbox,) = bus.ask(ListMailboxes(project_id="p"))
    assert (mailbox.position, mailbox.lag, mailbox.deliveries, mailbox.is_waited_on) == (first, 1, 1, False)


def test_commit_durability_answers_as_well(tmp_path: Path) -> None:
    bus = Bus(tmp_path, durability="commit")
    event = bus.publish("done").event_id
    bus.reopen()
    assert ids(bus.take("done")) == [event]
    bus.close()


class TestMessagesThatCameTogether:
    """What the I/O loop read in one turn: answers leave together, and nothing may take them for taken before."""

    def test_a_wait_behind_one_that_was_given_up_gets_what_that_one_did_not(self, bus: Bus) -> None:
        published = bus.publish()
        given_up, again = Later[EventBatch](), Later[EventBatch]()
        given_up.cancel()
        bus.handle.send((Envelope(awaiting("done"), given_up), Envelope(awaiting("done"), again)))
        batch = got(again)
        assert ids(batch) == [published.event_id]
        assert batch.deliveries[0].redelivered

    def test_news_of_a_lost_answer_finds_the_answer_given(self, bus: Bus) -> None:
        published = bus.publish()
        first = got(bus.wait("done"))
        assert first.answer is not None
        lost, again = AnswerSettled(answer=first.answer, taken=False), Later[EventBatch]()
        bus.handle.send((Envelope(lost, None), Envelope(awaiting("done"), again)))
        assert ids(got(again)) == [published.event_id]

    def test_all_are_answered_though_the_last_is_refused(self, bus: Bus) -> None:
        bus.publish(data={"n": 1}, idempotency_key="k")
        waiting, publish, conflict = bus.wait("news"), Later[PublishedEvent](), Later[PublishedEvent]()
        bus.handle.send(
            (
                Envelope(publishing("news"), publish),
                Envelope(publishing(data={"n": 2}, idempotency_key="k"), conflict),
            )
        )
        with pytest.raises(IdempotencyConflict):
            conflict.result(timeout=WITHIN_S)
        assert ids(got(waiting)) == [publish.result(timeout=WITHIN_S).event_id]

    def test_a_reader_sees_what_was_published_before_it(self, bus: Bus) -> None:
        publish, listed = Later[PublishedEvent](), Later[Any]()
        bus.handle.send((Envelope(publishing(), publish), Envelope(ListEvents(project_id="p", limit=10), listed)))
        page = listed.result(timeout=WITHIN_S)
        assert [event.event_id for event in page.events] == [publish.result().event_id]
