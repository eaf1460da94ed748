"""A simulated disk for the journal, on which power fails.

Only what was synced is certain. Each 512-byte sector written since may be there or not, sizes and directory entries
come back as some prefix of what was done to them, and power also fails inside a write.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from sidecar.state.journal.fs import AppendFile, FileIdentity

SECTOR = 512
HOME = Path("/disk/results")
NEVER = 1 << 60


class PowerLoss(BaseException):
    """Not an Exception: no handler of the code under test may take it for an error of the disk."""


@dataclass
class Inode:
    """data: what a running process sees. synced: what is certain. pending: done since, oldest first."""

    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # (offset, data), or (size, None)

    def after_power_loss(self, rng: random.Random) -> Inode:
        sizes = [len(self.synced)]
        for offset, data in self.pending:
            sizes.append(offset if data is None else max(sizes[-1], offset + len(data)))
        kept = rng.randrange(len(sizes))  # sizes come back as a prefix, as a journaling file system has them
        content = bytearray(self.synced)
        hole = rng.choice((b"\0", b"\0", b"~"))  # never written, or what another file had there
        for done, (offset, data) in enumerate(self.pending, 1):
            if data is None:
                if done <= kept:
                    del content[offset:]
                continue
            if len(content) < offset + len(data):
                content += hole * (offset + len(data) - len(content))
            start = offset
            while start < offset + len(data):
                end = min(offset + len(data), (start // SECTOR + 1) * SECTOR)
                if rng.random() < 0.5:
                    content[start:end] = data[start - offset : end - offset]
                start = end
        del content[sizes[kept] :]
        content += hole * (sizes[kept] - len(content))
        return Inode(content, bytes(content))


class SimulatedFile:
    def __init__(self, fs: SimulatedFs, inode: Inode) -> None:
        self._fs = fs
        self._inode = inode

    def write(self, data: bytes) -> None:
        self._fs.require_power()
        offset = len(self._inode.data)
        if self._fs.is_last_call():
            data = data[: self._fs.rng.randrange(len(data) + 1)]
        self._inode.data += data
        self._inode.pending.append((offset, data))
        self._fs.tick()

    def sync(self) -> None:
        self._fs.tick()
        if self._fs.syncs:
            self._inode.synced = bytes(self._inode.data)
            self._inode.pending.clear()

    def truncate(self, size: int) -> None:
        self._fs.require_power()
        del self._inode.data[size:]
        self._inode.pending.append((size, None))
        self._fs.tick()

    def identity(self) -> FileIdentity:
        return place_of(self._inode)

    def close(self) -> None:
        pass


def place_of(inode: Inode) -> FileIdentity:
    return FileIdentity(0, id(inode), 0)


class Unlocked:
    def release(self) -> None:
        pass


class SimulatedFs:
    """One directory. fails_at: the call at which power fails. syncs False: a disk that lies about syncing.

    boot: of the machine; "" for one that does not tell.
    """

    def __init__(
        self,
        rng: random.Random,
        files: dict[str, Inode] | None = None,
        *,
        fails_at: int = NEVER,
        syncs: bool = True,
        boot: str = "",
    ) -> None:
        self._boot = boot
        self.rng = rng
        self.syncs = syncs
        self._files = dict(files or {})
        self._durable = dict(self._files)
        self._entries: list[dict[str, Inode]] = []  # the directory after each call since it was last synced
        self._calls_left = fails_at

    def contents(self) -> dict[str, bytes]:
        """What a process sees."""
        return {name: bytes(inode.data) for name, inode in self._files.items()}

    def is_last_call(self) -> bool:
        return self._calls_left == 1

    def tick(self) -> None:
        self._calls_left -= 1
        self.require_power()

    def require_power(self) -> None:
        if self._calls_left <= 0:
            raise PowerLoss

    def after_power_loss(self) -> dict[str, Inode]:
        entries = self.rng.choice([self._durable, *self._entries])
        return {name: inode.after_power_loss(self.rng) for name, inode in entries.items()}

    def after_kill(self) -> dict[str, Inode]:
        """What the machine, which runs on, still knows."""
        return {name: Inode(bytearray(inode.data), bytes(inode.data)) for name, inode in self._files.items()}

    def _changed(self) -> None:
        self._entries.append(dict(self._files))
        self.tick()

    def make_directory(self, path: Path) -> None:
        assert path == HOME

    def lock(self, path: Path) -> Unlocked:
        assert path.parent == HOME
        return Unlocked()

    def names(self, directory: Path) -> list[str]:
        assert directory == HOME
        return sorted(self._files)

    def size(self, path: Path) -> int:
        if path.name not in self._files:
            raise FileNotFoundError(path)
        return len(self._files[path.name].data)

    def identity(self, path: Path) -> FileIdentity | None:
        if path == HOME:
            return FileIdentity(0, 0, len(self._entries))
        return place_of(self._files[path.name]) if path.name in self._files else None

    def boot(self) -> str:
        return self._boot

    def reader(self, path: Path) -> BinaryIO:
        return io.BytesIO(bytes(self._files[path.name].data))

    def read_at(self, path: Path, offset: int, size: int) -> bytes:
        return bytes(self._files[path.name].data[offset : offset + size])

    def create(self, path: Path) -> AppendFile:
        self.require_power()
        if path.name in self._files:
            raise FileExistsError(path)
        self._files[path.name] = Inode()
        self._changed()
        return SimulatedFile(self, self._files[path.name])

    def append_to(self, path: Path) -> AppendFile:
        return SimulatedFile(self, self._files[path.name])

    def reserve(self, path: Path, size: int) -> None:
        assert (path.parent, size > 0) == (HOME, True)

    def rename(self, old: Path, new: Path) -> None:
        self.require_power()
        self._files[new.name] = self._files.pop(old.name)
        self._changed()

    def unlink(self, path: Path) -> None:
        self.require_power()
        del self._files[path.name]
        self._changed()

    def sync_directory(self, path: Path) -> None:
        assert path == HOME
        self.tick()
        if self.syncs:
            self._durable = dict(self._files)
            self._entries.clear()


def disk_with(contents: dict[str, bytes], *, boot: str = "") -> SimulatedFs:
    """A disk that holds these files, all of them synced."""
    files = {name: Inode(bytearray(data), data) for name, data in contents.items()}
    return SimulatedFs(random.Random(0), files, boot=boot)
