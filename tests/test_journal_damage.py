"""Bytes of the disk go wrong: cut at every offset, one bit flipped at every offset. Nothing is lost in silence.

Every outcome is one of three: the journal refuses to open and says where; it cuts the last batch, which cannot be
told from a torn tail, and keeps it in a file; or nothing was lost. It never shows a wrong record.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sidecar.state.errors import StorageDamaged, StorageTooNew
from sidecar.state.journal.journal import Durability, Journal
from tests.simulated_disk import HOME, SimulatedFs, disk_with

TAIL = 4096
SEGMENT = "seg-0000000000000001.jsonl"


def filled(
    batch: int,
    *,
    marked: bool,
    records: int = 60,
    durability: Durability = Durability.COMMIT,
    boot: str = "",
) -> tuple[dict[str, bytes], list[bytes]]:
    """Files of a journal of about 9 KB, committed in batches of `batch` one-record transactions, and its records.

    marked: and synced, as when nothing has gone on for a moment.
    """
    rng = random.Random(batch)
    fs = SimulatedFs(rng, boot=boot)
    journal = Journal.open(HOME, fs=fs, durability=durability)
    written = [b'{"n":%d,"text":"%b"}' % (n, b"y" * rng.randrange(150)) for n in range(records)]
    for n, record in enumerate(written, 1):
        journal.append([record])
        if n % batch == 0 or n == records:
            journal.commit()
    if marked:
        if (syncing := journal.begin_sync()) is not None:
            syncing.run()
        assert journal.settle()
    return fs.contents(), written


def outcome(contents: dict[str, bytes], written: list[bytes], batch: int, boot: str = "") -> str:
    """What opening the damaged journal comes to; fails the test where that is not allowed."""
    fs = disk_with(contents, boot=boot)
    try:
        journal = Journal.open(HOME, fs=fs)
    except (StorageDamaged, StorageTooNew) as error:
        return "refused" if str(HOME / SEGMENT) in error.message else "refused without saying where"
    found = [entry.record for entry in journal.entries()]
    assert found == written[: len(found)], "a wrong record"
    bad = [data for name, data in fs.contents().items() if name.endswith(".bad")]
    if len(found) == len(written):
        assert sum(map(len, bad)) < 80, "only a mark may have been cut"
        return "nothing lost"
    assert len(written) - len(found) <= batch, "more than the last batch was cut"
    assert len(bad) == 1, "cut without a copy"
    return "last batch cut"


def flipped(data: bytes, offset: int, bit: int) -> bytes:
    return data[:offset] + bytes((data[offset] ^ (1 << bit),)) + data[offset + 1 :]


def flips(batch: int, *, marked: bool, bits: range | tuple[int, ...], step: int) -> Counter[str]:
    contents, written = filled(batch, marked=marked)
    segment = contents[SEGMENT]
    outcomes: Counter[str] = Counter()
    for offset in range(len(segment) - TAIL, len(segment), step):
        for bit in bits:
            damaged = {**contents, SEGMENT: flipped(segment, offset, bit)}
            outcomes[outcome(damaged, written, batch)] += 1
    return outcomes


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("batch", [1, 8])
def test_one_flipped_bit_is_refused_or_costs_the_last_batch_and_is_told(batch: int, marked: bool) -> None:
    outcomes = flips(batch, marked=marked, bits=(3,), step=7)
    assert outcomes["refused"] > 50
    assert outcomes["refused without saying where"] == 0
    if marked:
        assert outcomes["last batch cut"] == 0, "a mark vouches for the last batch"


@pytest.mark.soak
@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("batch", [1, 8])
def test_any_flipped_bit_is_refused_or_costs_the_last_batch_and_is_told(batch: int, marked: bool) -> None:
    outcomes = flips(batch, marked=marked, bits=range(8), step=1)
    print(f"batches of {batch}, {'marked' if marked else 'not marked'}: {dict(outcomes)}")
    assert outcomes["refused without saying where"] == 0
    if marked:
        assert outcomes["last batch cut"] == 0


BOOT, NEXT_BOOT = "0a1b2c3d-1", "0a1b2c3d-2"


@pytest.mark.parametrize("durability", Durability)
@pytest.mark.parametrize("marked", [False, True])
def test_after_a_kill_every_flipped_bit_is_refused(durability: Durability, marked: bool) -> None:
    """The machine still runs: what was written is there, synced or not, and only the last write may be incomplete."""
    contents, written = filled(1, marked=marked, durability=durability, boot=BOOT)
    segment = contents[SEGMENT]
    outcomes = Counter(
        outcome({**contents, SEGMENT: flipped(segment, offset, bit)}, written, 0, BOOT)
        for offset in (*range(0, len(segment) - 200, 13), *range(len(segment) - 200, len(segment)))
        for bit in (0, 3, 6)
    )
    assert outcomes.keys() == {"refused"}


def test_after_a_kill_a_write_that_is_incomplete_is_cut_wherever_it_ends() -> None:
    contents, written = filled(8, marked=False, durability=Durability.OS, boot=BOOT)
    segment = contents[SEGMENT]
    for size in range(segment.index(b"\n") + 1, len(segment), 3):
        journal = Journal.open(HOME, fs=disk_with({**contents, SEGMENT: segment[:size]}, boot=BOOT))
        found = [entry.record for entry in journal.entries()]
        assert found == written[: len(found)]


def test_after_a_power_loss_a_flipped_bit_in_what_was_synced_in_the_background_is_refused() -> None:
    contents, written = filled(8, marked=True, durability=Durability.OS, boot=BOOT)
    segment = contents[SEGMENT]
    outcomes: Counter[str] = Counter()
    for offset in range(0, len(segment), 7):
        damaged = {**contents, SEGMENT: flipped(segment, offset, offset % 8)}
        outcomes[outcome(damaged, written, 0, NEXT_BOOT)] += 1
    assert outcomes["refused"] > 100
    assert outcomes.keys() <= {"refused", "nothing lost"}, "only the mark itself may be cut"


def test_what_a_torn_tail_held_is_told_with_counts(caplog: pytest.LogCaptureFixture) -> None:
    contents, written = filled(8, marked=False, durability=Durability.OS, boot=BOOT)
    damaged = contents[SEGMENT].replace(written[-10], b"x" * len(written[-10]))
    fs = disk_with({**contents, SEGMENT: damaged}, boot=NEXT_BOOT)
    journal = Journal.open(HOME, fs=fs)
    assert len(list(journal.entries())) == len(written) - 10
    cut = len(damaged) - damaged.index(b'["', damaged.rindex(b"\n", 0, damaged.index(b"xxxx")))
    assert f"bytes={cut} records=10 kept_in=" in caplog.text


def cuts(batch: int, step: int) -> Counter[str]:
    contents, written = filled(batch, marked=False)
    segment = contents[SEGMENT]
    outcomes: Counter[str] = Counter()
    for size in range(len(segment) - TAIL, len(segment), step):
        fs = disk_with({**contents, SEGMENT: segment[:size]})
        journal = Journal.open(HOME, fs=fs)
        found = [entry.record for entry in journal.entries()]
        assert found == written[: len(found)]
        kept = fs.contents()[SEGMENT]
        tail = b"".join(data for name, data in fs.contents().items() if name.endswith(".bad"))
        assert (kept + tail) == segment[:size], "every byte is in the journal or in the copy"
        outcomes["records lost with the bytes" if len(found) < len(written) else "nothing lost"] += 1
    return outcomes


@pytest.mark.parametrize("batch", [1, 8])
def test_a_file_cut_short_opens_with_what_is_whole(batch: int) -> None:
    cuts(batch, 5)


@pytest.mark.soak
@pytest.mark.parametrize("batch", [1, 8])
def test_a_file_cut_short_anywhere_opens_with_what_is_whole(batch: int) -> None:
    cuts(batch, 1)


def test_a_flipped_bit_anywhere_in_a_snapshot_is_refused() -> None:
    fs = SimulatedFs(random.Random(1))
    journal = Journal.open(HOME, fs=fs)
    journal.append([b"1"])
    journal.compact([b'{"n":%d}' % n for n in range(20)])
    journal.append([b'"after"'])
    journal.commit()
    contents = fs.contents()
    snapshot = next(name for name in contents if name.startswith("snap-"))
    for offset in range(len(contents[snapshot])):
        damaged = flipped(contents[snapshot], offset, offset % 8)
        with pytest.raises((StorageDamaged, StorageTooNew)):
            Journal.open(HOME, fs=disk_with({**contents, snapshot: damaged}))
    for size in range(0, len(contents[snapshot]), 7):
        with pytest.raises(StorageDamaged):
            Journal.open(HOME, fs=disk_with({**contents, snapshot: contents[snapshot][:size]}))


def test_a_flipped_bit_anywhere_in_the_header_of_a_segment_with_records_is_refused() -> None:
    contents, _ = filled(1, marked=False, records=1)
    header = contents[SEGMENT].index(b"\n") + 1
    for offset in range(header):
        with pytest.raises(StorageDamaged):
            Journal.open(HOME, fs=disk_with({SEGMENT: flipped(contents[SEGMENT], offset, offset % 8)}))


def test_zeros_in_the_middle_of_acknowledged_records_are_refused() -> None:
    contents, _ = filled(1, marked=False)
    segment = contents[SEGMENT]
    holed = segment[:2048] + bytes(512) + segment[2560:]
    with pytest.raises(StorageDamaged, match="damaged record at byte"):
        Journal.open(HOME, fs=disk_with({SEGMENT: holed}))
