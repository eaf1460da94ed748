"""The documents on the disk, read when they are needed. Recently used documents stay in memory, up to a limit.

The place of a document (file, offset, size) is one integer. A hundred thousand places are in memory, and objects with
these three fields would take three times as much of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import msgspec

from ..errors import StorageUnreadable
from ..journal.reads import Read, RecordReader

MEMORY_BYTES = 32 << 20

_SIZE_BITS = 40  # of the document, in bytes
_EXTRA_BITS = 24  # how much longer its line is: the journal's part of it, the operation, the table's name, the id
_OFFSET_BITS = 44
_SIZE = (1 << _SIZE_BITS) - 1
_EXTRA = (1 << _EXTRA_BITS) - 1
_OFFSET = (1 << _OFFSET_BITS) - 1

_ENTRY_BYTES = 256  # what Python needs to keep one document, next to the document
_KEPT_PART = 16  # a document larger than this part of the bound is not kept: it would push out too many others


def place_of(file: int, offset: int, line_size: int, size: int) -> int:
    """The place of a document of `size` bytes whose line begins at `offset` of the file with this number."""
    rest = (file << _OFFSET_BITS | offset) << _EXTRA_BITS | (line_size - size)
    return rest << _SIZE_BITS | size


def size_at(place: int) -> int:
    """The size of the document at this place, in bytes."""
    return place & _SIZE


@lru_cache(maxsize=64)
def quoted(name: str) -> bytes:
    return msgspec.json.encode(name)


def head_of(table: str, doc_id: int) -> bytes:
    """The start of the record that puts this document; the document and a bracket follow."""
    return b'["+",%b,%d,' % (quoted(table), doc_id)


class Bodies:
    """The documents of one journal by their places. One thread owns it; `sequence` may be used in any.

    memory_bytes: how many bytes of them may be kept in memory.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self.reader: RecordReader | None = None  # known once the journal is open
        self._limit = memory_bytes
        self._used = 0
        self._kept: OrderedDict[int, bytes] = OrderedDict()  # least recently used first
        self._files: list[str] = []
        self._numbers: dict[str, int] = {}

    def file_number(self, name: str) -> int:
        """A number for the file of that name; it stays the same as long as this lives."""
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self._files)
            self._files.append(name)
        return number

    def read(self, place: int, table: str, doc_id: int) -> bytes:
        """Read the document at a place. Raises StorageUnreadable."""
        document = self._kept.get(place)
        if document is not None:
            self._kept.move_to_end(place)
            return document
        assert self.reader is not None
        document = self._read(self.reader.read, place, table, doc_id)
        self.keep(place, document)
        return document

    @contextmanager
    def sequence(self) -> Iterator[Callable[[int, str, int], bytes]]:
        """A reader of many documents, in about the order in which they lie; it keeps none of them."""
        assert self.reader is not None
        with self.reader.sequence() as read:
            yield lambda place, table, doc_id: self._kept.get(place) or self._read(read, place, table, doc_id)

    def _read(self, read: Read, place: int, table: str, doc_id: int) -> bytes:
        size, rest = place & _SIZE, place >> _SIZE_BITS
        extra, rest = rest & _EXTRA, rest >> _EXTRA_BITS
        file, offset = self._files[rest >> _OFFSET_BITS], rest & _OFFSET
        record = read(file, offset, size + extra)
        head = head_of(table, doc_id)
        if not record.startswith(head) or len(record) != len(head) + size + 1:
            raise StorageUnreadable(
                f"{file} has another record at byte {offset}, expected document {doc_id} of table {table}",
                file=file,
                offset=offset,
            )
        return record[len(head) : -1]

    def keep(self, place: int, document: bytes) -> None:
        """Keep a document that was just used in memory, and drop older ones."""
        size = len(document) + _ENTRY_BYTES
        if size * _KEPT_PART > self._limit:
            return
        self._kept[place] = document
        self._used += size
        while self._used > self._limit:
            _, gone = self._kept.popitem(last=False)
            self._used -= len(gone) + _ENTRY_BYTES

    def forget(self, place: int) -> bytes | None:
        """Drop the document at this place from memory, and return it if it was there."""
        document = self._kept.pop(place, None)
        if document is not None:
            self._used -= len(document) + _ENTRY_BYTES
        return document

    def move(self, old: int, new: int) -> None:
        """Move the document at `old` to `new`."""
        document = self.forget(old)
        if document is not None:
            self.keep(new, document)
