"""ClosedFiles: the files of a journal that nobody writes to any more, a snapshot and the full segments after it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from . import files
from .fs import Fs

log = logging.getLogger(__name__)


class ClosedFiles:
    """snapshot_at: the newest record that the snapshot stands for; 0 without one."""

    def __init__(self, fs: Fs, directory: Path, snapshot_at: int, segments: list[int]) -> None:
        self._fs = fs
        self._directory = directory
        self.snapshot_at = snapshot_at
        self._snapshot_size = fs.size(files.snapshot_path(directory, snapshot_at)) if snapshot_at else 0
        # First record of each full segment -> its size.
        self._segments = {first: fs.size(files.segment_path(directory, first)) for first in segments}

    @property
    def segments(self) -> tuple[int, ...]:
        """First records of the full segments, ascending."""
        return tuple(self._segments)

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return self._snapshot_size + sum(self._segments.values())

    def paths(self) -> Iterator[Path]:
        if self.snapshot_at:
            yield files.snapshot_path(self._directory, self.snapshot_at)
        for first in self.segments:
            yield files.segment_path(self._directory, first)

    def add(self, first: int, size: int) -> None:
        """Add a segment that is full and synced."""
        self._segments[first] = size

    def replace_by_snapshot(self, at: int, size: int) -> None:
        """Drop what a snapshot stands for, which is on the disk."""
        older, self.snapshot_at, self._snapshot_size = self.snapshot_at, at, size
        obsolete = [files.segment_path(self._directory, first) for first in self._segments if first <= at]
        if 0 < older < at:
            obsolete.append(files.snapshot_path(self._directory, older))
        self._segments = {first: size for first, size in self._segments.items() if first > at}
        for path in obsolete:
            try:
                self._fs.unlink(path)
            except OSError as error:
                # It no longer counts, and the next start tries again.
                log.warning("obsolete file not removed file=%s: %s", path, error)
