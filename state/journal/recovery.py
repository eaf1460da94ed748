"""Reads a journal after the last process has ended in any way: whole transactions, up to a torn tail.

A torn tail is normal: bytes written but not yet synced survive a power loss in any pieces. Damage before it is not.
Two things tell them apart.

- A line says in which boot of the machine the lines after it are written. In the same boot no power was lost: then
  only the last write can be incomplete, cut short at the end of the file, and any other damage is damage to what was
  acknowledged.
- In a later boot `synced` decides, which each line carries: the last record that was known to be on the disk when the
  line was written. If a sound line after the damage says that the damaged record had been synced, then what is damaged
  had been acknowledged.

Damage to what was acknowledged raises StorageDamaged, and nothing is cut. A torn tail is moved into a `.bad` file,
which the log names with what is in it, and the journal goes on before it. A segment's header is synced before its
first record, so a damaged header with any sound line after it is damage too. The journal also notes which segment is
the newest, so that one that was deleted is missed.

See docs/durability.md.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from ..errors import StorageDamaged
from .files import (
    read_header,
    read_newest,
    read_snapshot,
    segment_path,
    segments,
    snapshot_path,
    snapshots,
    unfinished,
)
from .fs import Fs
from .lines import OWN, Entry, Line, boot_of, find_lines, parse
from .reads import Take

log = logging.getLogger(__name__)


class Damage(msgspec.Struct, frozen=True):
    """Where a segment stops making sense. cut_at: where its last whole transaction ends, in bytes.

    is_cut_short: as left by a process that was killed while it wrote. boot: in which these lines were written.
    """

    path: Path
    offset: int
    line: int
    expected: int
    cut_at: int
    reason: str
    is_header: bool = False
    is_tearing: bool = True
    is_cut_short: bool = False
    boot: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.reason} at byte {self.offset} (line {self.line}), expected record {self.expected}"


class SegmentScan(msgspec.Struct, frozen=True):
    """count: of its committed records. entries: those records, if nobody took them as they were read.

    synced: the newest record that its lines say was on the disk. boot: in which its last lines were written.
    """

    count: int
    entries: list[Entry]
    synced: int
    boot: str
    damage: Damage | None


class Torn(msgspec.Struct, frozen=True):
    """A torn tail. records: the number of its lines that are, or may have been, records."""

    size_bytes: int
    records: int


class JournalScan(msgspec.Struct, frozen=True):
    """What a journal's files hold, and what to do with them.

    snapshot_at: 0 without a snapshot. kept: first records of the segments that count. synced: as in SegmentScan, of
    the last segment. newest: the segment that is noted to be the newest, or 0. obsolete: files that the snapshot made
    superfluous. damage: a torn tail that may be cut, in the last of `kept`. torn_files: whole files of such a tail.
    torn: what is in it.
    """

    snapshot_at: int
    entries: list[Entry]
    kept: list[int]
    last_seq: int
    synced: int
    boot: str
    newest: int
    obsolete: list[Path]
    damage: Damage | None = None
    torn_files: list[Path] = []
    torn: Torn | None = None


def scan_segment(fs: Fs, directory: Path, first: int, take: Take | None = None) -> SegmentScan:
    """Read one segment up to its end or to the first line that does not fit. take: gets each committed record."""
    path = segment_path(directory, first)
    name = path.name
    entries: list[Entry] = []
    if take is None:
        take = _collector(entries, first)
    transaction: list[tuple[int, int, bytes]] = []  # offset and size of each line so far, and its record
    expected, left, offset, sound, number, synced = first, 0, 0, 0, 0, 0
    boot = ""

    def damage(reason: str, **more: bool) -> SegmentScan:
        where = Damage(path, offset, number, expected, sound, reason, boot=boot, **more)
        return SegmentScan(expected - first - len(transaction), entries, synced, boot, where)

    with fs.reader(path) as file:
        for number, raw in enumerate(file, 1):
            line = parse(raw)
            if number == 1 and (line is None or read_header(line, path, "segment", first) is None):
                return damage("damaged header", is_header=True)
            if line is None:
                if raw.endswith(b"\n"):
                    return damage("damaged record")
                # With a newline in the place of its last byte it would be whole: then nothing was cut.
                return damage("record cut short", is_cut_short=parse(raw[:-1] + b"\n") is None)
            seq, size = line.seq, len(raw)
            if seq == OWN and not transaction:
                boot = boot_of(line) or boot  # a mark, or the header
            elif seq != expected or (transaction and line.left != left - 1):
                # Tearing damages lines, it never makes sound ones disappear or change places.
                return damage(f"record {seq} out of order", is_tearing=False)
            else:
                expected += 1
                left = line.left
                if left or transaction:
                    transaction.append((offset, size, line.record))
                    if left == 0:
                        for start, length, record in transaction:
                            take(name, start, length, record)
                        transaction.clear()
                else:
                    take(name, offset, size, line.record)
            offset += size
            if not transaction:
                sound, synced = offset, max(synced, line.synced)
    if number == 0:
        return damage("empty file", is_header=True)
    if transaction:
        return damage(f"the file ends, {left} more to come in the transaction", is_cut_short=True)
    return SegmentScan(expected - first, entries, synced, boot, None)


def _collector(entries: list[Entry], first: int) -> Take:
    """Collects the records of a segment that begins with number `first`."""

    def take(_file: str, _offset: int, _size: int, record: bytes) -> None:
        entries.append(Entry(first + len(entries), record))

    return take


def find(fs: Fs, directory: Path, take: Take | None = None) -> JournalScan:
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
    newest = read_newest(fs, directory, names)
    if newest > max(every, default=0):
        raise StorageDamaged(
            f"{segment_path(directory, newest)} is missing: it was the newest file of its journal",
            file=str(segment_path(directory, newest)),
        )
    last_seq = synced = at
    kept: list[int] = []
    boot = ""
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
        synced, boot = max(synced, scan.synced), scan.boot
        last_seq += scan.count
        if (damage := scan.damage) is not None:
            later = [segment_path(directory, other) for other in firsts[place + 1 :]]
            _judge(fs, damage, last_seq, later)
            torn_files = later
            if damage.is_header:
                torn_files = [damage.path, *later]
            else:
                kept.append(first)
            torn = _look_at_torn(fs, damage, later)
            return JournalScan(at, entries, kept, last_seq, synced, boot, newest, obsolete, damage, torn_files, torn)
        kept.append(first)
    return JournalScan(at, entries, kept, last_seq, synced, boot, newest, obsolete)


def _judge(fs: Fs, damage: Damage, last_seq: int, later: list[Path]) -> None:
    """Return if the damage can be a tail that was never synced, else raise StorageDamaged."""
    evidence = None
    has_run_since = "the machine has run ever since it was written, so no power loss has torn it"
    if not damage.is_tearing:
        evidence = "a torn write cannot cause this"
    elif damage.boot and damage.boot == fs.boot() and not damage.is_cut_short:
        evidence = has_run_since
    else:
        for line in _lines_after(fs, damage, later):
            if damage.is_header:
                evidence = "sound lines follow"
            elif line.seq == OWN and fs.boot() and boot_of(line) == fs.boot():
                evidence = has_run_since
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


def _look_at_torn(fs: Fs, damage: Damage, later: list[Path]) -> Torn:
    size = records = 0
    for path, offset in ((damage.path, damage.cut_at), *((path, 0) for path in later)):
        with fs.reader(path) as file:
            file.seek(offset)
            for raw in file:
                size += len(raw)
                line = parse(raw)
                records += line is None or line.seq != OWN
    return Torn(size, records)


def _lines_after(fs: Fs, damage: Damage, later: list[Path]) -> Iterator[Line]:
    with fs.reader(damage.path) as file:
        file.seek(damage.offset)
        yield from find_lines(file.read())
    for path in later:
        with fs.reader(path) as file:
            yield from find_lines(file.read())


def cut(fs: Fs, directory: Path, found: JournalScan) -> list[Path]:
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
        log.warning(
            "torn tail cut: it was not on the disk when the power was lost or the sidecar was killed"
            " file=%s byte=%d bytes=%d records=%d kept_in=%s",
            damage.path,
            damage.cut_at,
            found.torn.size_bytes if found.torn is not None else 0,
            found.torn.records if found.torn is not None else 0,
            [path.name for path in bad],
        )
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
