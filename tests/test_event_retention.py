"""What a log of events keeps: so many, so many bytes, so long, whatever the clock said; and how large an answer is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from freezegun import freeze_time
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.actors.messages import ListEvents
from sidecar.state.events.log import EventLog, Retention, size_of
from sidecar.state.events.search import MAX_ANSWER_BYTES
from sidecar.state.models import Event, event_id
from tests.buses import Bus, ids

START = datetime(2026, 1, 1, tzinfo=UTC)
MIB = 1 << 20


def event(number: int, *, size: int = 2, at: datetime = START, ttl_s: int = 86_400) -> Event:
    return Event(
        event_id=event_id(number),
        project_id="p",
        event_type="done",
        publisher="x",
        publisher_type="x",
        topic="t",
        data=msgspec.Raw(b'{"a":"%b"}' % (b"x" * size)),
        correlation_id=None,
        priority="normal",
        ttl_s=ttl_s,
        published_at=at,
    )


class TestBytes:
    @settings(deadline=None)
    @given(sizes=st.lists(st.integers(0, 5000), max_size=60))
    def test_a_log_keeps_the_newest_events_that_fit(self, sizes: list[int]) -> None:
        bound = 20_000
        log = EventLog(Retention(max_bytes=bound))
        events = [event(number, size=size) for number, size in enumerate(sizes, 1)]
        for each in events:
            log.append(each)
            log.expire(now=START)
        kept = [each for _, each in log.after(0)]
        assert kept == events[len(events) - len(kept) :]
        assert sum(size_of(each) for each in kept) <= bound
        dropped = events[: len(events) - len(kept)]
        assert not dropped or sum(size_of(each) for each in (dropped[-1], *kept)) > bound
        gap = log.missing.after(0, event_id(0))
        assert (gap is not None) == bool(dropped)
        assert gap is None or (gap.reason, gap.dropped_at_most) == ("bytes", len(dropped))

    def test_what_was_dropped_is_let_go(self) -> None:
        log = EventLog(Retention(max_bytes=MIB))
        for number in range(1, 400):
            log.append(event(number, size=100_000))
            log.expire(now=START)
        assert sum(size_of(each) for each in log._events) < 6 * MIB

    def test_a_mailbox_is_told_and_a_restart_keeps_no_more(self, tmp_path: Path) -> None:
        bus = Bus(tmp_path, max_bytes=1_000_000)
        first = bus.publish("done", data={"a": "x" * 200_000}).event_id
        assert ids(bus.take("done")) == [first]
        published = [bus.publish("done", data={"a": "x" * 200_000}).event_id for _ in range(8)]
        for _ in range(2):
            assert bus.ask(ListEvents(project_id="p")).total == 4
            bus.reopen()
        batch = bus.take("done")
        assert ids(batch)[-4:] == published[-4:]
        assert batch.gap is not None
        assert batch.gap.reason == "bytes"
        bus.close()

    def test_an_idempotency_key_does_not_keep_the_data_of_its_event(self, tmp_path: Path) -> None:
        bus = Bus(tmp_path)
        sent = bus.publish("done", data={"a": "x" * 1000}, idempotency_key="k")
        assert bus.publish("done", data={"a": "x" * 1000}, idempotency_key="k") == sent
        bus.close()


class TestAnswers:
    def test_no_answer_is_larger_than_its_bound_and_nothing_is_left_out(self, tmp_path: Path) -> None:
        bus = Bus(tmp_path)
        published = [bus.publish("done", data={"a": "x" * 250_000}).event_id for _ in range(40)]
        by_mailbox, by_cursor, listed = [], [], []
        since, before = "earliest", None
        while batch := bus.take("done"):
            by_mailbox += checked(ids(batch), batch)
            if not batch.more_available:
                break
        while batch := bus.take("done", since=since):
            by_cursor += checked(ids(batch), batch)
            since = batch.next_cursor
            if not batch.more_available:
                break
        while page := bus.ask(ListEvents(project_id="p", before=before, limit=1000)):
            assert sum(size_of(each) for each in page.events) <= MAX_ANSWER_BYTES
            listed += [each.event_id for each in page.events]
            before = page.next_cursor
            if before is None:
                break
        assert by_mailbox == by_cursor == listed[::-1] == published
        bus.close()


def checked(got: list[str], batch: Any) -> list[str]:
    assert 0 < sum(size_of(delivery.event) for delivery in batch.deliveries) <= MAX_ANSWER_BYTES
    return got


class TestAClockThatWasAhead:
    """One event is dated 20 days ahead; those after it are dated by the clock that is right again."""

    def test_later_events_have_their_own_time_ttl_and_age_also_after_a_restart(self, tmp_path: Path) -> None:
        bus = Bus(tmp_path)
        with freeze_time("2026-01-01", tick=True) as clock:
            bus.publish("done")
            clock.tick(timedelta(days=20))
            ahead = bus.publish("done")
            clock.move_to("2026-01-01 00:00:05")
            short = bus.publish("done", ttl_s=1)
            kept = bus.publish("done", ttl_s=600)
            assert (ahead.published_at.day, short.published_at.day) == (21, 1)
            for _ in range(2):
                clock.tick(timedelta(seconds=3))
                assert short.event_id not in listed(bus)
                assert kept.event_id in listed(bus)
                bus.reopen()
                assert bus.publish("other").published_at.day == 1
        bus.close()

    def test_retention_by_age_goes_on(self) -> None:
        log = EventLog(Retention(max_age_s=100))
        ahead = START + timedelta(days=20)
        for number, at in enumerate((START, ahead, ahead, START + timedelta(seconds=5)), 1):
            log.append(event(number, at=at))
        assert log.place_at(START + timedelta(seconds=3)) == 1
        log.expire(now=START + timedelta(seconds=104))
        assert [each.event_id for _, each in log.after(0)] == [event_id(2), event_id(3), event_id(4)]
        log.expire(now=START + timedelta(seconds=106))
        assert len(log) == 0

    def test_a_small_step_back_of_the_clock_keeps_times_in_order(self, tmp_path: Path) -> None:
        bus = Bus(tmp_path)
        with freeze_time("2026-01-01 00:00:10") as clock:
            first = bus.publish("done")
            clock.move_to("2026-01-01 00:00:09.500")
            second = bus.publish("done")
        assert second.published_at == first.published_at
        bus.close()


def listed(bus: Bus, since: str | None = None) -> list[str]:
    return [each.event_id for each in bus.ask(ListEvents(project_id="p", since=since)).events]
