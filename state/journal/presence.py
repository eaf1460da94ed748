"""Presence: checks before every answer that a journal's files are still in their places.

Writes to a file that was removed, or whose folder was moved away, are lost without an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import StorageUnavailable
from .fs import FileIdentity, Fs

# The times of a directory are coarse. A change so soon after the last look might bear the same time.
_TIMES_TELL_AFTER_NS = 100_000_000


# The journal's files, each with the identity of the file that is open, or None for a closed one.
OpenFiles = Callable[[], Iterable[tuple[Path, FileIdentity | None]]]


class Presence:
    """Checks the files of one journal, from its making to `end`. In any thread."""

    def __init__(self, fs: Fs, directory: Path, files: OpenFiles) -> None:
        self.directory = directory
        self._fs = fs
        self._files = files
        self._seen: FileIdentity | None = None
        _WATCHED.add(self)

    def end(self) -> None:
        """The journal is closed: its files may go."""
        _WATCHED.discard(self)

    def missing(self) -> str | None:
        """Why a file is no longer in place, as a sentence; None if all are. One stat, while no name changes."""
        found = self._fs.identity(self.directory)
        if found is not None and found == self._seen:
            return None
        problem = self._look(found)
        is_settled = found is not None and time.time_ns() - found.changed_at > _TIMES_TELL_AFTER_NS
        self._seen = found if problem is None and is_settled else None
        return problem

    def require(self) -> None:
        """Raises StorageUnavailable when a file is missing."""
        if (problem := self.missing()) is not None:
            raise StorageUnavailable(f"{self.directory} cannot be written: {problem}")

    def _look(self, found: FileIdentity | None) -> str | None:
        if found is None:
            return f"folder {self.directory} was removed while it was in use"
        for path, opened in self._files():
            place = self._fs.identity(path)
            if place is None or (opened is not None and not place.is_same_file(opened)):
                return f"{path} was {'removed' if place is None else 'replaced'} while it was in use"
        return None


# One for the process: owners open their journals themselves, and `/health` needs to know them all.
_WATCHED: set[Presence] = set()


def missing_below(storage: Path) -> tuple[str, ...]:
    """Why an open journal below a directory is no longer in its place; none if all are. In any thread."""
    # Checked twice: at the first check a journal may just have begun a new file.
    suspects = [each for each in tuple(_WATCHED) if storage in each.directory.parents and each.missing()]
    found = (suspect.missing() for suspect in suspects)
    return tuple(sorted(problem for problem in found if problem is not None))
