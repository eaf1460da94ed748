"""A log that lost its newest events: every reader is given, or told of, everything that was ever published.

A copy of a storage that is open is what kill -9 leaves. Its log is then cut, as a power loss may leave it; what else
the storage knows (its mailboxes, how far the log had come, in which run of the machine) survives or does not.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from freezegun import freeze_time
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from sidecar.actors.messages import AnswerSettled, ListEvents, ListMailboxes
from sidecar.actors.replies import EventBatch
from sidecar.state.errors import EventsGone
from sidecar.state.events.gap import EventGap
from sidecar.state.events.log_end import KnownEnd, LogEnd
from sidecar.state.journal.journal import Journal
from sidecar.state.journal.lines import OWN, parse
from tests.buses import Bus, ids

# kill: the file that says how far the log had come is exact. power: it is from another run of the machine. backup: it
# is not there. stale: it is from that run and old itself.
Evidence = Literal["kill", "power", "backup", "stale"]
EVIDENCE: tuple[Evidence, ...] = ("kill", "power", "backup", "stale")


class Reader:
    """One reader: what it was given, and which gaps it was told of. agent None: it keeps its own place."""

    def __init__(self, name: str, *, by_cursor: bool = False) -> None:
        self.name = name
        self.cursor = "earliest" if by_cursor else None
        self.given: list[str] = []
        self.told: list[EventGap] = []

    def take(self, bus: Bus, limit: int = 100) -> bool:
        """One wait; whether there may be more."""
        batch = bus.take("done", agent=self.name, limit=limit, since=self.cursor)
        self._keep(bus, batch)
        return bool(batch.deliveries)

    def _keep(self, bus: Bus, batch: EventBatch) -> None:
        self.given += ids(batch)
        if batch.gap is not None:
            self.told.append(batch.gap)
        if self.cursor is not None:
            self.cursor = batch.next_cursor
        elif batch.answer is not None:
            bus.handle.tell(AnswerSettled(answer=batch.answer, taken=True))

    def knows_of(self, event_id: str) -> bool:
        return event_id in self.given or any(gap.from_ < event_id <= gap.to for gap in self.told)


class Storage:
    """The folder of an event bus that is killed, and of which a part is lost, again and again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lives = 0
        self.bus = Bus(folder / "0")
        self.published: list[str] = []
        self.readers = [Reader("all"), Reader("some"), Reader("cursor", by_cursor=True)]

    def publish(self, count: int) -> None:
        self.published += [self.bus.publish("done", data={"n": n}).event_id for n in range(count)]

    def lose(self, kept: float, evidence: Evidence, *, by: Literal["record", "byte"] = "record") -> None:
        """Kill the bus, keep that part of its log, and start it again."""
        self._lives += 1
        self.bus.ask(ListMailboxes(project_id=None))  # answered once it is known what readers have taken
        left = self._folder / str(self._lives)
        shutil.copytree(self.bus.directory, left)
        self.bus.close()
        shutil.rmtree(self.bus.directory)
        segment = max(left.glob("log/seg-*"))
        lines = segment.read_bytes().splitlines(True)
        begin = next((number for number, line in enumerate(lines) if _is_record(line)), len(lines))
        data = b"".join(lines[: begin + round(kept * (len(lines) - begin))])
        if by == "byte":
            whole, head = b"".join(lines), len(b"".join(lines[:begin]))
            data = whole[: head + round(kept * (len(whole) - head))]
        segment.write_bytes(data)
        _leave(left / "log-end", evidence, records=sum(map(_is_record, data.splitlines(True))))
        self.bus = Bus(left)

    def everybody_reads_to_the_end(self) -> None:
        self.readers.append(Reader("new"))
        for reader in self.readers:
            while reader.take(self.bus):
                pass

    def check(self) -> None:
        """Everything that was published was given or told of, to everybody; no id was used twice."""
        assert len(set(self.published)) == len(self.published)
        assert self.published == sorted(self.published)
        self.everybody_reads_to_the_end()
        for reader in self.readers:
            unknown = [event_id for event_id in self.published if not reader.knows_of(event_id)]
            assert not unknown, (reader.name, unknown, reader.told)
            missing = set(self.published) - set(reader.given)
            if missing:
                assert sum(gap.dropped_at_most for gap in reader.told) >= len(missing)
                assert all(gap.reason == "restart" for gap in reader.told)
        self.bus.ask(ListMailboxes(project_id=None))

    def close(self) -> None:
        self.bus.close()


def _is_record(raw: bytes) -> bool:
    line = parse(raw)
    return line is not None and line.seq != OWN


def _leave(path: Path, evidence: Evidence, *, records: int) -> None:
    end = LogEnd(path)
    known = end.known
    end.close()
    assert known is not None
    if evidence == "backup":
        path.unlink()
    elif evidence in ("power", "stale"):
        seq = known.seq if evidence == "power" else min(known.seq, records)
        number = known.number - (known.seq - seq)
        _write(path, KnownEnd(number=number, seq=seq, is_closed=False, boot_id="an-earlier-run"))


def _write(path: Path, known: KnownEnd) -> None:
    end = LogEnd(path)
    end._boot_id = known.boot_id
    end.note(known.number, known.seq, is_closed=known.is_closed)
    end.close()


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    storage = Storage(tmp_path)
    yield storage
    storage.close()


EVENTS = 7


@pytest.mark.parametrize("evidence", EVIDENCE)
def test_a_log_cut_at_any_record_loses_nothing_in_silence(tmp_path: Path, evidence: Evidence) -> None:
    for kept in range(EVENTS + 1):
        storage = Storage(tmp_path / str(kept))
        storage.publish(EVENTS)
        storage.readers[0].take(storage.bus)
        storage.readers[1].take(storage.bus, limit=3)
        storage.readers[2].take(storage.bus, limit=7)
        storage.lose(kept / EVENTS, evidence)
        storage.publish(EVENTS + 5)
        storage.check()
        storage.close()


def test_a_log_cut_at_any_byte_loses_nothing_in_silence(tmp_path: Path) -> None:
    for step in range(10):
        storage = Storage(tmp_path / str(step))
        storage.publish(4)
        storage.readers[0].take(storage.bus)
        storage.lose(step / 9, "kill", by="byte")
        storage.publish(6)
        storage.check()
        storage.close()


class EveryReaderIsGivenOrTold(RuleBasedStateMachine):
    """Publishing, reading, and losing any part of the log, in any order. The model is the list of all events."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.storage = Storage(self.folder)

    @rule(count=st.integers(1, 4))
    def publish(self, count: int) -> None:
        self.storage.publish(count)

    @rule(who=st.integers(0, 2), limit=st.integers(1, 4))
    def take(self, who: int, limit: int) -> None:
        self.storage.readers[who].take(self.storage.bus, limit)

    @rule(kept=st.sampled_from([0.0, 0.3, 0.7, 1.0]), evidence=st.sampled_from(EVIDENCE))
    def lose(self, kept: float, evidence: Evidence) -> None:
        self.storage.lose(kept, evidence)

    def teardown(self) -> None:
        if hasattr(self, "storage"):
            try:
                self.storage.check()
            finally:
                self.storage.close()
                shutil.rmtree(self.folder)


TestEveryReaderIsGivenOrTold = EveryReaderIsGivenOrTold.TestCase
TestEveryReaderIsGivenOrTold.settings = settings(max_examples=8, stateful_step_count=12, deadline=None)


def test_an_empty_log_from_a_backup_may_have_lost_what_nobody_has_read(storage: Storage) -> None:
    storage.publish(1)
    storage.lose(0.0, "backup")
    storage.check()


def test_after_kill_alone_nobody_is_told_of_a_loss(storage: Storage) -> None:
    storage.publish(5)
    storage.readers[1].take(storage.bus, limit=2)
    storage.lose(1.0, "kill")
    storage.publish(5)
    storage.check()
    assert all(reader.told == [] for reader in storage.readers)
    assert all(reader.given == storage.published for reader in storage.readers)


def test_ids_go_on_above_all_known_ones_though_the_clock_was_set_back(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.publish(10)
    storage.readers[0].take(storage.bus)
    with freeze_time("1990-01-01", tick=True):
        storage.lose(0.3, "kill")
        storage.publish(20)
        storage.check()
    storage.close()


class TestACursorThatTheLogHasNeverReached:
    AHEAD = "evt-9999999999999999"

    def test_a_wait_is_told_and_given_what_it_cannot_have_seen(self, storage: Storage) -> None:
        storage.publish(3)
        batch = storage.bus.take("done", since=self.AHEAD)
        assert ids(batch) == storage.published
        assert batch.gap is not None
        assert (batch.gap.reason, batch.gap.to) == ("restart", self.AHEAD)
        after = storage.bus.take("done", since=batch.next_cursor)
        assert (ids(after), after.gap) == ([], None)

    def test_a_strict_wait_is_refused(self, storage: Storage) -> None:
        with pytest.raises(EventsGone) as gone:
            storage.bus.take("done", since=self.AHEAD, strict=True)
        assert gone.value.details["reason"] == "restart"

    def test_a_wait_that_nothing_ends_is_told_at_its_time_out_and_no_second_time(self, storage: Storage) -> None:
        batch = storage.bus.take("never", since=self.AHEAD, timeout_s=0.05)
        assert batch.timed_out
        assert batch.gap is not None
        assert storage.bus.take("never", since=batch.next_cursor).gap is None

    def test_a_wait_that_an_event_ends_is_told_with_it(self, storage: Storage) -> None:
        waiting = storage.bus.wait("done", since=self.AHEAD)
        storage.publish(1)
        batch = waiting.result(timeout=10)
        assert ids(batch) == storage.published
        assert batch.gap is not None

    def test_a_list_is_told_and_refused_where_it_is_strict(self, storage: Storage) -> None:
        storage.publish(2)
        for project in ("p", None):
            page = storage.bus.ask(ListEvents(project_id=project, since=self.AHEAD))
            assert [event.event_id for event in page.events] == storage.published[::-1]
            assert page.gap is not None
        with pytest.raises(EventsGone):
            storage.bus.ask(ListEvents(project_id="p", since=self.AHEAD, strict=True))

    def test_the_newest_event_of_another_project_is_no_such_place(self, storage: Storage) -> None:
        storage.publish(1)
        elsewhere = storage.bus.publish("done", project="q").event_id
        batch = storage.bus.take("done", since=elsewhere)
        assert (ids(batch), batch.gap) == ([], None)


def test_a_mailbox_of_a_project_whose_log_retention_has_emptied_goes_on(tmp_path: Path) -> None:
    """Its events left the disk with whole segments, so its log begins again at the first place."""
    bus = Bus(tmp_path / "events")
    for _ in range(3):
        bus.publish("done")
    bus.take("done")
    bus.take("done")
    bus.close()
    for segment in (tmp_path / "events" / "log").glob("seg-*"):
        _drop_records(segment, before=4)
    bus.open()
    bus.publish("done", project="q")
    bus.reopen()
    news = bus.publish("done").event_id
    batch = bus.take("done")
    assert (ids(batch), batch.gap) == ([news], None)
    bus.close()


def _drop_records(segment: Path, *, before: int) -> None:
    """As `Journal.drop_before` does once the segment is full."""
    journal = Journal.open(segment.parent)
    compaction = journal.begin_compaction()
    compaction.write(lambda: ())
    compaction.finish()
    journal.close()
    assert journal.last_seq == before - 1
