"""Compaction: replaces the beginning of a journal by a snapshot, while the journal goes on."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import StorageUnavailable
from . import files
from .closed_files import ClosedFiles
from .fs import Fs
from .lines import Entry
from .reserve import Reserve


class Compaction:
    """A snapshot that is being written. at: the last record that it replaces.

    file: its name. offsets: once written, where the line of each record begins in it, and where the last one ends.
    """

    def __init__(self, fs: Fs, directory: Path, at: int, closed: ClosedFiles, reserve: Reserve) -> None:
        self.at = at
        self.file = files.snapshot_path(directory, at).name
        self.offsets = array("Q")
        self._size = 0
        self._fs = fs
        self._directory = directory
        self._closed = closed
        self._reserve = reserve

    def write(self, records: Callable[[], Iterable[bytes]], breathe: Callable[[], None] = lambda: None) -> None:
        """Write the snapshot; in any thread. records: called once for each attempt. Raises StorageUnavailable.

        breathe: called again and again, to let other threads run; an exception from it ends the attempt.
        """
        try:
            self._reserve.lend(lambda: self._attempt(records, breathe))
        except OSError as error:
            raise StorageUnavailable(f"{self._directory} cannot be compacted: {error.strerror or error}") from error

    def _attempt(self, records: Callable[[], Iterable[bytes]], breathe: Callable[[], None]) -> None:
        entries = (Entry(self.at, record) for record in records())
        self.offsets = array("Q")
        self._size = files.write_snapshot(self._fs, self._directory, self.at, entries, breathe, self.offsets)

    def finish(self) -> None:
        """Drop what the snapshot stands for, which is written. In the journal's thread."""
        self._closed.replace_by_snapshot(self.at, self._size)
        self._reserve.hold()
