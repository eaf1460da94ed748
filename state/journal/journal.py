"""Journal: an append-only log of JSON records that survives kill -9 and, at level `commit`, power loss.

The result tables, the event log, the mailboxes, the agent registry and the audit trail are each built from one. One
thread owns it. `append` buffers a transaction, `commit` makes everything appended durable with one write and at most
one fdatasync: many writers, one commit. See lines (the format), files (their names), recovery (after a crash),
segment (the file that is written to), compaction (snapshots), presence (files that went away). docs/durability.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from ..errors import StorageUnavailable
from . import files
from .closed_files import ClosedFiles
from .compaction import Compaction
from .fs import FileIdentity, Fs, Lock, RealFs
from .lines import Entry, encode
from .presence import Presence
from .reads import RecordReader, Take, Written
from .recovery import cut, find, scan_segment
from .reserve import Reserve
from .segment import OpenSegment, SegmentSync

SEGMENT_BYTES = 64 << 20
RESERVE_BYTES = 1 << 20


class Durability(StrEnum):
    """The level of a journal: how safe a record is when `commit` returns."""

    COMMIT = "commit"  # fdatasync: survives power loss
    OS = "os"  # write: survives kill -9, the kernel has it


class JournalStats(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a journal in numbers. first_seq: the oldest record kept as such, not in a snapshot.

    failure: why nothing can be written, or None. is_short: the disk was found full, and the reserve is spent.
    """

    durability: Durability
    first_seq: int
    last_seq: int
    segments: int
    size_bytes: int
    quarantined: tuple[str, ...]
    failure: str | None
    is_short: bool


class _Batch:
    """The lines that the next commit writes. last_seq: of the newest. only_frees: every one makes room on the disk."""

    def __init__(self, last_seq: int) -> None:
        self.lines: list[bytes] = []
        self.last_seq = last_seq
        self.only_frees = True


class _Recovered(msgspec.Struct, frozen=True):
    """What `open` goes on with. quarantined: files that hold a torn tail. entries: None if a `take` got them."""

    closed: ClosedFiles
    segment: OpenSegment
    last_seq: int
    quarantined: tuple[Path, ...]
    entries: list[Entry] | None


def _recover(fs: Fs, directory: Path, durability: Durability, reserve: Reserve, take: Take | None) -> _Recovered:
    found = find(fs, directory, take)
    quarantined = tuple(reserve.lend(lambda: cut(fs, directory, found)))
    fs.sync_directory(directory)
    closed = ClosedFiles(fs, directory, found.snapshot_at, found.kept[:-1])
    is_cut = durability is Durability.COMMIT
    if found.kept:
        segment = OpenSegment.reopen(
            fs,
            directory,
            found.kept[-1],
            last_seq=found.last_seq,
            marked_seq=found.synced,
            boot=found.boot,
            is_cut_after_failure=is_cut,
        )
    else:
        segment = OpenSegment.create(fs, directory, found.last_seq + 1, is_cut_after_failure=is_cut)
    if segment.first != found.newest:
        files.write_newest(fs, directory, segment.first)
    reserve.hold()
    return _Recovered(closed, segment, found.last_seq, quarantined, found.entries if take is None else None)


class Journal:
    """Made by `Journal.open`. last_seq: of the newest committed record. recovered: files that hold a torn tail."""

    def __init__(
        self,
        fs: Fs,
        directory: Path,
        durability: Durability,
        segment_bytes: int,
        reserve: Reserve,
        lock: Lock,
        recovered: _Recovered,
    ) -> None:
        self.directory = directory
        self.durability = durability
        self.recovered = recovered.quarantined
        self.last_seq = recovered.last_seq
        self._fs = fs
        self._segment_bytes = segment_bytes
        self._reserve = reserve
        self._lock = lock
        self._closed = recovered.closed
        self._segment = recovered.segment
        self._read = recovered.entries
        self._batch = _Batch(self.last_seq)
        self._presence = Presence(fs, directory, lambda: _files_of(self._closed, self._segment))

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        durability: Durability = Durability.COMMIT,
        fs: Fs | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
        take: Take | None = None,
    ) -> Journal:
        """Lock it, read and check all of it, cut a torn tail (it is kept in a `.bad` file).

        segment_bytes: a segment that has reached this size is followed by the next. reserve_bytes: see Reserve.
        take: gets each committed record as it is read, so that memory need not hold them all; what it was given counts
        only if this returns.
        Raises StorageInUse; StorageDamaged when acknowledged data cannot be read; StorageTooNew; StorageUnavailable.
        """
        fs = fs or RealFs()
        lock: Lock | None = None
        try:
            fs.make_directory(directory)
            lock = fs.lock(directory / files.LOCK)
            reserve = Reserve(fs, directory / files.RESERVE, reserve_bytes)
            recovered = _recover(fs, directory, durability, reserve, take)
        except BaseException as error:
            if lock is not None:
                lock.release()
            if isinstance(error, OSError):
                raise StorageUnavailable(f"{directory} cannot be opened: {error.strerror or error}") from error
            raise
        return cls(fs, directory, durability, segment_bytes, reserve, lock, recovered)

    def entries(self) -> Iterator[Entry]:
        """Every committed record in order. The first time, what `open` has read; after that, from the disk."""
        read, self._read = self._read, None
        if read is not None:
            read.reverse()
            while read:  # each is let go as it is taken: the reader may keep it, we do not need it twice
                yield read.pop()
            return
        if self._closed.snapshot_at:
            yield from files.read_snapshot(self._fs, self.directory, self._closed.snapshot_at)
        for first in (*self._closed.segments, self._segment.first):
            yield from scan_segment(self._fs, self.directory, first).entries

    def replay(self, take: Take) -> None:
        """Read each committed record from the disk and hand it to `take`, in order."""
        self._read = None
        if self._closed.snapshot_at:
            for _ in files.read_snapshot(self._fs, self.directory, self._closed.snapshot_at, take):
                pass
        for first in (*self._closed.segments, self._segment.first):
            scan_segment(self._fs, self.directory, first, take)

    def reader(self) -> RecordReader:
        """A reader of single records, by their places."""
        return RecordReader(self.directory, self._fs)

    def append(self, records: Sequence[bytes], *, frees_space: bool = False) -> int:
        """Buffer one transaction: after a crash all of its records are there, or none. The seq of the last one.

        records: JSON values. frees_space: may use the reserve of a full disk. Raises StorageUnavailable.
        """
        if not records:
            raise ValueError("a transaction needs at least one record")
        segment, batch = self._segment, self._batch
        segment.require_sound()
        seq, synced, left = batch.last_seq, segment.synced_seq, len(records)
        for record in records:
            seq += 1
            left -= 1
            batch.lines.append(encode(seq, synced, left, record))
        batch.last_seq = seq
        batch.only_frees = batch.only_frees and frees_space
        return seq

    def commit(self) -> Written | None:
        """Make all appended records durable, to the journal's level. Returns their places, None if there are none.

        Raises StorageUnavailable: then nothing that was appended since the last commit is kept. After a failed
        fdatasync the journal takes nothing more (`failure` says why): close it and open it again.
        """
        batch = self._batch
        if not batch.lines:
            return None
        self._batch = _Batch(self.last_seq)
        self._segment.require_sound()
        self._presence.require()
        data = b"".join(batch.lines)
        if not batch.only_frees and not self._reserve.hold():
            raise StorageUnavailable(f"{self.directory} takes only deletes until its disk has room again")
        try:
            if batch.only_frees:
                self._reserve.lend(lambda: self._write(data))
            else:
                self._write(data)
            if self.durability is Durability.COMMIT:
                self._segment.sync(batch.last_seq)
        except OSError as error:
            raise StorageUnavailable(f"{self.directory} cannot be written: {error.strerror or error}") from error
        self.last_seq = self._batch.last_seq = batch.last_seq
        self._read = None
        return Written(self._segment.name, self._segment.size - len(data), [len(line) for line in batch.lines])

    def _write(self, data: bytes) -> None:
        if self._segment.size + len(data) > self._segment_bytes:
            self._rotate()
        self._segment.write(data)

    def _rotate(self) -> None:
        """Seal the segment and begin the next, unless this one has no records yet."""
        full = self._segment
        if full.first > self.last_seq:
            return
        full.seal(self.last_seq)
        self._segment = OpenSegment.create(
            self._fs,
            self.directory,
            self.last_seq + 1,
            is_cut_after_failure=self.durability is Durability.COMMIT,
        )
        files.write_newest(self._fs, self.directory, self._segment.first)
        self._closed.add(full.first, full.size)
        full.close()

    def settle(self) -> bool:
        """Mark the synced records, so that damage to them is not taken for a torn tail. Whether all are marked."""
        segment = self._segment
        segment.take_in_sync()
        if segment.failure is not None:
            return True  # nothing more can be done for it
        if not self._batch.lines and not segment.mark():
            return True  # the next commit says the same
        return segment.marked_seq == segment.synced_seq == self.last_seq

    def make_durable(self) -> None:
        """Sync everything that is committed, in this thread, and note it. Raises StorageUnavailable."""
        try:
            self._segment.sync(self.last_seq)
        except OSError as error:
            raise StorageUnavailable(f"{self.directory} cannot be synced: {error.strerror or error}") from error
        self.settle()

    def begin_sync(self) -> SegmentSync | None:
        """A sync of everything that is committed, to be run in any thread; None if there is none to begin.

        `settle` notes what it has synced.
        """
        return self._segment.begin_sync(self.last_seq)

    @property
    def failure(self) -> str | None:
        """Why nothing can be written any more, or None."""
        return self._segment.failure

    @property
    def synced_seq(self) -> int:
        """The number of the newest record that is known to be on the disk."""
        return self._segment.synced_seq

    def missing(self) -> str | None:
        """Why a file of it is no longer in its place, as a sentence; None if all are. In any thread."""
        return self._presence.missing()

    def drop_before(self, seq: int) -> None:
        """Drop records before `seq`, as far as they fill whole segments; the unfilled last one stays."""
        firsts = (*self._closed.segments, self._segment.first)
        keep_from = max((first for first in firsts if first <= seq), default=firsts[0])
        if keep_from == firsts[0]:
            return
        self._presence.require()
        self._read = None
        compaction = Compaction(self._fs, self.directory, keep_from - 1, self._closed, self._reserve)
        compaction.write(lambda: ())
        compaction.finish()

    def compact(self, records: Iterable[bytes]) -> None:
        """Replace everything by these records, as one. Raises StorageUnavailable: then nothing has changed."""
        kept = list(records)
        self.commit()
        if self.last_seq == 0:  # a snapshot stands for records, and there are none
            if kept:
                self.append(kept)
                self.commit()
            return
        compaction = self.begin_compaction()
        compaction.write(lambda: kept)
        compaction.finish()

    def begin_compaction(self) -> Compaction:
        """Commit, and draw the line: what is appended from now on comes after the snapshot.

        The journal must have had a record. Raises StorageUnavailable.
        """
        self.commit()
        self._segment.require_sound()
        self._presence.require()  # a new file would be made in whatever folder is there now
        self._read = None
        try:
            self._reserve.lend(self._rotate)
        except OSError as error:
            raise StorageUnavailable(f"{self.directory} cannot be compacted: {error.strerror or error}") from error
        return Compaction(self._fs, self.directory, self.last_seq, self._closed, self._reserve)

    def close(self) -> None:
        """Commit what is pending, note what is synced, unlock."""
        try:
            # A sync that still ran would sync a descriptor that may be another file's by then.
            self._segment.take_in_sync(wait=True)
            if self.failure is None:
                self.commit()
                if self.synced_seq < self.last_seq:
                    self._segment.sync(self.last_seq)
                self.settle()
        except OSError as error:
            raise StorageUnavailable(f"{self.directory} cannot be synced: {error.strerror or error}") from error
        finally:
            self._presence.end()
            self._segment.close()
            self._lock.release()

    def stats(self) -> JournalStats:
        return JournalStats(
            durability=self.durability,
            first_seq=self._closed.snapshot_at + 1,
            last_seq=self.last_seq,
            segments=len(self._closed.segments) + 1,
            size_bytes=self._closed.size + self._segment.size,
            quarantined=tuple(path.name for path in self.recovered),
            failure=self.failure,
            is_short=not self._reserve.is_held,
        )


def _files_of(closed: ClosedFiles, segment: OpenSegment) -> Iterator[tuple[Path, FileIdentity | None]]:
    """Every file of a journal, for Presence, with the newest as it was opened."""
    for path in closed.paths():
        yield path, None
    yield segment.path, segment.opened
