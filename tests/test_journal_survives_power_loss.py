"""Power fails at a random moment of a random life, thousands of times: nothing acknowledged may be missing.

kill -9 proves none of this, for the kernel's memory survives it.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from sidecar.state.errors import SidecarError
from sidecar.state.journal import journal as journal_module
from sidecar.state.journal.journal import Durability, Journal
from sidecar.state.journal.lines import encode
from sidecar.state.journal.reads import Take
from sidecar.state.journal.segment import SegmentSync
from sidecar.state.results.document_store import DocumentChange, DocumentStore
from tests.simulated_disk import HOME, Inode, PowerLoss, SimulatedFs

LIVES = 3
QUICK_TRIALS = 150
SOAK_TRIALS = 10_000


Tables = dict[str, dict[int, bytes]]


class Life:
    """One run of a process on the disk: random transactions until power fails, each state that was possible kept."""

    def __init__(
        self, rng: random.Random, fs: SimulatedFs, durability: Durability, *, is_certain_at_commit: bool
    ) -> None:
        self.is_certain_at_commit = is_certain_at_commit
        self.rng = rng
        self.fs = fs
        self.durability = durability
        self.states: list[Tables] = []
        self.acknowledged = 0  # index into states: of what must survive
        self.syncing: tuple[SegmentSync, int] | None = None  # at level `os`, with what it makes certain

    def run(self, allowed: list[Tables] | None) -> None:
        """Raises PowerLoss. allowed: what recovery may find."""
        while True:
            store = self.open()
            found = tables(store)
            if allowed is not None:
                assert found in allowed, "recovered neither what was acknowledged nor what was on its way"
                # What was on its way and came back has been read: from now on it counts.
                allowed = None
            if not self.states or self.states[-1] != found:
                self.states = [found]
            self.acknowledged, self.syncing = len(self.states) - 1, None
            for _ in range(self.rng.randrange(5, 60)):
                self.step(store)
            store.close()
            self.acknowledged = len(self.states) - 1

    def open(self) -> DocumentStore:
        def opened(take: Take) -> Journal:
            return Journal.open(HOME, durability=self.durability, fs=self.fs, segment_bytes=6_000, take=take)

        # Hardly any memory: nearly every document is read from the disk.
        return DocumentStore(opened, memory_bytes=10_000)

    def step(self, store: DocumentStore) -> None:
        what = self.rng.random()
        if what < 0.60:
            self.change(store)
        if what > 0.35:
            store.commit()
            if self.is_certain_at_commit:
                self.acknowledged = len(self.states) - 1
            if self.durability is Durability.OS:
                self.sync(store)
        if 0.90 < what < 0.97:
            store.settle()
        elif what >= 0.97 and store.stats().last_seq > 0:
            compaction, records = store.begin_compaction()
            self.acknowledged = len(self.states) - 1
            self.change(store)
            if self.rng.random() < 0.5:
                store.commit()
                if self.is_certain_at_commit:
                    self.acknowledged = len(self.states) - 1
            compaction.write(records, self.fs.tick)
            store.finish_compaction(compaction)

    def sync(self, store: DocumentStore) -> None:
        """As the thread does that syncs in the background: begun now and then, done some time after that."""
        chance = self.rng.random()
        if self.syncing is not None and chance < 0.4:
            syncing, index = self.syncing
            syncing.run()
            self.acknowledged, self.syncing = max(self.acknowledged, index), None
        elif chance > 0.6 and (begun := store._journal.begin_sync()) is not None:
            self.syncing = begun, len(self.states) - 1

    def change(self, store: DocumentStore) -> None:
        changes = []
        for _ in range(self.rng.choice((1, 1, 2, 5))):
            table, doc_id = self.rng.choice("ab"), self.rng.randrange(1, 12)
            if self.rng.random() < 0.7:
                document = b'"%b"' % (b"x" * int(self.rng.expovariate(1 / 300)))
                changes.append(DocumentChange("+", table, doc_id, document + b" " * self.rng.randrange(3)))
            else:
                changes.append(DocumentChange("-", table, doc_id))
        store.apply(changes)
        self.states.append(tables(store))


def tables(store: DocumentStore) -> Tables:
    """What is in the store; a table without documents counts as none, for a snapshot may or may not name it."""
    return {name: dict(data.read_each(data.ids())) for name, data in store.tables.items() if len(data)}


def trial(seed: int, durability: Durability = Durability.COMMIT, *, syncs: bool = True, is_kill: bool = False) -> int:
    """Several lives on one disk. Returns how often a torn tail was cut; raises AssertionError or a SidecarError.

    is_kill: the process is killed, and the machine runs on.
    """
    rng = random.Random(seed)
    files: dict[str, Inode] = {}
    allowed: list[Tables] | None = None
    torn = 0
    for number in range(LIVES):
        boot = "one-boot" if is_kill else f"boot-{number}"
        fs = SimulatedFs(rng, files, fails_at=int(rng.expovariate(1 / 60)) + 1, syncs=syncs, boot=boot)
        life = Life(rng, fs, durability, is_certain_at_commit=is_kill or durability is Durability.COMMIT)
        with pytest.raises(PowerLoss):
            life.run(allowed)
        files = fs.after_kill() if is_kill else fs.after_power_loss()
        torn += any(name.endswith(".bad") for name in files)
        if life.states:
            allowed = life.states[life.acknowledged :]
    return torn


@pytest.mark.parametrize("durability", Durability)
def test_a_kill_at_any_call_leaves_a_journal_that_opens_with_all_that_was_acknowledged(durability: Durability) -> None:
    for seed in range(QUICK_TRIALS):
        trial(seed, durability, is_kill=True)


def test_power_loss_takes_nothing_that_was_acknowledged() -> None:
    assert sum(trial(seed) for seed in range(QUICK_TRIALS)) > QUICK_TRIALS // 4, "the trials hardly tore anything"


@pytest.mark.soak
def test_power_loss_takes_nothing_that_was_acknowledged_in_many_trials() -> None:
    torn = sum(trial(seed) for seed in range(SOAK_TRIALS))
    print(f"{SOAK_TRIALS} trials of {LIVES} lives, torn tails left by {torn}")


def failures(count: int, **options: Any) -> int:
    bad = 0
    for seed in range(count):
        try:
            trial(seed, **options)
        except (AssertionError, SidecarError):
            bad += 1
    return bad


def test_the_trials_notice_a_disk_that_does_not_sync() -> None:
    assert failures(40, syncs=False) > 30


def test_the_trials_notice_lines_that_claim_too_much_to_be_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line may vouch only for what was synced before it was written, not for all that was written before it."""

    def claims_too_much(seq: int, synced: int, left: int, record: bytes) -> bytes:
        return encode(seq, max(synced, seq - 1), left, record)

    monkeypatch.setattr(journal_module, "encode", claims_too_much)
    assert failures(100) > 0


def windows(seed: int) -> None:
    """Lives of a log that forgets its oldest records: what is left is whole, and nothing young is missing."""
    rng = random.Random(seed)
    files: dict[str, Inode] = {}
    acknowledged = appended = dropped = 0

    def live(fs: SimulatedFs) -> None:
        nonlocal acknowledged, appended, dropped
        while True:
            journal = Journal.open(HOME, fs=fs, segment_bytes=1_500)
            seqs = [entry.seq for entry in journal.entries()]
            first = seqs[0] if seqs else journal.last_seq + 1
            assert seqs == list(range(first, journal.last_seq + 1))
            assert first <= max(dropped, 1)
            assert acknowledged <= journal.last_seq <= appended
            acknowledged = appended = journal.last_seq
            for _ in range(rng.randrange(5, 50)):
                appended = max(appended, journal.last_seq + 1)
                journal.append([b'"%b"' % (b"x" * rng.randrange(200))])
                if rng.random() < 0.1:
                    dropped = max(dropped, rng.randrange(journal.last_seq + 1))
                    journal.drop_before(dropped)
                journal.commit()
                acknowledged = journal.last_seq
            journal.close()

    for _ in range(LIVES):
        fs = SimulatedFs(rng, files, fails_at=int(rng.expovariate(1 / 60)) + 1)
        with pytest.raises(PowerLoss):
            live(fs)
        files = fs.after_power_loss()


def test_power_loss_takes_no_record_that_was_not_to_be_dropped() -> None:
    for seed in range(QUICK_TRIALS):
        windows(seed)


@pytest.mark.soak
def test_power_loss_takes_no_record_that_was_not_to_be_dropped_in_many_trials() -> None:
    for seed in range(SOAK_TRIALS):
        windows(seed)


def test_power_loss_takes_nothing_at_level_os_that_was_synced_in_the_background() -> None:
    for seed in range(QUICK_TRIALS):
        trial(seed, Durability.OS)


@pytest.mark.soak
def test_power_loss_takes_nothing_at_level_os_that_was_synced_in_many_trials() -> None:
    for seed in range(SOAK_TRIALS):
        trial(seed, Durability.OS)


def test_the_trials_notice_a_background_sync_that_does_not_sync() -> None:
    assert failures(40, durability=Durability.OS, syncs=False) > 20
