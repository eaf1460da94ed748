"""Opening files of a project without ever leaving it: every path component is opened on its own, never a link.

A plain O_NOFOLLOW guards only the last component; a directory swapped for a symlink would lead outside. FIFOs and
devices would block an open, other file systems may be anything; only regular files of the root's device are read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ_NO_LINK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_KEEP_OPEN = 64  # directories of one walk
_KIND = 0o170000  # the bits of a mode that say what a file is
_NO_NAMES = ("", ".", "..")
_NO_PATH = "not a path inside the project"


class Stamp(NamedTuple):
    """A stamp that tells one state of a file from another without reading it."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class NotReadable(Exception):
    """The file is not one we read; the text is the reason, a word or two: `missing`, `symlink`, `not a file`, …"""


class Root:
    """A folder, held open. Not for several threads at once. Close it, or use it as a context manager.

    follow: whether the folder itself may be a link.
    """

    def __init__(self, path: Path, *, follow: bool = True) -> None:
        self._fd = os.open(path, _DIRECTORY & ~os.O_NOFOLLOW if follow else _DIRECTORY)
        self._device = os.fstat(self._fd).st_dev
        self._open: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.forget_directories()
        os.close(self._fd)

    def forget_directories(self) -> None:
        """Open directories again from here on; they may have been moved since."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def stamp(self, path: str) -> Stamp:
        """The state of a regular file. Raises NotReadable."""
        folder, name = _split(path)
        try:
            found = os.stat(name, dir_fd=self._directory(folder), follow_symlinks=False)
        except OSError as error:
            raise NotReadable(_why(error)) from error
        return self._checked(found)

    def states(self, paths: Iterable[str]) -> Iterator[Stamp | str]:
        """The state of each file, or why it is not one we read. Quickest when files of one folder follow each other."""
        at, fd, why = None, self._fd, ""
        for path in paths:
            folder, _, name = path.rpartition("/")
            if folder != at:
                at, why = folder, ""
                try:
                    fd = self._directory(folder)
                except OSError as error:
                    why = _why(error)
                except NotReadable as error:
                    why = str(error)
            if why or name in _NO_NAMES:
                yield why or _NO_PATH
                continue
            try:
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError as error:
                yield _why(error)
                continue
            if found.st_mode & _KIND == stat.S_IFREG and found.st_dev == self._device:
                yield Stamp(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
                continue
            try:
                yield self._checked(found)
            except NotReadable as error:
                yield str(error)

    def read(self, path: str, max_bytes: int) -> tuple[bytes, Stamp]:
        """Up to `max_bytes` of a regular file and its state when it was read. Raises NotReadable."""
        fd, stamp = self._open_file(path)
        try:
            wanted = min(stamp.size, max_bytes)
            data = os.read(fd, wanted) if wanted else b""
            while len(data) < wanted and (more := os.read(fd, wanted - len(data))):
                data += more
        except OSError as error:
            raise NotReadable(_why(error)) from error
        finally:
            os.close(fd)
        return data, stamp

    def opened(self, path: str) -> tuple[BinaryIO, Stamp]:
        """A regular file to read from, and its state. Raises NotReadable."""
        fd, stamp = self._open_file(path)
        return os.fdopen(fd, "rb"), stamp

    def names(self, folder: str) -> list[str]:
        """The names in a folder, in no order. Raises NotReadable, also where one of them is a link."""
        try:
            with os.scandir(self._directory(folder)) as entries:
                return [_not_a_link(entry).name for entry in entries]
        except OSError as error:
            raise NotReadable(_why(error)) from error

    def folders(self, folder: str) -> list[tuple[str, Stamp]]:
        """The folders in a folder with their states, which change when a name in them does.

        Raises NotReadable, also where the folder holds a link.
        """
        try:
            with os.scandir(self._directory(folder)) as entries:
                return [
                    (entry.name, stamp_of(entry.stat(follow_symlinks=False)))
                    for entry in entries
                    if _not_a_link(entry).is_dir(follow_symlinks=False)
                ]
        except OSError as error:
            raise NotReadable(_why(error)) from error

    def _open_file(self, path: str) -> tuple[int, Stamp]:
        folder, name = _split(path)
        try:
            fd = os.open(name, READ_NO_LINK, dir_fd=self._directory(folder))
        except OSError as error:
            raise NotReadable(_why(error)) from error
        try:
            return fd, self._checked(os.fstat(fd))
        except NotReadable:
            os.close(fd)
            raise

    def _checked(self, found: os.stat_result) -> Stamp:
        if stat.S_ISLNK(found.st_mode):
            raise NotReadable("symlink")
        if not stat.S_ISREG(found.st_mode):
            raise NotReadable("not a regular file")
        if found.st_dev != self._device:
            raise NotReadable("on another file system")
        return stamp_of(found)

    def _directory(self, folder: str) -> int:
        """An open descriptor of a folder, reached component by component."""
        if not folder:
            return self._fd
        if (fd := self._open.get(folder)) is not None:
            self._open.move_to_end(folder)
            return fd
        # In a loop: an index can name a folder in two thousand others, more than calls may lie in calls.
        missing = []
        while folder and folder not in self._open:
            missing.append(_split(folder))
            folder = missing[-1][0]
        fd = self._open[folder] if folder else self._fd
        for parent, name in reversed(missing):
            fd = os.open(name, _DIRECTORY, dir_fd=fd)
            self._open[f"{parent}/{name}" if parent else name] = fd
            if len(self._open) > _KEEP_OPEN:
                _, oldest = self._open.popitem(last=False)
                os.close(oldest)
        return fd


def stamp_of(found: os.stat_result) -> Stamp:
    """The state of a file, as the system tells it."""
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _not_a_link(entry: os.DirEntry[str]) -> os.DirEntry[str]:
    if entry.is_symlink():
        raise NotReadable("symlink")
    return entry


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    if name in _NO_NAMES or "\0" in path:
        raise NotReadable(_NO_PATH)
    return folder, name


def _why(error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return "missing"
        case errno.ELOOP | errno.ENOTDIR:
            return "symlink"
        case errno.ENXIO:
            return "not a regular file"
        case _:
            return f"cannot be read: {error.strerror}"
