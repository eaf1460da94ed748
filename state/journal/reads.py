"""Reads single records of a journal again, by their places on the disk, and checks every bit of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from ..errors import StorageUnreadable
from .fs import Fs
from .lines import parse

Read = Callable[[str, int, int], bytes]  # file, offset and size of a line; its record


class Take(Protocol):
    """Gets one committed record: the name of its file, offset and size of its line in bytes, and the record."""

    def __call__(self, file: str, offset: int, size: int, record: bytes, /) -> None: ...


class Written(msgspec.Struct, frozen=True):
    """The places of a commit's records: lines of these sizes, one after the other from `offset` of `file` on."""

    file: str
    offset: int
    sizes: list[int]


class RecordReader:
    """Reads records of one journal by the places of their lines. For any thread."""

    def __init__(self, directory: Path, fs: Fs) -> None:
        self._directory = directory
        self._fs = fs
        self._paths: dict[str, Path] = {}  # made once: that takes longer than the reading

    def read(self, file: str, offset: int, size: int) -> bytes:
        """One record. The file is opened for it, so that a file that is gone is noticed. Raises StorageUnreadable."""
        try:
            line = self._fs.read_at(self._path(file), offset, size)
        except OSError as error:
            raise self._unreadable(file, offset, error.strerror or str(error)) from error
        return self._checked(line, file, offset)

    @contextmanager
    def sequence(self) -> Iterator[Read]:
        """For many records, most of them in the order in which they lie: a file stays open until another is read."""
        name, opened = "", ExitStack()
        source: BinaryIO | None = None

        def read(file: str, offset: int, size: int) -> bytes:
            nonlocal name, source
            try:
                if source is None or file != name:
                    opened.close()
                    source, name = opened.enter_context(self._fs.reader(self._path(file))), file
                source.seek(offset)
                line = source.read(size)
            except OSError as error:
                raise self._unreadable(file, offset, error.strerror or str(error)) from error
            return self._checked(line, file, offset)

        with opened:
            yield read

    def _path(self, file: str) -> Path:
        path = self._paths.get(file)
        if path is None:
            path = self._paths[file] = self._directory / file
        return path

    def _checked(self, line: bytes, file: str, offset: int) -> bytes:
        found = parse(line)
        if found is None:
            raise self._unreadable(file, offset, "damaged record")
        return found.record

    def _unreadable(self, file: str, offset: int, why: str) -> StorageUnreadable:
        # Only the journal's own folder is named: clients see this, and paths of the machine are for operators.
        return StorageUnreadable(
            f"{self._directory.name}/{file} cannot be read at byte {offset}: {why}",
            file=f"{self._directory.name}/{file}",
            offset=offset,
            expected="the record that was written there; restore a backup, or `sidecar doctor --repair`",
        )
