"""The few file system calls that durability rests on, behind one interface, so that a power loss is a unit test.

Every call either has happened when it returns or raises OSError. Nothing but `AppendFile.sync` and
`Fs.sync_directory` promises to survive a power loss.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from .durations import SYNCS
from .errors import StorageInUse

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700


class AppendFile(Protocol):
    """A file open for appending."""

    def write(self, data: bytes) -> None:
        """Append all of `data`. After an OSError an unknown part of it is in the file."""
        ...

    def sync(self) -> None:
        """Everything written, and the size that finds it, is on the disk. Never call it again after an OSError."""
        ...

    def truncate(self, size: int) -> None: ...

    def close(self) -> None: ...


class Lock(Protocol):
    def release(self) -> None: ...


class Fs(Protocol):
    def make_directory(self, path: Path) -> None:
        """Make it with its parents, for its owner alone, durably; tighten one that others may enter."""
        ...

    def lock(self, path: Path) -> Lock:
        """Raises StorageInUse, naming the holder's pid."""
        ...

    def names(self, directory: Path) -> list[str]:
        """Names of the files in it, sorted."""
        ...

    def size(self, path: Path) -> int: ...

    def reader(self, path: Path) -> BinaryIO: ...

    def read_at(self, path: Path, offset: int, size: int) -> bytes:
        """The `size` bytes of the file from `offset` on; fewer where it ends before."""
        ...

    def create(self, path: Path) -> AppendFile:
        """A new, empty file; FileExistsError if there is one."""
        ...

    def append_to(self, path: Path) -> AppendFile: ...

    def reserve(self, path: Path, size: int) -> None:
        """A file that holds `size` bytes of the disk; OSError when they are not there."""
        ...

    def rename(self, old: Path, new: Path) -> None: ...

    def unlink(self, path: Path) -> None: ...

    def sync_directory(self, path: Path) -> None:
        """Files made, renamed and unlinked in it before stay so."""
        ...


class _OsFile:
    def __init__(self, path: Path, flags: int) -> None:
        self._journal = path.parent.name
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | flags, PRIVATE_FILE)

    def write(self, data: bytes) -> None:
        written = os.write(self._descriptor, data)
        while written < len(data):  # a full disk takes a part before it says no
            written += os.write(self._descriptor, memoryview(data)[written:])

    def sync(self) -> None:
        started = time.perf_counter()
        if sys.platform == "darwin":
            fcntl.fcntl(self._descriptor, fcntl.F_FULLFSYNC)  # fsync there stops at the drive's own cache
        else:
            os.fdatasync(self._descriptor)
        SYNCS.add(self._journal, time.perf_counter() - started)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        os.close(self._descriptor)


class PidLock:
    """An flock on a file that holds the owner's pid. The kernel lets go of it when the owner dies, however it dies."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            if not isinstance(error, BlockingIOError):
                raise
            by = f"process {holder}" if holder else "another process"
            raise StorageInUse(f"{path.parent} is in use by {by}", pid=holder) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """The file stays: removing it would let two processes lock two files of the same name."""
        # To close it is not enough: a child that is just being started still holds a copy.
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)


class RealFs:
    """The operating system's."""

    def make_directory(self, path: Path) -> None:
        self._make_directories(path)
        if not is_private(path):
            path.chmod(PRIVATE_DIRECTORY)

    def _make_directories(self, path: Path) -> None:
        if not path.is_dir():
            self._make_directories(path.parent)
            with suppress(FileExistsError):  # another process was quicker
                path.mkdir(PRIVATE_DIRECTORY)
            self.sync_directory(path.parent)

    def lock(self, path: Path) -> PidLock:
        return PidLock(path)

    def names(self, directory: Path) -> list[str]:
        return sorted(entry.name for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False))

    def size(self, path: Path) -> int:
        return path.stat().st_size

    def reader(self, path: Path) -> BinaryIO:
        return path.open("rb", buffering=1 << 20)

    def read_at(self, path: Path, offset: int, size: int) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(descriptor, size, offset)
            while len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
                data += more
        finally:
            os.close(descriptor)
        return data

    def create(self, path: Path) -> AppendFile:
        return _OsFile(path, os.O_CREAT | os.O_EXCL)

    def append_to(self, path: Path) -> AppendFile:
        return _OsFile(path, 0)

    def reserve(self, path: Path, size: int) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            if sys.platform == "darwin":
                os.write(descriptor, bytes(size))
            else:
                os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def sync_directory(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_private(path: Path) -> bool:
    """Whether nobody but its owner may read, write or enter it."""
    return path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) == 0
