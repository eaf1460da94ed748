"""The files of a journal: their names, their headers, and snapshots, which stand for all records up to one.

A snapshot is written next to the journal, synced, and renamed into place: it is there as a whole or not at all.
"""

from __future__ import annotations

import logging
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from ..errors import StorageDamaged, StorageTooNew
from ..typed import decode
from .fs import AppendFile, Fs
from .lines import OWN, VERSION, Entry, Footer, Header, Line, boot_mark, encode, parse
from .reads import Take

log = logging.getLogger(__name__)

LOCK = "LOCK"
REPAIR_COPY = "before-repair-"  # begins the name of a folder that holds a journal as it was, and is none itself
RESERVE = "RESERVE"
NEWEST = "NEWEST"

_SEGMENT = re.compile(r"seg-(\d{16})\.jsonl")
_SNAPSHOT = re.compile(r"snap-(\d{16})\.jsonl")
_UNFINISHED = ".tmp"
_WRITE_BYTES = 1 << 18
_encode = msgspec.json.Encoder().encode


def segment_path(directory: Path, first: int) -> Path:
    return directory / f"seg-{first:016d}.jsonl"


def snapshot_path(directory: Path, at: int) -> Path:
    return directory / f"snap-{at:016d}.jsonl"


def segments(names: Iterable[str]) -> list[int]:
    """First records of the segments among these file names, ascending."""
    return sorted(int(match[1]) for name in names if (match := _SEGMENT.fullmatch(name)))


def snapshots(names: Iterable[str]) -> list[int]:
    """The last records of the snapshots among these file names, ascending."""
    return sorted(int(match[1]) for name in names if (match := _SNAPSHOT.fullmatch(name)))


def unfinished(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.endswith(_UNFINISHED)]


def quarantined(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.endswith(".bad")]


def header_line(header: Header, synced: int) -> bytes:
    return encode(OWN, synced, 0, _encode(header))


def read_header(line: Line | None, path: Path, kind: str, at: int) -> Header | None:
    """The header that a file must begin with, or None if it is damaged. Raises StorageTooNew, StorageDamaged."""
    if line is None or line.seq != OWN:
        return None
    version = msgspec.json.decode(line.record).get("version")
    if version != VERSION:
        raise StorageTooNew(
            f"{path} has format version {version}, this sidecar reads {VERSION}: "
            "run the version that wrote it, or one that is newer",
            file=str(path),
            version=version,
        )
    header = decode(line.record, Header)
    if (header.kind, header.at) != (kind, at):
        raise StorageDamaged(f"{path} is not what its name says: it begins as {header}", file=str(path))
    return header


def create_segment(fs: Fs, directory: Path, first: int) -> tuple[AppendFile, int]:
    """A new segment, durable before any record is in it, and its size. All records before `first` must be synced."""
    path = segment_path(directory, first)
    file = fs.create(path)
    try:
        line = header_line(Header(kind="segment", at=first), first - 1)
        line += boot_mark(first - 1, fs.boot())
        file.write(line)
        file.sync()
        fs.sync_directory(directory)
    except OSError:
        file.close()
        with suppress(OSError):  # what is left is a segment without records, which recovery takes away
            fs.unlink(path)
        raise
    return file, len(line)


def write_snapshot(
    fs: Fs,
    directory: Path,
    at: int,
    entries: Iterable[Entry],
    breathe: Callable[[], None] = lambda: None,
    offsets: array[int] | None = None,
) -> int:
    """Make the snapshot that stands for every record up to `at`; its size in bytes.

    breathe: called after each piece of 256 KiB; what it raises ends the writing. Whatever ends it, no part is left.
    offsets: the byte at which each record's line begins is added to it, and the one at which the last line ends.
    """
    path = snapshot_path(directory, at)
    temporary = path.with_name(path.name + _UNFINISHED)
    file = fs.create(temporary)
    try:
        size = 0
        for piece in _pieces(_snapshot_lines(at, entries, array("Q") if offsets is None else offsets)):
            file.write(piece)
            size += len(piece)
            breathe()
        file.sync()
        fs.rename(temporary, path)
        fs.sync_directory(directory)
    except BaseException:
        with suppress(OSError):  # renamed already, or gone with the disk; recovery looks for both
            fs.unlink(temporary)
        raise
    finally:
        file.close()
    return size


def _snapshot_lines(at: int, entries: Iterable[Entry], offsets: array[int]) -> Iterator[bytes]:
    line = header_line(Header(kind="snapshot", at=at), at)
    yield line
    count, offset = 0, len(line)
    for entry in entries:
        count += 1
        offsets.append(offset)
        line = encode(max(entry.seq, 1), at, 0, entry.record)
        offset += len(line)
        yield line
    offsets.append(offset)
    yield encode(OWN, at, 0, _encode(Footer(count)))


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= _WRITE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


def read_snapshot(fs: Fs, directory: Path, at: int, take: Take | None = None) -> Iterator[Entry]:
    """Its records. Every bit of it was synced before it got its name, so any damage raises StorageDamaged.

    take: gets each record as it is read, and none is returned.
    """
    path = snapshot_path(directory, at)
    name = path.name
    count = 0
    offset = 0
    footer: Footer | None = None
    with fs.reader(path) as file:
        for number, raw in enumerate(file, 1):
            line = parse(raw)
            if number == 1:
                sound = read_header(line, path, "snapshot", at) is not None
            elif line is None or footer is not None:
                sound = False
            elif line.seq == OWN:
                footer = decode(line.record, Footer)
                sound = footer.count == count
            else:
                count += 1
                if take is None:
                    yield Entry(line.seq, line.record)
                else:
                    take(name, offset, len(raw), line.record)
                sound = True
            if not sound:
                raise StorageDamaged(
                    f"{path}: damaged line at byte {offset} (line {number}) of a snapshot",
                    file=str(path),
                    offset=offset,
                    line=number,
                )
            offset += len(raw)
    if footer is None:
        raise StorageDamaged(f"{path}: ends at byte {offset} without its last line", file=str(path), offset=offset)


class Newest(msgspec.Struct, frozen=True):
    """The segment that was written last, named by its first record."""

    segment: int


def read_newest(fs: Fs, directory: Path, names: Iterable[str]) -> int:
    """The newest segment that the journal has noted of itself; 0 if it has not, or the note cannot be read.

    Versions before 0.2 make no such note.
    """
    if NEWEST not in names:
        return 0
    with fs.reader(directory / NEWEST) as file:
        line = parse(file.read())
    if line is None:
        log.warning("note of the newest segment is damaged, it is written again file=%s", directory / NEWEST)
        return 0
    return decode(line.record, Newest).segment


def write_newest(fs: Fs, directory: Path, first: int) -> None:
    """Note the newest segment, which must be durable. Until the note itself is, an older one stands, which is true."""
    temporary = directory / (NEWEST + _UNFINISHED)
    try:
        file = fs.create(temporary)
        try:
            file.write(encode(OWN, 0, 0, _encode(Newest(first))))
            file.sync()
        finally:
            file.close()
        fs.rename(temporary, directory / NEWEST)
    except OSError as error:
        log.warning("newest segment not noted file=%s: %s", directory / NEWEST, error)
        with suppress(OSError):  # it may not have been made
            fs.unlink(temporary)
