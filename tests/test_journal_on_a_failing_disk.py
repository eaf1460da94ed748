"""A disk that is full, or does not sync: what was acknowledged stays, nothing else is kept, deletes free the disk."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.state.errors import StorageUnavailable
from sidecar.state.journal.journal import Durability, Journal
from tests.faulty_disk import FaultyFs

RECORD = b'"%b"' % (b"x" * 998)
RESERVE = 20_000


@pytest.fixture
def disk(tmp_path: Path) -> FaultyFs:
    (tmp_path / "j").mkdir(mode=0o700)
    return FaultyFs(tmp_path / "j")


@pytest.fixture
def journal(tmp_path: Path, disk: FaultyFs) -> Iterator[Journal]:
    journal = Journal.open(tmp_path / "j", fs=disk, reserve_bytes=RESERVE)
    yield journal
    journal.close()


def fill(journal: Journal) -> int:
    """Append until the disk is full; the number of the last record that it took."""

    def append_for_ever() -> None:
        while True:
            journal.append([RECORD])
            journal.commit()

    with pytest.raises(StorageUnavailable, match="No space left on device"):
        append_for_ever()
    return journal.last_seq


def test_a_full_disk_refuses_a_batch_as_a_whole_and_is_readable(journal: Journal, disk: FaultyFs) -> None:
    disk.capacity = disk.capacity - disk.room() + 10_500
    last = fill(journal)
    assert 5 < last < 12
    journal.append([b"1", RECORD])
    with pytest.raises(StorageUnavailable):
        journal.commit()
    journal.append([b"2"])
    journal.commit()
    assert [entry.record for entry in journal.entries()] == [RECORD] * last + [b"2"]
    assert journal.stats().failure is None


def test_a_full_disk_takes_deletes_from_the_reserve_and_then_only_them(journal: Journal, disk: FaultyFs) -> None:
    disk.capacity = disk.capacity - disk.room() + 10_500
    last = fill(journal)
    for _ in range(10):
        journal.append([RECORD], frees_space=True)
        journal.commit()
    assert journal.last_seq == last + 10
    journal.append([b"1"])
    with pytest.raises(StorageUnavailable, match="takes only deletes until its disk has room again"):
        journal.commit()
    journal.compact([b'"all that is alive"'])
    journal.append([b"1"])
    journal.commit()
    assert [entry.record for entry in journal.entries()] == [b'"all that is alive"', b"1"]


def test_a_compaction_that_does_not_fit_leaves_nothing_behind(journal: Journal, disk: FaultyFs, tmp_path: Path) -> None:
    disk.capacity = disk.capacity - disk.room() + 10_500
    last = fill(journal)
    before = sorted(path.name for path in (tmp_path / "j").iterdir() if path.suffix != ".jsonl")
    with pytest.raises(StorageUnavailable, match="cannot be compacted"):
        journal.compact([RECORD] * 200)
    assert [path.name for path in (tmp_path / "j").glob("snap*")] == []
    assert sorted({*before} - {"RESERVE"}) == ["LOCK", "NEWEST"]
    assert len(list(journal.entries())) == last


def test_records_survive_a_full_disk_and_a_restart(tmp_path: Path, disk: FaultyFs) -> None:
    journal = Journal.open(tmp_path / "j", fs=disk, reserve_bytes=RESERVE)
    disk.capacity = disk.capacity - disk.room() + 10_500
    last = fill(journal)
    journal.close()
    journal = Journal.open(tmp_path / "j", fs=disk, reserve_bytes=RESERVE)
    assert journal.recovered == ()
    assert journal.last_seq == last
    disk.capacity += 2_000
    journal.append([RECORD])
    journal.commit()
    journal.close()


def test_a_torn_tail_can_be_cut_on_a_full_disk(tmp_path: Path, disk: FaultyFs) -> None:
    journal = Journal.open(tmp_path / "j", fs=disk, reserve_bytes=RESERVE)
    journal.append([RECORD])
    journal.close()
    segment = tmp_path / "j" / "seg-0000000000000001.jsonl"
    segment.write_bytes(segment.read_bytes() + b"torn" * 100)
    disk.capacity = disk.capacity - disk.room() + 10
    journal = Journal.open(tmp_path / "j", fs=disk, reserve_bytes=RESERVE)
    assert journal.last_seq == 1
    assert [path.read_bytes() for path in journal.recovered] == [b"torn" * 100]
    journal.close()


def test_a_failed_sync_is_not_tried_again_and_costs_only_its_batch(tmp_path: Path, disk: FaultyFs) -> None:
    journal = Journal.open(tmp_path / "j", fs=disk)
    journal.append([b"1"])
    journal.commit()
    disk.sync_fails = True
    journal.append([b"2"])
    with pytest.raises(StorageUnavailable, match="Input/output error"):
        journal.commit()
    tried = disk.synced
    disk.sync_fails = False
    for _ in range(2):
        with pytest.raises(StorageUnavailable, match="fdatasync failed"):
            journal.append([b"3"])
    assert [entry.record for entry in journal.entries()] == [b"1"], "reads go on"
    assert "fdatasync failed" in (journal.stats().failure or "")
    journal.close()
    assert disk.synced == tried, "a second sync of the same file would prove nothing"

    journal = Journal.open(tmp_path / "j", fs=disk)
    assert [entry.record for entry in journal.entries()] == [b"1"]
    assert journal.append([b"2 again"]) == 2
    journal.close()


def test_at_level_os_a_commit_does_not_sync(tmp_path: Path, disk: FaultyFs) -> None:
    journal = Journal.open(tmp_path / "j", fs=disk, durability=Durability.OS)
    before = disk.synced
    for _ in range(10):
        journal.append([b"1"])
        journal.commit()
    assert disk.synced == before
    journal.close()
    assert disk.synced == before + 1


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnavailable, match=str(tmp_path / "file")):
        Journal.open(tmp_path / "file" / "j")


def test_errors_of_the_disk_keep_their_number(disk: FaultyFs, journal: Journal) -> None:
    disk.capacity = 0
    journal.append([b"1"])
    with pytest.raises(StorageUnavailable) as refused:
        journal.commit()
    assert isinstance(refused.value.__cause__, OSError)
    assert refused.value.__cause__.errno == errno.ENOSPC
