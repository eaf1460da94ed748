"""Space kept back on the disk, so that a full one can still take the deletes that empty it.

While the reserve is spent, only what frees space is written; it is filled again as soon as the disk has room.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from .fs import Fs

T = TypeVar("T")

_FULL = (errno.ENOSPC, errno.EDQUOT)

log = logging.getLogger(__name__)


class Reserve:
    """One file of `size` bytes that is of no use but to be given up. size 0: there is none, and it counts as held."""

    def __init__(self, fs: Fs, path: Path, size: int) -> None:
        self._fs = fs
        self._path = path
        self._size = size
        self.is_held = size == 0 or self._is_there()

    def _is_there(self) -> bool:
        try:
            return self._fs.size(self._path) >= self._size
        except FileNotFoundError:
            return False

    def hold(self) -> bool:
        """Take the space if it is not held; False when the disk does not have it."""
        if self.is_held:
            return True
        try:
            self._fs.reserve(self._path, self._size)
        except OSError as error:
            with suppress(FileNotFoundError):
                self._fs.unlink(self._path)
            log.warning("no reserve on the disk file=%s bytes=%d: %s", self._path, self._size, error)
            return False
        self.is_held = True
        return True

    def lend(self, attempt: Callable[[], T]) -> T:
        """Run `attempt`; when the disk is full, give up the space and try once more."""
        try:
            return attempt()
        except OSError as error:
            if error.errno not in _FULL or not self.spend():
                raise
        return attempt()

    def spend(self) -> bool:
        """Give the space up; False when there was none to give."""
        if not self.is_held or self._size == 0:
            return False
        self.is_held = False
        self._fs.unlink(self._path)
        log.warning("reserve given up for deletes file=%s bytes=%d", self._path, self._size)
        return True
