"""Presence: checks before every answer that a journal's files are still in their places.

Writes to a file that was removed, or whose folder was moved away, are lost without an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from .fs import Fs, Place

# The times of a directory are coarse. A change so soon after the last look might bear the same time.
_TIMES_TELL_AFTER_NS = 100_000_000


class Presence:
    """Checks one journal. files: its files, each with its open descriptor, or None for a closed file."""

    def __init__(self, fs: Fs, directory: Path, files: Callable[[], Iterable[tuple[Path, Place | None]]]) -> None:
        self._fs = fs
        self._directory = directory
        self._files = files
        self._seen: Place | None = None

    def missing(self) -> str | None:
        """Why a file is no longer in place, as a sentence; None if all are. One stat, while no name changes."""
        found = self._fs.place(self._directory)
        if found is not None and found == self._seen:
            return None
        problem = self._look(found)
        is_settled = found is not None and time.time_ns() - found.changed_at > _TIMES_TELL_AFTER_NS
        self._seen = found if problem is None and is_settled else None
        return problem

    def _look(self, found: Place | None) -> str | None:
        if found is None:
            return f"folder {self._directory} was removed while it was in use"
        for path, opened in self._files():
            place = self._fs.place(path)
            if place is None or (opened is not None and not place.is_same_file(opened)):
                return f"{path} was {'removed' if place is None else 'replaced'} while it was in use"
        return None
