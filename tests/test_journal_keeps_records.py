"""What a journal promises its owners: records come back in order, whole transactions, one owner at a time."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.state.errors import StorageDamaged, StorageInUse, StorageTooNew, StorageUnavailable
from sidecar.state.journal.fs import PidLock
from sidecar.state.journal.journal import Durability, Journal
from sidecar.state.journal.lines import encode


def records(journal: Journal) -> list[bytes]:
    return [entry.record for entry in journal.entries()]


def filled(directory: Path, *batches: list[bytes], segment_bytes: int = 1 << 20) -> None:
    journal = Journal.open(directory, segment_bytes=segment_bytes)
    for batch in batches:
        journal.append(batch)
        journal.commit()
    journal.close()


@pytest.mark.parametrize("durability", Durability)
def test_committed_records_come_back_in_order(tmp_path: Path, durability: Durability) -> None:
    journal = Journal.open(tmp_path / "j", durability=durability)
    assert journal.append([b'{"a":1}', b"2"]) == 2
    assert journal.append([b'"three"']) == 3
    journal.commit()
    assert [(e.seq, e.record) for e in journal.entries()] == [(1, b'{"a":1}'), (2, b"2"), (3, b'"three"')]
    journal.close()

    journal = Journal.open(tmp_path / "j", durability=durability)
    assert journal.last_seq == 3
    for _ in range(2):  # once from what open has read, once from the disk
        assert [(e.seq, e.record) for e in journal.entries()] == [(1, b'{"a":1}'), (2, b"2"), (3, b'"three"')]
    assert journal.append([b"4"]) == 4
    journal.close()


def test_appended_records_are_not_there_before_the_commit(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j")
    journal.append([b"1"])
    assert records(journal) == []
    assert journal.last_seq == 0
    journal.commit()
    assert records(journal) == [b"1"]
    journal.close()


def test_newlines_between_tokens_do_not_break_a_record(tmp_path: Path) -> None:
    filled(tmp_path / "j", [b'{"a":\n  1\n}'])
    journal = Journal.open(tmp_path / "j")
    assert records(journal) == [b'{"a":   1 }']
    journal.close()


def test_segments_are_rotated_and_read_as_one(tmp_path: Path) -> None:
    filled(tmp_path / "j", *[[b"%d" % n] for n in range(200)], segment_bytes=500)
    assert len(list((tmp_path / "j").glob("seg-*"))) > 10
    journal = Journal.open(tmp_path / "j", segment_bytes=500)
    assert records(journal) == [b"%d" % n for n in range(200)]
    journal.close()


def test_old_segments_are_dropped_and_the_numbers_go_on(tmp_path: Path) -> None:
    filled(tmp_path / "j", *[[b"%d" % n] for n in range(1, 201)], segment_bytes=500)
    journal = Journal.open(tmp_path / "j", segment_bytes=500)
    journal.drop_before(150)
    first = journal.stats().first_seq
    assert 100 < first <= 150
    assert [e.seq for e in journal.entries()] == list(range(first, 201))
    assert journal.append([b"x"]) == 201
    journal.close()
    journal = Journal.open(tmp_path / "j", segment_bytes=500)
    assert [e.seq for e in journal.entries()] == list(range(first, 202))
    journal.close()


def test_a_compacted_journal_holds_the_snapshot_and_what_came_after(tmp_path: Path) -> None:
    filled(tmp_path / "j", *[[b"%d" % n] for n in range(50)], segment_bytes=300)
    journal = Journal.open(tmp_path / "j", segment_bytes=300)
    journal.compact([b'"a"', b'"b"'])
    assert journal.append([b'"c"']) == 51
    journal.commit()
    for _ in range(2):
        assert records(journal) == [b'"a"', b'"b"', b'"c"']
        assert [path.name[:5] for path in sorted((tmp_path / "j").glob("s*"))] == ["seg-0", "snap-"]
        journal.close()
        journal = Journal.open(tmp_path / "j")
    journal.close()


def test_what_is_appended_while_a_snapshot_is_written_comes_after_it(tmp_path: Path) -> None:
    filled(tmp_path / "j", [b"1"], [b"2"])
    journal = Journal.open(tmp_path / "j")
    compaction = journal.begin_compaction()
    journal.append([b"3"])
    journal.commit()
    compaction.write(lambda: [b'"1 and 2"'])
    journal.append([b"4"])
    journal.commit()
    compaction.finish()
    assert records(journal) == [b'"1 and 2"', b"3", b"4"]
    journal.close()
    journal = Journal.open(tmp_path / "j")
    assert records(journal) == [b'"1 and 2"', b"3", b"4"]
    journal.close()


def test_a_torn_tail_is_cut_and_kept_and_costs_only_itself(tmp_path: Path) -> None:
    filled(tmp_path / "j", [b"1"], [b"2"])
    segment = tmp_path / "j" / "seg-0000000000000001.jsonl"
    whole = segment.read_bytes()
    torn = encode(3, 2, 1, b"3") + encode(4, 2, 0, b"4")[:-9]
    segment.write_bytes(whole + torn)

    journal = Journal.open(tmp_path / "j")
    assert records(journal) == [b"1", b"2"], "half a transaction is none"
    (bad,) = journal.recovered
    assert bad.read_bytes() == torn
    assert journal.stats().quarantined == (bad.name,)
    assert journal.append([b"three"]) == 3
    journal.close()
    journal = Journal.open(tmp_path / "j")
    assert records(journal) == [b"1", b"2", b"three"]
    assert journal.recovered == ()
    journal.close()


def test_damage_to_acknowledged_records_is_refused_by_file_byte_and_record(tmp_path: Path) -> None:
    filled(tmp_path / "j", [b'"one"'], [b'"two"'], [b'"three"'])
    segment = tmp_path / "j" / "seg-0000000000000001.jsonl"
    before = segment.read_bytes()
    offset = before.index(b"two")
    segment.write_bytes(before.replace(b"two", b"twa"))
    with pytest.raises(
        StorageDamaged, match=r"seg-0+1.jsonl: damaged record at byte \d+ \(line 5\), expected record 2"
    ):
        Journal.open(tmp_path / "j")
    assert segment.read_bytes()[:offset] == before[:offset], "nothing was cut"


def test_a_missing_segment_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "j", *[[b"%d" % n] for n in range(200)], segment_bytes=500)
    sorted((tmp_path / "j").glob("seg-*"))[3].unlink()
    with pytest.raises(StorageDamaged, match="a file is missing"):
        Journal.open(tmp_path / "j")


def test_a_missing_first_segment_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "j", *[[b"%d" % n] for n in range(200)], segment_bytes=500)
    sorted((tmp_path / "j").glob("seg-*"))[0].unlink()
    with pytest.raises(StorageDamaged, match="expected record 1: a file is missing"):
        Journal.open(tmp_path / "j")


def test_storage_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "j").mkdir()
    header = encode(0, 0, 0, b'{"format":"sidecar-journal","version":2,"kind":"heap"}')
    (tmp_path / "j" / "seg-0000000000000001.jsonl").write_bytes(header)
    with pytest.raises(StorageTooNew, match="format version 2, this sidecar reads 1"):
        Journal.open(tmp_path / "j")


def test_a_second_owner_is_refused_and_told_the_pid(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j")
    with pytest.raises(StorageInUse, match=f"in use by process {os.getpid()}"):
        Journal.open(tmp_path / "j")
    journal.close()
    Journal.open(tmp_path / "j").close()


OWNER_WITH_A_CHILD = """
import subprocess, sys
from pathlib import Path
from sidecar.state.journal.journal import Journal
journal = Journal.open(Path(sys.argv[1]))
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=sys.stdin)
print("open", flush=True)
child.wait()
"""


def test_another_process_is_refused_and_killing_the_owner_frees_the_lock(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", OWNER_WITH_A_CHILD, str(tmp_path / "j")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(StorageInUse, match=f"in use by process {holder.pid}"):
            Journal.open(tmp_path / "j")
        holder.kill()
        holder.wait(timeout=10)
        Journal.open(tmp_path / "j").close()  # although the owner's child still runs
    finally:
        holder.kill()
        holder.stdin.close()
        holder.stdout.close()
        holder.wait(timeout=10)


def test_what_is_released_is_free_although_a_child_still_holds_the_descriptor(tmp_path: Path) -> None:
    """As one does for a moment that is just being started."""
    lock = PidLock(tmp_path / "LOCK")
    with subprocess.Popen(["sleep", "1000"], pass_fds=lock._descriptors) as child:
        try:
            lock.release()
            PidLock(tmp_path / "LOCK").release()
        finally:
            child.kill()


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "j").mkdir(mode=0o755)
    journal = Journal.open(tmp_path / "j")
    journal.append([b"1"])
    journal.commit()
    journal.compact([b"1"])
    journal.close()
    assert stat.S_IMODE((tmp_path / "j").stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "j").iterdir()}
    assert set(modes.values()) == {0o600}, modes


def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j")
    journal.close()
    with pytest.raises(StorageUnavailable, match="it is closed"):
        journal.append([b"1"])


def test_opening_and_closing_does_not_let_it_grow(tmp_path: Path) -> None:
    filled(tmp_path / "j", [b"1"])
    size = sum(path.stat().st_size for path in (tmp_path / "j").glob("seg-*"))
    for _ in range(3):
        Journal.open(tmp_path / "j").close()
    assert sum(path.stat().st_size for path in (tmp_path / "j").glob("seg-*")) == size
