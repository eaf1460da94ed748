"""`doctor`'s eyes and hands: every record is checked, damage is named, and cut out only when told to, with a copy."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.state.errors import StorageDamaged, StorageInUse
from sidecar.state.journal.inspection import inspect, inspect_journal, journals_in
from sidecar.state.journal.journal import Journal
from sidecar.state.journal.repair import repair_journal

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def filled(directory: Path, count: int = 60, *, segment_bytes: int = 1_000) -> None:
    """Transactions of one record, every fifth of two."""
    journal = Journal.open(directory, segment_bytes=segment_bytes, reserve_bytes=0)
    while journal.last_seq < count:
        n = journal.last_seq + 1
        journal.append([b'"record %d"' % n, b'"and %d"' % (n + 1)] if n % 5 == 0 else [b'"record %d"' % n])
        journal.commit()
    journal.close()


def damage(directory: Path, text: bytes) -> Path:
    """Flip one bit of `text`, wherever it is; the damaged file."""
    path = next(path for path in sorted(directory.glob("s*.jsonl")) if text in path.read_bytes())
    path.write_bytes(path.read_bytes().replace(text, bytes((text[0] ^ 1,)) + text[1:]))
    return path


def records(directory: Path) -> list[tuple[int, bytes]]:
    journal = Journal.open(directory, reserve_bytes=0)
    entries = [(entry.seq, entry.record) for entry in journal.entries()]
    journal.close()
    return entries


def test_sound_journals_are_found_and_counted(tmp_path: Path) -> None:
    filled(tmp_path / "results")
    filled(tmp_path / "events" / "log", 10)
    (tmp_path / "logs" / "1").mkdir(parents=True)
    assert journals_in(tmp_path) == [tmp_path / "events" / "log", tmp_path / "results"]
    log, results = inspect(tmp_path)
    assert (log.health, log.records, results.health, results.last_seq) == ("sound", 11, "sound", results.records)
    assert results.open_to_others == ()
    assert results.in_use_by is None


def test_looking_changes_nothing(tmp_path: Path) -> None:
    filled(tmp_path / "j")
    segment = sorted((tmp_path / "j").glob("seg-*"))[-1]
    segment.write_bytes(segment.read_bytes() + b"torn")
    before = {path.name: path.read_bytes() for path in (tmp_path / "j").iterdir() if path.name != "LOCK"}
    report = inspect_journal(tmp_path / "j")
    assert (report.health, report.problem is not None) == ("torn", True)
    assert "the next start cuts the tail" in str(report.advice)
    assert {path.name: path.read_bytes() for path in (tmp_path / "j").iterdir() if path.name != "LOCK"} == before


def test_damage_is_named_with_advice(tmp_path: Path) -> None:
    filled(tmp_path / "j")
    path = damage(tmp_path / "j", b"record 7")
    report = inspect_journal(tmp_path / "j")
    assert report.health == "damaged"
    assert str(path) in str(report.problem)
    assert "expected record 7" in str(report.problem)
    assert "doctor --repair" in str(report.advice)


def test_a_journal_in_use_is_read_beside_its_owner_but_not_repaired(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j", reserve_bytes=0)
    journal.append([b"1"])
    journal.commit()
    report = inspect_journal(tmp_path / "j")
    assert (report.health, report.records, report.in_use_by is not None) == ("sound", 1, True)
    with pytest.raises(StorageInUse):
        repair_journal(tmp_path / "j", now=NOW)
    journal.close()


def test_files_that_others_may_read_are_named(tmp_path: Path) -> None:
    filled(tmp_path / "j", 3)
    segment = next((tmp_path / "j").glob("seg-*"))
    segment.chmod(0o644)
    assert inspect_journal(tmp_path / "j").open_to_others == (str(segment),)


def test_a_repair_loses_only_the_transactions_that_are_damaged(tmp_path: Path) -> None:
    filled(tmp_path / "j")
    before = records(tmp_path / "j")
    damage(tmp_path / "j", b"record 7")
    damage(tmp_path / "j", b"and 26")
    files = {path.name: path.read_bytes() for path in (tmp_path / "j").glob("s*.jsonl")}

    repair = repair_journal(tmp_path / "j", now=NOW)
    assert repair.lost == ((7, 7), (25, 26)), "a transaction of which a part is damaged is lost as a whole"
    assert records(tmp_path / "j") == [entry for entry in before if entry[0] not in (7, 25, 26)]
    assert {path.name: path.read_bytes() for path in Path(repair.copy).iterdir()} == files
    journal = Journal.open(tmp_path / "j", reserve_bytes=0)
    assert journal.append([b"1"]) == before[-1][0] + 1, "numbers go on"
    journal.close()


@pytest.mark.parametrize("lost", ["header", "whole segment", "last record", "snapshot record"])
def test_whatever_is_damaged_a_repaired_journal_opens_and_numbers_go_on(tmp_path: Path, lost: str) -> None:
    filled(tmp_path / "j")
    if lost == "snapshot record":
        journal = Journal.open(tmp_path / "j", reserve_bytes=0)
        journal.compact([b'"kept %d"' % n for n in range(5)])
        journal.append([b'"after"'])
        journal.close()
    last = records(tmp_path / "j")[-1][0]
    segments = sorted((tmp_path / "j").glob("seg-*"))
    match lost:
        case "header":
            damage(tmp_path / "j", b'"at":%d,' % int(segments[1].name[4:20]))
        case "whole segment":
            segments[1].unlink()
        case "last record":
            damage(tmp_path / "j", b"and %d" % last)
        case _:
            damage(tmp_path / "j", b"kept 3")
    with pytest.raises(StorageDamaged):
        Journal.open(tmp_path / "j", reserve_bytes=0)
    repair = repair_journal(tmp_path / "j", now=NOW)
    assert len(records(tmp_path / "j")) == repair.kept
    if lost == "header":
        assert repair.lost == ()
    if lost == "snapshot record":
        assert [record for _, record in records(tmp_path / "j")][2:4] == [b'"kept 2"', b'"kept 4"']
    journal = Journal.open(tmp_path / "j", reserve_bytes=0)
    assert journal.append([b"1"]) == last + 1
    journal.close()
