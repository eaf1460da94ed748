"""Single records are read again from where they lie, and damage to one is named, never returned."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.state.errors import StorageUnreadable
from sidecar.state.journal.journal import Journal

Found = list[tuple[str, int, int, bytes]]


def placed(directory: Path, *, segment_bytes: int = 64 << 20) -> tuple[Journal, Found]:
    """The journal, opened so that each record's place is known."""
    found: Found = []
    journal = Journal.open(directory, segment_bytes=segment_bytes, take=lambda *place: found.append(place))
    return journal, found


def fill(directory: Path, count: int) -> Found:
    """What each commit said of where its records lie."""
    journal = Journal.open(directory, segment_bytes=600)
    said: Found = []
    for n in range(count):
        records = [b'{"n":%d,"part":%d}' % (n, part) for part in range(n % 3 + 1)]
        journal.append(records)
        written = journal.commit()
        assert written is not None
        offset = written.offset
        for size, record in zip(written.sizes, records, strict=True):
            said.append((written.file, offset, size, record))
            offset += size
    assert journal.commit() is None
    journal.close()
    return said


def test_a_record_is_read_from_where_the_commit_said_and_where_a_start_found_it(tmp_path: Path) -> None:
    said = fill(tmp_path / "j", 40)
    journal, found = placed(tmp_path / "j", segment_bytes=600)
    assert found == said
    assert len({file for file, *_ in found}) > 3
    reader = journal.reader()
    with reader.sequence() as read:
        for file, offset, size, record in [*found, *found[::-1]]:
            assert reader.read(file, offset, size) == read(file, offset, size) == record
    again: Found = []
    journal.replay(lambda *place: again.append(place))
    assert again == found
    journal.close()


def test_a_snapshot_says_where_its_records_lie(tmp_path: Path) -> None:
    fill(tmp_path / "j", 10)
    journal, _ = placed(tmp_path / "j")
    records = [b'"%b"' % (b"x" * n) for n in range(50)]
    compaction = journal.begin_compaction()
    compaction.write(lambda: iter(records))
    compaction.finish()
    offsets = compaction.offsets
    assert len(offsets) == len(records) + 1
    said = [
        (compaction.file, start, end - start, record)
        for start, end, record in zip(offsets, offsets[1:], records, strict=False)
    ]
    journal.close()
    journal, found = placed(tmp_path / "j")
    assert found == said
    journal.close()


@pytest.mark.parametrize("how", ["a flipped bit", "cut short", "gone"])
def test_damage_names_file_and_byte(tmp_path: Path, how: str) -> None:
    fill(tmp_path / "j", 5)
    journal, found = placed(tmp_path / "j")
    file, offset, size, _ = found[3]
    path = tmp_path / "j" / file
    if how == "gone":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[offset + size - 5] ^= 1
        path.write_bytes(data if how == "a flipped bit" else data[: offset + size - 5])
    reader = journal.reader()
    with reader.sequence() as read:
        for one in (reader.read, read):
            with pytest.raises(StorageUnreadable) as caught:
                one(file, offset, size)
            assert f"j/{file} cannot be read at byte {offset}" in caught.value.message
            assert str(tmp_path) not in caught.value.message
    journal.close()
