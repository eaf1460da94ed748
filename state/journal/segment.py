"""OpenSegment: the segment that a journal writes to, and how much of it is known to be on the disk."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path

from ..errors import StorageUnavailable
from . import files
from .fs import AppendFile, Fs
from .lines import boot_mark, mark

log = logging.getLogger(__name__)


class SegmentSync:
    """One sync of a segment, in any thread. last: the newest record that it makes durable. size: bytes up to there.

    error: why it failed, once it is done.
    """

    def __init__(self, file: AppendFile, last: int, size: int) -> None:
        self.file = file
        self.last = last
        self.size = size
        self.is_done = False
        self.error: OSError | None = None
        self._lock = threading.Lock()

    def run(self) -> None:
        """Sync once. A second caller waits for the first."""
        with self._lock:
            if self.is_done:
                return
            try:
                self.file.sync()
            except OSError as error:
                self.error = error
            self.is_done = True


class OpenSegment:
    """The newest segment of a journal. One thread owns it.

    first: the number of its first record. size: in bytes. synced_seq: the newest record that is known to be on the
    disk; marked_seq: the newest of which a line says so. failure: why nothing can be written any more, or None.
    opened: the file that was opened, whatever its path leads to now.
    """

    def __init__(
        self, file: AppendFile, path: Path, first: int, *, size: int, synced_seq: int, is_cut_after_failure: bool
    ) -> None:
        self.path = path
        self.name = path.name
        self.first = first
        self.size = size
        self.synced_seq = synced_seq
        self.marked_seq = synced_seq
        self.failure: str | None = None
        self.opened = file.identity()
        self._file = file
        self._synced_size = size
        self._is_cut_after_failure = is_cut_after_failure
        self._sync: SegmentSync | None = None

    @classmethod
    def create(cls, fs: Fs, directory: Path, first: int, *, is_cut_after_failure: bool) -> OpenSegment:
        """A new segment, durable. All records before `first` must be on the disk. Raises OSError.

        is_cut_after_failure: what was written since the last sync is thrown away when a sync fails.
        """
        file, size = files.create_segment(fs, directory, first)
        path = files.segment_path(directory, first)
        return cls(file, path, first, size=size, synced_seq=first - 1, is_cut_after_failure=is_cut_after_failure)

    @classmethod
    def reopen(
        cls,
        fs: Fs,
        directory: Path,
        first: int,
        *,
        last_seq: int,
        marked_seq: int,
        boot: str,
        is_cut_after_failure: bool,
    ) -> OpenSegment:
        """Go on with a segment that was read up to `last_seq`. Raises OSError.

        marked_seq: the newest record that its lines say was synced. boot: in which its last lines were written.
        """
        path = files.segment_path(directory, first)
        file = fs.append_to(path)
        try:
            # What was read may be in the kernel's memory only. It counts as synced from here on, not before.
            file.sync()
            segment = cls(
                file,
                path,
                first,
                size=fs.size(path),
                synced_seq=last_seq,
                is_cut_after_failure=is_cut_after_failure,
            )
            segment.marked_seq = marked_seq
            if (now := fs.boot()) and now != boot:
                segment._try_to_mark(boot_mark(last_seq, now))
        except OSError:
            file.close()
            raise
        return segment

    def require_sound(self) -> None:
        """Raises StorageUnavailable when nothing can be written any more."""
        if self.failure is not None:
            raise StorageUnavailable(f"{self.path.parent} cannot be written: {self.failure}")

    def write(self, data: bytes) -> None:
        """Append bytes, all or none. Raises OSError."""
        try:
            self._file.write(data)
        except OSError:
            self._take_back()
            raise
        self.size += len(data)

    def _take_back(self) -> None:
        """Cut off what a failed write has left, or take nothing more."""
        try:
            self._file.truncate(self.size)
        except OSError as error:
            self.failure = f"a failed write could not be taken back: {error.strerror or error}"

    def sync(self, last: int) -> None:
        """Make everything written durable; `last` is its newest record. Raises OSError, StorageUnavailable."""
        self.take_in_sync(wait=True)
        self.require_sound()
        try:
            self._file.sync()
        except OSError as error:
            self.failure = f"fdatasync failed: {error.strerror or error}"
            # The kernel may now call pages clean that never reached the disk, so a second fdatasync would prove
            # nothing. At level `commit` nothing after the last good one was acknowledged: throw those pages away.
            if self._is_cut_after_failure:
                with suppress(OSError):
                    self._file.truncate(self._synced_size)
            raise
        self.synced_seq, self._synced_size = last, self.size

    def begin_sync(self, last: int) -> SegmentSync | None:
        """A sync up to record `last`, to be run in any thread; None if there is nothing to sync, or one runs."""
        self.take_in_sync()
        if self.failure is not None or self._sync is not None or self.synced_seq == last:
            return None
        self._sync = SegmentSync(self._file, last, self.size)
        return self._sync

    def take_in_sync(self, *, wait: bool = False) -> None:
        """Note what a sync of another thread has made durable. wait: wait for one that still runs."""
        sync = self._sync
        if sync is None or not (wait or sync.is_done):
            return
        sync.run()
        self._sync = None
        if sync.error is not None:
            self.failure = f"fdatasync failed: {sync.error.strerror or sync.error}"
        else:
            self.synced_seq, self._synced_size = sync.last, sync.size

    def mark(self) -> bool:
        """Write down what is synced, if no line says so yet. False when the disk is full: the next commit says it."""
        return self.marked_seq == self.synced_seq or self._try_to_mark(mark(self.synced_seq))

    def _try_to_mark(self, line: bytes) -> bool:
        """The note is worth having, not worth failing for."""
        try:
            self.write(line)
        except OSError as error:
            log.warning("mark not written directory=%s: %s", self.path.parent, error)
            return False
        self.marked_seq = self.synced_seq
        return True

    def seal(self, last: int) -> None:
        """Make all of it durable, be it only a mark: nothing but the last segment may have a torn tail."""
        if self._synced_size < self.size:
            self.sync(last)
        self.take_in_sync(wait=True)
        self.require_sound()

    def close(self) -> None:
        self.failure = self.failure or "it is closed"
        self._file.close()
