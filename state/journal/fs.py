"""The few file system calls that durability rests on, behind one interface, so that a power loss is a unit test.

Every call either has happened when it returns or raises OSError. Nothing but `AppendFile.sync` and
`Fs.sync_directory` promises to survive a power loss.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from ..durations import SYNCS
from ..errors import StorageInUse

# Network file systems, which can lock only files that are open for writing.
_CANNOT_LOCK_FOLDERS = (errno.EBADF, errno.ENOLCK, errno.EINVAL, errno.EOPNOTSUPP)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

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

    def identity(self) -> FileIdentity:
        """Which file is open, whatever its path leads to now."""
        ...

    def close(self) -> None: ...


class Lock(Protocol):
    """A lock that this process holds."""

    def release(self) -> None: ...


class FileIdentity(msgspec.Struct, frozen=True):
    """Which file it is, and in which state.

    changed_at: when it was last written; of a directory: when its names changed.
    """

    device: int
    inode: int
    changed_at: int

    def is_same_file(self, other: FileIdentity) -> bool:
        return self.inode == other.inode and self.device == other.device


class Fs(Protocol):
    """A file system, as far as a journal needs one."""

    def make_directory(self, path: Path) -> None:
        """Make it with its parents, for its owner alone, durably; tighten one that others may enter."""
        ...

    def lock(self, path: Path) -> Lock:
        """Lock the folder of this file; the file will hold our pid. Raises StorageInUse, naming the holder's pid."""
        ...

    def names(self, directory: Path) -> list[str]:
        """Names of the files in it, sorted."""
        ...

    def size(self, path: Path) -> int: ...

    def identity(self, path: Path) -> FileIdentity | None:
        """The file that the path leads to now; None if nothing is there."""
        ...

    def boot(self) -> str:
        """Names the time from one start of the machine to its end; empty where that cannot be told."""
        ...

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

    def identity(self) -> FileIdentity:
        return _identity(os.fstat(self._descriptor))

    def close(self) -> None:
        os.close(self._descriptor)


class PidLock:
    """Locks a folder for this process. `path` is a file in it that holds our pid, for the error of a second sidecar.

    The folder itself is locked, and the file as well, for versions that lock nothing else: people delete files named
    LOCK, and then two processes would lock two files of the same name. The kernel lets go of both locks when the
    process dies, however it dies.
    """

    def __init__(self, path: Path) -> None:
        self._descriptors: list[int] = []
        try:
            # First, and only for reading: a process that is refused must not have changed anything.
            if (folder := _lock_folder(path)) is not None:
                self._descriptors.append(folder)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
            self._descriptors.append(descriptor)
            _flock(descriptor, path)
        except BaseException:
            self.release()
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """The file stays: removing it would let two processes lock two files of the same name."""
        while self._descriptors:
            descriptor = self._descriptors.pop()
            # To close it is not enough: a child that is just being started still holds a copy.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _lock_folder(path: Path) -> int | None:
    """None where the file system cannot lock a folder."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _flock(descriptor, path)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _CANNOT_LOCK_FOLDERS:
            return None
        raise
    except StorageInUse:
        os.close(descriptor)
        raise
    return descriptor


def _flock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _pid_in(path) or _holder_of(descriptor)
        by = f"process {holder}" if holder else "another process"
        raise StorageInUse(f"{path.parent} is in use by {by}", pid=holder) from None


def open_plain(path: Path) -> int:
    """Open a file for reading that someone else may have put there. Raises OSError for anything but a file.

    No link is followed, and no pipe is waited for.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return descriptor


def lock_holder(path: Path) -> str | None:
    """The pid of the process that holds the PidLock of this path, "" if it cannot be told; None if nobody does.

    Changes nothing. Raises OSError where the folder cannot be read.
    """
    for place in (path.parent, path):
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # it may be a pipe
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _pid_in(path) or _holder_of(descriptor)
        except OSError as error:
            if error.errno not in _CANNOT_LOCK_FOLDERS:
                raise
        finally:
            os.close(descriptor)  # which also unlocks
    return None


def _pid_in(path: Path) -> str:
    """The pid that the holder wrote into its file, if that still exists."""
    with suppress(OSError, ValueError), os.fdopen(open_plain(path), "rb") as file:
        return str(int(file.read(32)))
    return ""


def _holder_of(descriptor: int) -> str:
    """The pid that the kernel names for a lock on the file, or "". Source: proc_locks(5)."""
    inode = os.fstat(descriptor).st_ino
    with suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if "FLOCK" in fields and fields[-3].rpartition(":")[2] == str(inode) and fields[-4] != "-1":
                return fields[-4]
    return ""


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

    def identity(self, path: Path) -> FileIdentity | None:
        try:
            return _identity(os.stat(path))  # noqa: PTH116  # before every answer: Path.stat costs half as much again
        except (FileNotFoundError, NotADirectoryError):
            return None

    def boot(self) -> str:
        return _boot()

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


def _identity(found: os.stat_result) -> FileIdentity:
    return FileIdentity(found.st_dev, found.st_ino, found.st_mtime_ns)


@cache
def _boot() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
