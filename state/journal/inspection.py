"""Inspects a storage without changing it: for `sidecar doctor`, while a server runs or none does.

Every record of every journal is read and checked. A journal that a server is writing may end in the middle of a
line; that is reported for one that nobody holds.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import msgspec

from ..errors import StorageDamaged, StorageInUse, StorageTooNew
from ..progress import Progress, ignore
from .files import LOCK, NEWEST, REPAIR_COPY, quarantined, segments, snapshots
from .fs import Lock, RealFs, is_private, lock_holder
from .recovery import JournalScan, find

if TYPE_CHECKING:
    from typing_extensions import Buffer

Health = Literal["sound", "torn", "damaged", "too new", "unreadable"]

_READ_BYTES = 1 << 20
_ATTEMPTS = 3  # a server may remove what it has compacted between our listing and our reading

_ADVICE: dict[Health, str | None] = {
    "sound": None,
    "torn": "nothing: the next start cuts the tail, which was never synced, and keeps its bytes in a .bad file",
    "damaged": "restore a backup, or `sidecar doctor --repair`: it keeps every whole record, and a copy of the files",
    "too new": "run the version that wrote it, or one that is newer",
    "unreadable": "give the user that runs the sidecar access to it",
}


class JournalReport(msgspec.Struct, frozen=True, kw_only=True):
    """One journal. problem: what is wrong, with file, byte and record. advice: what to do about it.

    in_use_by: pid of the process that holds it. quarantined: `.bad` files that earlier starts have kept.
    open_to_others: files and directories that users other than the owner may read or write.
    """

    directory: str
    health: Health
    problem: str | None
    advice: str | None
    records: int
    last_seq: int
    size_bytes: int
    in_use_by: str | None
    quarantined: tuple[str, ...]
    open_to_others: tuple[str, ...]


def journals_in(storage: Path) -> list[Path]:
    """Every directory of the storage that holds a journal."""
    patterns = ("*/s*-*.jsonl", "*/*/s*-*.jsonl", f"*/{NEWEST}", f"*/*/{NEWEST}")
    found = {path.parent for pattern in patterns for path in storage.glob(pattern)}
    return sorted(directory for directory in found if _is_journal(directory))


def _is_journal(directory: Path) -> bool:
    """Whether a folder is a journal, also one that has lost its records but still has the note of its newest file."""
    names = _names(directory)
    is_copy = directory.name.startswith(REPAIR_COPY)
    return not is_copy and bool(segments(names) or snapshots(names) or NEWEST in names)


def size_of(directory: Path) -> int:
    """Bytes of a journal's records; what a compaction takes away meanwhile does not count."""
    size = 0
    for name in (name for name in _names(directory) if name.endswith(".jsonl")):
        with suppress(FileNotFoundError):
            size += (directory / name).stat().st_size
    return size


def inspect(storage: Path, *, progress: Progress = ignore) -> tuple[JournalReport, ...]:
    """Read and check every journal of a storage directory. progress: told what was read, of what there is."""
    journals = journals_in(storage)
    fs = _CountingFs(sum(size_of(directory) for directory in journals), progress)
    reports = tuple(inspect_journal(directory, fs=fs) for directory in journals)
    progress(fs.total, fs.total)
    return reports


class _CountingFs(RealFs):
    """Tells how much of the files was read. total: bytes; what is read twice counts no further than that."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.total = total
        self._done = 0
        self._progress = progress

    def reader(self, path: Path) -> BinaryIO:
        return io.BufferedReader(_CountedFile(path, self._add), _READ_BYTES)

    def _add(self, size: int) -> None:
        self._done = min(self._done + size, self.total)
        self._progress(self._done, self.total)


class _CountedFile(io.FileIO):
    def __init__(self, path: Path, was_read: Callable[[int], object]) -> None:
        super().__init__(path)
        self._was_read = was_read

    def readinto(self, buffer: Buffer) -> int | None:
        size = super().readinto(buffer)
        self._was_read(size or 0)
        return size


def inspect_journal(directory: Path, *, fs: RealFs | None = None) -> JournalReport:
    """Read and check every record of one journal."""
    health: Health = "sound"
    problem: str | None = None
    found: JournalScan | None = None
    in_use_by: str | None = None
    lock: Lock | None = None
    try:
        lock, in_use_by = _hold(directory)
        found = _find(fs or RealFs(), directory)
        if found.damage is not None and found.torn is not None and in_use_by is None:
            lost = f"{found.torn.size_bytes} bytes and at least {found.torn.records} records from there on"
            health, problem = "torn", f"{found.damage}: {lost} were not on the disk in time"
    except StorageDamaged as error:
        health, problem = "damaged", error.message
    except StorageTooNew as error:
        health, problem = "too new", error.message
    except OSError as error:
        health, problem = "unreadable", f"{directory}: {error.strerror or error}"
    finally:
        if lock is not None:
            lock.release()
    files = [] if health == "unreadable" else [directory / name for name in _names(directory)]
    return JournalReport(
        directory=str(directory),
        health=health,
        problem=problem,
        advice=_ADVICE[health],
        records=len(found.entries) if found is not None else 0,
        last_seq=found.last_seq if found is not None else 0,
        size_bytes=sum(path.stat().st_size for path in files if path.suffix == ".jsonl"),
        in_use_by=in_use_by,
        quarantined=tuple(quarantined(path.name for path in files)),
        open_to_others=tuple(str(path) for path in (directory, *files) if not is_private(path)),
    )


def _hold(directory: Path) -> tuple[Lock | None, str | None]:
    """Keep others from writing while we read; or, where another does, its pid."""
    if not (directory / LOCK).exists():  # to lock would make the file, and we only look
        holder = lock_holder(directory / LOCK)
        return None, None if holder is None else holder or "unknown"
    try:
        return RealFs().lock(directory / LOCK), None
    except StorageInUse as error:
        return None, str(error.details["pid"]) or "unknown"


def _find(fs: RealFs, directory: Path) -> JournalScan:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return find(fs, directory)
        except (FileNotFoundError, StorageDamaged):
            # Also damage: a list of files from before a compaction and contents from after it do not fit together.
            if attempt == _ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def _names(directory: Path) -> list[str]:
    return RealFs().names(directory)
