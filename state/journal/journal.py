"""Journal: an append-only log of JSON records that survives kill -9 and, at level `commit`, power loss.

The result table, the event log and the agent registry are each built from one. One thread owns it. `append` buffers
a transaction, `commit` makes everything appended durable with one write and at most one fdatasync: many writers,
one commit. See journal_lines (the format), journal_recovery (after a crash), journal_files (segments, snapshots).
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

import msgspec

from ..errors import StorageUnavailable
from . import files
from .fs import AppendFile, Fs, Lock, Place, RealFs
from .lines import Entry, boot_mark, encode, mark
from .presence import Presence
from .reads import RecordReader, Take, Written
from .recovery import Found, cut, find, scan_segment
from .reserve import Reserve
from .sync import Syncing

log = logging.getLogger(__name__)

SEGMENT_BYTES = 64 << 20
RESERVE_BYTES = 1 << 20


class Durability(StrEnum):
    """The level of a journal: how safe a record is when `commit` returns."""

    COMMIT = "commit"  # fdatasync: survives power loss
    OS = "os"  # write: survives kill -9, the kernel has it


class JournalNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """first_seq: the oldest record kept as such, not in a snapshot. failure: why nothing can be written, or None.

    is_short: the disk was found full, and the reserve is spent.
    """

    durability: Durability
    first_seq: int
    last_seq: int
    segments: int
    size_bytes: int
    quarantined: tuple[str, ...]
    failure: str | None
    is_short: bool


class Compaction:
    """A snapshot in the making; the journal goes on meanwhile. at: the last record that it stands for.

    file: its name. offsets: once written, where the line of each record begins in it, and where the last one ends.
    """

    def __init__(self, fs: Fs, directory: Path, at: int, reserve: Reserve) -> None:
        self.at = at
        self.size = 0
        self.file = files.snapshot_path(directory, at).name
        self.offsets = array("Q")
        self._fs = fs
        self._directory = directory
        self._reserve = reserve

    def write(self, records: Callable[[], Iterable[bytes]], breathe: Callable[[], None] = lambda: None) -> None:
        """Write the snapshot; in any thread. records: called for each attempt. Raises StorageUnavailable.

        breathe: called now and then, to let others have their turn; what it raises ends the attempt.
        """
        try:
            self._reserve.lend(lambda: self._attempt(records, breathe))
        except OSError as error:
            raise StorageUnavailable(f"{self._directory} cannot be compacted: {error.strerror or error}") from error

    def _attempt(self, records: Callable[[], Iterable[bytes]], breathe: Callable[[], None]) -> None:
        entries = (Entry(self.at, record) for record in records())
        self.offsets = array("Q")
        self.size = files.write_snapshot(self._fs, self._directory, self.at, entries, breathe, self.offsets)


class Journal:
    """Made by `Journal.open`. last_seq: of the newest committed record. recovered: files that hold a torn tail."""

    def __init__(
        self, directory: Path, durability: Durability, fs: Fs, segment_bytes: int, reserve: Reserve, lock: Lock
    ) -> None:
        self.directory = directory
        self.durability = durability
        self.recovered: tuple[Path, ...] = ()
        self.last_seq = 0
        self._fs = fs
        self._segment_bytes = segment_bytes
        self._reserve = reserve
        self._lock = lock
        self._read: list[Entry] | None = None
        self._pending: list[bytes] = []
        self._pending_seq = 0
        self._only_frees = True
        self._failure: str | None = None
        self._snapshot_at = 0
        self._snapshot_size = 0
        self._sealed: dict[int, int] = {}  # first record of each full segment -> its size
        self._first = 1
        self._file: AppendFile
        self._place: Place
        self._presence = Presence(fs, directory, self._files)
        self._syncing: Syncing | None = None
        self._size = 0
        self._synced_seq = 0
        self._synced_size = 0
        self._marked_seq = -1

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
            journal = cls(directory, durability, fs, segment_bytes, reserve, lock)
            journal._recover(take)
        except BaseException as error:
            if lock is not None:
                lock.release()
            if isinstance(error, OSError):
                raise StorageUnavailable(f"{directory} cannot be opened: {error.strerror or error}") from error
            raise
        _OPEN.add(journal)
        return journal

    def _recover(self, take: Take | None) -> None:
        found = find(self._fs, self.directory, take)
        self.recovered = tuple(self._reserve.lend(lambda: cut(self._fs, self.directory, found)))
        self._fs.sync_directory(self.directory)
        self._read = found.entries if take is None else None
        self._snapshot_at = found.snapshot_at
        if found.snapshot_at:
            self._snapshot_size = self._fs.size(files.snapshot_path(self.directory, found.snapshot_at))
        self.last_seq = self._pending_seq = found.last_seq
        for first in found.kept:
            self._sealed[first] = self._fs.size(files.segment_path(self.directory, first))
        if found.kept:
            self._go_on_with(found)
        else:
            self._begin_segment(found.last_seq + 1)
        if self._first != found.newest:
            files.write_newest(self._fs, self.directory, self._first)
        self._reserve.hold()

    def _go_on_with(self, found: Found) -> None:
        self._first = found.kept[-1]
        self._size = self._sealed.pop(self._first)
        self._file = self._fs.append_to(files.segment_path(self.directory, self._first))
        try:
            self._place = self._file.place()
            # What was read may be in the kernel's memory only. It counts as synced from here on, not before.
            self._file.sync()
            self._synced_seq, self._synced_size = self.last_seq, self._size
            self._marked_seq = found.synced
            if (boot := self._fs.boot()) and boot != found.boot:
                self._try_to_mark(boot_mark(self._synced_seq, boot))
        except OSError:
            self._file.close()
            raise

    def entries(self) -> Iterator[Entry]:
        """Every committed record in order. The first time, what `open` has read; after that, from the disk."""
        read, self._read = self._read, None
        if read is not None:
            read.reverse()
            while read:  # each is let go as it is taken: the reader may keep it, we do not need it twice
                yield read.pop()
            return
        if self._snapshot_at:
            yield from files.read_snapshot(self._fs, self.directory, self._snapshot_at)
        for first in (*self._sealed, self._first):
            yield from scan_segment(self._fs, self.directory, first).entries

    def replay(self, take: Take) -> None:
        """Read each committed record from the disk and hand it to `take`, in order."""
        self._read = None
        if self._snapshot_at:
            for _ in files.read_snapshot(self._fs, self.directory, self._snapshot_at, take):
                pass
        for first in (*self._sealed, self._first):
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
        self._require_sound()
        seq = self._pending_seq
        left = len(records)
        for record in records:
            seq += 1
            left -= 1
            self._pending.append(encode(seq, self._synced_seq, left, record))
        self._pending_seq = seq
        self._only_frees = self._only_frees and frees_space
        return seq

    def commit(self) -> Written | None:
        """Make all appended records durable, to the journal's level. Returns their places, None if there are none.

        Raises StorageUnavailable: then nothing that was appended since the last commit is kept. After a failed
        fdatasync the journal takes nothing more (`failure` says why): close it and open it again.
        """
        if not self._pending:
            return None
        self._require_sound()
        sizes = [len(line) for line in self._pending]
        batch, last, frees = b"".join(self._pending), self._pending_seq, self._only_frees
        self._forget_pending()
        self._require_present()
        if not frees and not self._reserve.hold():
            raise StorageUnavailable(f"{self.directory} takes only deletes until its disk has room again")
        try:
            if frees:
                self._reserve.lend(lambda: self._add(batch))
            else:
                self._add(batch)
            if self.durability is Durability.COMMIT:
                self._sync(last)
        except OSError as error:
            raise StorageUnavailable(f"{self.directory} cannot be written: {error.strerror or error}") from error
        self.last_seq = self._pending_seq = last
        self._read = None
        return Written(files.segment_path(self.directory, self._first).name, self._size - len(batch), sizes)

    def settle(self) -> bool:
        """Mark the synced records, so that later damage to them is told from a torn tail. Returns whether all are."""
        self._take_in_sync()
        if self._failure is not None:
            return True  # nothing more can be done for it
        if not self._pending and self._marked_seq != self._synced_seq and not self._try_to_mark(mark(self._synced_seq)):
            return True  # the next commit says the same
        return self._marked_seq == self._synced_seq == self.last_seq

    def make_durable(self) -> None:
        """Sync everything that is committed, in this thread, and note it. Raises StorageUnavailable."""
        try:
            self._sync(self.last_seq)
        except OSError as error:
            raise StorageUnavailable(f"{self.directory} cannot be synced: {error.strerror or error}") from error
        self.settle()

    def begin_sync(self) -> Syncing | None:
        """A sync of everything that is committed, to be run in any thread; None if there is none to begin.

        `settle` notes what it has synced.
        """
        self._take_in_sync()
        if self._failure is not None or self._syncing is not None or self._synced_seq == self.last_seq:
            return None
        self._syncing = Syncing(self._file, self.last_seq, self._size)
        return self._syncing

    @property
    def failure(self) -> str | None:
        """Why nothing can be written any more, or None."""
        return self._failure

    @property
    def synced_seq(self) -> int:
        """The number of the newest record that is known to be on the disk."""
        return self._synced_seq

    def missing(self) -> str | None:
        """Why a file of it is no longer in its place, as a sentence; None if all are. In any thread."""
        return self._presence.missing()

    def drop_before(self, seq: int) -> None:
        """Drop records before `seq`, as far as they fill whole segments; the unfilled last one stays."""
        firsts = (*self._sealed, self._first)
        keep_from = max((first for first in firsts if first <= seq), default=firsts[0])
        if keep_from == firsts[0]:
            return
        self._require_present()
        compaction = Compaction(self._fs, self.directory, keep_from - 1, self._reserve)
        compaction.write(lambda: ())
        self.finish_compaction(compaction)

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
        self.finish_compaction(compaction)

    def begin_compaction(self) -> Compaction:
        """Commit, and draw the line: what is appended from now on comes after the snapshot.

        The journal must have had a record. Raises StorageUnavailable.
        """
        self.commit()
        self._require_sound()
        self._require_present()  # a new file would be made in whatever folder is there now
        try:
            self._reserve.lend(self._rotate)
        except OSError as error:
            raise StorageUnavailable(f"{self.directory} cannot be compacted: {error.strerror or error}") from error
        return Compaction(self._fs, self.directory, self.last_seq, self._reserve)

    def finish_compaction(self, compaction: Compaction) -> None:
        """The snapshot is on the disk: drop what it stands for."""
        older, self._snapshot_at, self._snapshot_size = self._snapshot_at, compaction.at, compaction.size
        obsolete = [files.segment_path(self.directory, first) for first in self._sealed if first <= compaction.at]
        if 0 < older < compaction.at:
            obsolete.append(files.snapshot_path(self.directory, older))
        self._sealed = {first: size for first, size in self._sealed.items() if first > compaction.at}
        self._read = None
        for path in obsolete:
            try:
                self._fs.unlink(path)
            except OSError as error:
                # It no longer counts, and the next start tries again.
                log.warning("obsolete file not removed file=%s: %s", path, error)
        self._reserve.hold()

    def close(self) -> None:
        """Commit what is pending, note what is synced, unlock."""
        try:
            self._take_in_sync(wait=True)  # or it would sync a descriptor that may be another file's by then
            if self._failure is None:
                self.commit()
                if self._synced_seq < self.last_seq:
                    self._sync(self.last_seq)
                self.settle()
        except OSError as error:
            raise StorageUnavailable(f"{self.directory} cannot be synced: {error.strerror or error}") from error
        finally:
            _OPEN.discard(self)
            self._failure = self._failure or "it is closed"
            self._file.close()
            self._lock.release()

    def numbers(self) -> JournalNumbers:
        return JournalNumbers(
            durability=self.durability,
            first_seq=self._snapshot_at + 1,
            last_seq=self.last_seq,
            segments=len(self._sealed) + 1,
            size_bytes=self._snapshot_size + sum(self._sealed.values()) + self._size,
            quarantined=tuple(path.name for path in self.recovered),
            failure=self._failure,
            is_short=not self._reserve.is_held,
        )

    def _require_sound(self) -> None:
        if self._failure is not None:
            raise StorageUnavailable(f"{self.directory} cannot be written: {self._failure}")

    def _require_present(self) -> None:
        if (problem := self.missing()) is not None:
            raise StorageUnavailable(f"{self.directory} cannot be written: {problem}")

    def _forget_pending(self) -> None:
        self._pending = []
        self._pending_seq = self.last_seq
        self._only_frees = True

    def _add(self, batch: bytes) -> None:
        if self._size + len(batch) > self._segment_bytes:
            self._rotate()
        self._write(batch)

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError:
            self._truncate(self._size)
            raise
        self._size += len(data)

    def _try_to_mark(self, line: bytes) -> bool:
        """False when the disk is full: the note is worth having, not worth failing for."""
        try:
            self._write(line)
        except OSError as error:
            log.warning("mark not written directory=%s: %s", self.directory, error)
            return False
        self._marked_seq = self._synced_seq
        return True

    def _truncate(self, size: int) -> None:
        """Take back what a failed write has left, or take nothing more."""
        try:
            self._file.truncate(size)
        except OSError as error:
            self._failure = f"a failed write could not be taken back: {error.strerror or error}"

    def _sync(self, last: int) -> None:
        """Make everything written durable; `last` is its newest record."""
        self._take_in_sync(wait=True)
        self._require_sound()
        try:
            self._file.sync()
        except OSError as error:
            self._failure = f"fdatasync failed: {error.strerror or error}"
            # The kernel may now call pages clean that never reached the disk, so a second fdatasync would prove
            # nothing. At level `commit` nothing after the last good one was acknowledged: throw those pages away.
            if self.durability is Durability.COMMIT:
                with suppress(OSError):
                    self._file.truncate(self._synced_size)
            raise
        self._synced_seq, self._synced_size = last, self._size

    def _take_in_sync(self, *, wait: bool = False) -> None:
        """Take in a finished sync of another thread. wait: wait for one that still runs."""
        syncing = self._syncing
        if syncing is None or not (wait or syncing.is_done):
            return
        syncing.run()
        self._syncing = None
        if syncing.error is not None:
            self._failure = f"fdatasync failed: {syncing.error.strerror or syncing.error}"
        else:
            self._synced_seq, self._synced_size = syncing.last, syncing.size

    def _files(self) -> Iterator[tuple[Path, Place | None]]:
        """Every file of it, for Presence, with the open descriptor of the newest."""
        if self._snapshot_at:
            yield files.snapshot_path(self.directory, self._snapshot_at), None
        for first in tuple(self._sealed):
            yield files.segment_path(self.directory, first), None
        yield files.segment_path(self.directory, self._first), self._place

    def _rotate(self) -> None:
        """Seal the segment and begin the next, unless this one has no records yet."""
        if self._first > self.last_seq:
            return
        if self._synced_size < self._size:  # be it by a mark: only the last segment may have a torn tail
            self._sync(self.last_seq)
        self._take_in_sync(wait=True)
        self._require_sound()
        full, first, size = self._file, self._first, self._size
        self._begin_segment(self.last_seq + 1)
        files.write_newest(self._fs, self.directory, self._first)
        self._sealed[first] = size
        full.close()

    def _begin_segment(self, first: int) -> None:
        self._file, self._size = files.create_segment(self._fs, self.directory, first)
        self._first, self._place = first, self._file.place()
        self._synced_seq, self._synced_size = first - 1, self._size
        self._marked_seq = first - 1  # its header says so


# One for the process: owners open their journals themselves, and `/health` needs to know them all.
_OPEN: set[Journal] = set()


def missing_below(storage: Path) -> tuple[str, ...]:
    """Why an open journal below a directory is no longer in its place; None if all are. In any thread."""
    # Checked twice: at the first check a journal may just have begun a new file.
    journals = [journal for journal in tuple(_OPEN) if storage in journal.directory.parents and journal.missing()]
    found = (journal.missing() for journal in journals)
    return tuple(sorted(problem for problem in found if problem is not None))
