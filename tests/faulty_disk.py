"""A real directory on a disk that is small, or whose fdatasync fails: the journal's file system with faults in it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from sidecar.state.journal.fs import AppendFile, FileIdentity, RealFs


class FaultyFile:
    def __init__(self, fs: FaultyFs, path: Path, file: AppendFile) -> None:
        self._fs = fs
        self._path = path
        self._file = file

    def write(self, data: bytes) -> None:
        room = self._fs.room()
        if room < len(data):
            self._file.write(data[:room])  # a full disk takes what it can
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._file.write(data)

    def sync(self) -> None:
        self._fs.synced += 1
        if self._fs.sync_fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self._path))
        self._file.sync()

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def identity(self) -> FileIdentity:
        return self._file.identity()

    def close(self) -> None:
        self._file.close()


class FaultyFs(RealFs):
    """capacity: bytes that all files of the directory may have together; it may be changed at any time."""

    def __init__(self, directory: Path, capacity: int = 1 << 40) -> None:
        self._directory = directory
        self.capacity = capacity
        self.sync_fails = False
        self.synced = 0

    def room(self) -> int:
        return self.capacity - sum(path.stat().st_size for path in self._directory.iterdir())

    def create(self, path: Path) -> AppendFile:
        if self.room() <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return FaultyFile(self, path, super().create(path))

    def append_to(self, path: Path) -> AppendFile:
        return FaultyFile(self, path, super().append_to(path))

    def reserve(self, path: Path, size: int) -> None:
        if self.room() < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        path.write_bytes(bytes(size))
        path.chmod(0o600)
