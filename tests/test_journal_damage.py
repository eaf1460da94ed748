"""Bytes of the disk go wrong: cut at every offset, one bit flipped at every offset. Nothing is lost in silence.

Every outcome is one of three: the journal refuses to open and says where; it cuts the last batch, which cannot be
told from a torn tail, and keeps it in a file; or nothing was lost. It never shows a wrong record.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sidecar.state.errors import StorageDamaged, StorageTooNew
from sidecar.state.journal import Journal
from tests.simulated_disk import HOME, SimulatedFs, disk_with

TAIL = 4096
SEGMENT = "seg-0000000000000001.jsonl"


def filled(batch: int, *, marked: bool, records: int = 60) -> tuple[dict[str, bytes], list[bytes]]:
    """Files of a journal of about 9 KB, committed in batches of `batch` one-record transactions, and its records."""
    rng = random.Random(batch)
    fs = SimulatedFs(rng)
    journal = Journal.open(HOME, fs=fs)
    written = [b'{"n":%d,"text":"%b"}' % (n, b"y" * rng.randrange(150)) for n in range(records)]
    for n, record in enumerate(written, 1):
        journal.append([record])
        if n % batch == 0 or n == records:
            journal.commit()
    if marked:
        journal.settle()
    return fs.contents(), written


def outcome(contents: dict[str, bytes], written: list[bytes], batch: int) -> str:
    """What opening the damaged journal comes to; fails the test where that is not allowed."""
    fs = disk_with(contents)
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
