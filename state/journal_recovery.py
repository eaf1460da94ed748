"""What a journal holds after whatever ended the last process: whole transactions, up to a torn tail if there is one.

A torn tail is normal: bytes written but not yet synced survive a power loss in any pieces. Damage before it is not.
The two are told apart by `synced`, which each line carries: the last record that was known to be on the disk when
the line was written. If a sound line after the damage says that the damaged record had been synced, then what is
damaged had been acknowledged, and nothing is cut: StorageDamaged. Else it was never acknowledged: the tail is moved
into a `.bad` file and the journal goes on before it. A segment's header is synced before its first record, so
a damaged header with any sound line after it is damage too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from .errors import StorageDamaged
from .fs import Fs
from .journal_files import read_header, read_snapshot, segment_path, segments, snapshot_path, snapshots, unfinished
from .journal_lines import OWN, Entry, Line, find_lines, parse
from .journal_reads import Take

log = logging.getLogger(__name__)


class Damage(msgspec.Struct, frozen=True):
    """Where a segment stops making sense. cut_at: where its last whole transaction ends, in bytes."""

    path: Path
    offset: int
    line: int
    expected: int
    cut_at: int
    reason: str
    is_header: bool = False
    is_tearing: bool = True

    def __str__(self) -> str:
        return f"{self.path}: {self.reason} at byte {self.offset} (line {self.line}), expected record {self.expected}"


class SegmentScan(msgspec.Struct, frozen=True):
    """count: of its committed records. entries: those records, if nobody took them as they were read.

    synced: the newest record that its lines say was on the disk.
    """

    count: int
    entries: list[Entry]
    synced: int
    damage: Damage | None


class Found(msgspec.Struct, frozen=True):
    """What there is to go on with.

    snapshot_at: 0 without a snapshot. kept: first records of the segments that count. synced: as in SegmentScan, of
    the last segment. obsolete: files that the snapshot made superfluous. damage: a torn tail that may be cut, in the
    last of `kept`. torn_files: whole files of such a tail.
    """

    snapshot_at: int
    entries: list[Entry]
    kept: list[int]
    last_seq: int
    synced: int
    obsolete: list[Path]
    damage: Damage | None
    torn_files: list[Path]


def scan_segment(fs: Fs, directory: Path, first: int, take: Take | None = None) -> SegmentScan:
    """Read one segment up to its end or to the first line that does not fit. take: gets each committed record."""
    path = segment_path(directory, first)
    name = path.name
    entries: list[Entry] = []
    transaction: list[Entry] = []
    spans: list[tuple[int, int]] = []  # offset and size of the transaction's lines
    expected, left, offset, sound, number, synced = first, 0, 0, 0, 0, 0

    def damage(reason: str, *, is_header: bool = False, is_tearing: bool = True) -> SegmentScan:
        where = Damage(path, offset, number, expected, sound, reason, is_header, is_tearing)
        return SegmentScan(expected - first - len(transaction), entries, synced, where)

    with fs.reader(path) as file:
        for number, raw in enumerate(file, 1):
            line = parse(raw)
            if number == 1:
                if line is None or read_header(line, path, "segment", first) is None:
                    return damage("damaged header", is_header=True)
            elif line is None:
                return damage("damaged record" if raw.endswith(b"\n") else "record cut short")
            elif line.seq == OWN and not transaction:
                pass  # a mark
            elif line.seq != expected or (transaction and line.left != left - 1):
                # Tearing damages lines, it never makes sound ones disappear or change places.
                return damage(f"record {line.seq} out of order", is_tearing=False)
            else:
                expected += 1
                if line.left == 0 and not transaction and take is not None:
                    take(name, offset, len(raw), line.record)  # most transactions are one record
                else:
                    transaction.append(Entry(line.seq, line.record))
                    spans.append((offset, len(raw)))
                    left = line.left
                    if left == 0:
                        if take is None:
                            entries += transaction
                        else:
                            for entry, (start, size) in zip(transaction, spans, strict=True):
                                take(name, start, size, entry.record)
                        transaction.clear()
                        spans.clear()
            offset += len(raw)
            if not transaction:
                sound, synced = offset, line.synced
    if number == 0:
        return damage("empty file", is_header=True)
    if transaction:
        return damage(f"the file ends, {left} more to come in the transaction")
    return SegmentScan(expected - first, entries, synced, None)


def find(fs: Fs, directory: Path, take: Take | None = None) -> Found:
    """Read everything and judge what does not fit. Changes nothing. Raises StorageDamaged, StorageTooNew.

    take: gets each committed record as it is read, and `entries` stays empty, so that memory need not hold them all.
    What it was given counts only if this returns.
    """
    names = fs.names(directory)
    taken = snapshots(names)
    at = taken[-1] if taken else 0
    entries = list(read_snapshot(fs, directory, at, take)) if taken else []
    every = segments(names)
    # The journal starts a new segment at each snapshot, so none lies across it.
    firsts = [first for first in every if first > at]
    obsolete = [directory / name for name in unfinished(names)]
    obsolete += [snapshot_path(directory, older) for older in taken[:-1]]
    obsolete += [segment_path(directory, first) for first in every if first <= at]
    last_seq = synced = at
    kept: list[int] = []
    for place, first in enumerate(firsts):
        if first != last_seq + 1:
            raise StorageDamaged(
                f"{segment_path(directory, first)}: begins with record {first}, expected record {last_seq + 1}: "
                "a file is missing",
                file=str(segment_path(directory, first)),
                expected=last_seq + 1,
            )
        scan = scan_segment(fs, directory, first, take)
        entries += scan.entries
        synced = max(synced, scan.synced)
        last_seq += scan.count
        if scan.damage is not None:
            later = [segment_path(directory, other) for other in firsts[place + 1 :]]
            _judge(fs, scan.damage, last_seq, later)
            torn = later
            if scan.damage.is_header:
                torn = [scan.damage.path, *later]
            else:
                kept.append(first)
            return Found(at, entries, kept, last_seq, synced, obsolete, scan.damage, torn)
        kept.append(first)
    return Found(at, entries, kept, last_seq, synced, obsolete, None, [])


def _judge(fs: Fs, damage: Damage, last_seq: int, later: list[Path]) -> None:
    """Return if the damage can be a tail that was never acknowledged, else raise StorageDamaged."""
    evidence = None
    if not damage.is_tearing:
        evidence = "no tearing does that"
    else:
        for line in _lines_after(fs, damage, later):
            if damage.is_header:
                evidence = "sound lines follow"
            elif line.synced > last_seq:
                evidence = f"a later line shows that everything up to record {line.synced} had been synced"
            else:
                continue
            break
    if evidence is not None:
        raise StorageDamaged(
            f"{damage}; {evidence}",
            file=str(damage.path),
            offset=damage.offset,
            line=damage.line,
            expected=damage.expected,
        )


def _lines_after(fs: Fs, damage: Damage, later: list[Path]) -> Iterator[Line]:
    with fs.reader(damage.path) as file:
        file.seek(damage.offset)
        yield from find_lines(file.read())
    for path in later:
        with fs.reader(path) as file:
            yield from find_lines(file.read())


def cut(fs: Fs, directory: Path, found: Found) -> list[Path]:
    """Move the torn tail into `.bad` files, durably, and drop what is obsolete. Returns the `.bad` files."""
    bad: list[Path] = []
    damage = found.damage
    if damage is not None:
        if not damage.is_header:
            bad.append(_quarantine(fs, damage.path, damage.cut_at))
        for path in found.torn_files:
            bad.append(_unused(fs, path, 0))
            fs.rename(path, bad[-1])
        fs.sync_directory(directory)
        log.warning("torn tail cut file=%s byte=%d kept_in=%s", damage.path, damage.cut_at, [p.name for p in bad])
    for path in found.obsolete:
        fs.unlink(path)
    return bad


def _quarantine(fs: Fs, path: Path, offset: int) -> Path:
    """Copy the bytes from `offset` on, then cut them off."""
    copy = _unused(fs, path, offset)
    with fs.reader(path) as file:
        file.seek(offset)
        tail = file.read()
    out = fs.create(copy)
    try:
        out.write(tail)
        out.sync()
    except OSError:
        with suppress(OSError):
            fs.unlink(copy)
        raise
    finally:
        out.close()
    fs.sync_directory(path.parent)
    segment = fs.append_to(path)
    try:
        segment.truncate(offset)
        segment.sync()
    finally:
        segment.close()
    return copy


def _unused(fs: Fs, path: Path, offset: int) -> Path:
    """A name for quarantined bytes that no earlier ones have."""
    names = set(fs.names(path.parent))
    name, number = f"{path.name}.{offset}.bad", 1
    while name in names:
        name, number = f"{path.name}.{offset}-{number}.bad", number + 1
    return path.with_name(name)
