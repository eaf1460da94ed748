"""Tables of JSON documents, each change a record of a journal first. Knows the journal, not TinyDB.

In memory are the ids, what indexes need, and where each document lies in the journal's files; the documents are read
from there (see document_bodies). They are JSON bytes and decoded by their readers: a caller who edits what he was
given cannot change what is stored. Records: `["+",table,id,document]`, `["-",table,id]`, `["T",table]` makes a table,
`["0",table]` empties it, `["X",table]` drops it, `["N",table,id]` (in snapshots) says which id comes next.

See docs/durability.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from ..errors import StorageDamaged
from ..journal.compaction import Compaction
from ..journal.journal import Journal, JournalStats
from ..journal.reads import Take, Written
from ..typed import decode
from .document_bodies import MEMORY_BYTES, Bodies, head_of, place_of, quoted, size_at
from .table_index import Fields, Row, TableIndex

Operation = Literal["+", "-", "T", "0", "X", "N"]

# Compaction pays when more of the files is dead than alive; below this nobody would notice.
COMPACT_ABOVE_BYTES = 32 << 20
_LINE_BYTES = 64  # of a journal line around a document, about
_SMALL = 32  # bytes of a document; one that is no larger takes no more memory than its place would
_AT_ONCE = 2_000  # documents that are moved to a snapshot in one step

_RECORD = re.compile(rb'\["([-+T0XN])",("(?:[^"\\]|\\.)*")(?:,(\d+)(?:,(.*))?)?\]', re.DOTALL)


class DocumentChange(msgspec.Struct, frozen=True):
    """One operation on one table. document: of `+` only."""

    operation: Operation
    table: str
    doc_id: int = 0
    document: bytes = b""


def encode_change(change: DocumentChange) -> bytes:
    operation, table = change.operation, quoted(change.table)
    if operation == "+":
        return b'["+",%b,%d,%b]' % (table, change.doc_id, change.document)
    if operation in "-N":
        return b'["%b",%b,%d]' % (operation.encode(), table, change.doc_id)
    return b'["%b",%b]' % (operation.encode(), table)


# A document, where it is small or not on the disk yet; else its place.
Kept = bytes | int


class Before(msgspec.Struct, frozen=True, gc=False):
    """The state of a document before a change."""

    kept: Kept
    row: Row | None


def _size(kept: Kept) -> int:
    return size_at(kept) if isinstance(kept, int) else len(kept)


class TableData:
    """One table. Documents stand in the order they were put in; next_id is greater than every id there ever was.

    size: of the documents' JSON in bytes.
    """

    def __init__(self, name: str, bodies: Bodies) -> None:
        self.name = name
        self.documents: dict[int, Kept] = {}
        self.next_id = 1
        self.is_ascending = True  # documents stand in the order of their ids
        self.size = 0
        self.index: TableIndex | None = None
        self._bodies = bodies

    def __len__(self) -> int:
        return len(self.documents)

    def __contains__(self, doc_id: object) -> bool:
        return doc_id in self.documents

    @property
    def live_bytes(self) -> int:
        """The approximate size of the table in a snapshot, in bytes."""
        return self.size + len(self.documents) * _LINE_BYTES

    def ids(self) -> Iterable[int]:
        """In the order of the table."""
        return self.documents.keys()

    def size_of(self, doc_id: int) -> int:
        """The size of an existing document."""
        return _size(self.documents[doc_id])

    def read(self, doc_id: int) -> bytes | None:
        """A document, or None if there is none. Raises StorageUnreadable."""
        kept = self.documents.get(doc_id)
        return self._bodies.read(kept, self.name, doc_id) if isinstance(kept, int) else kept

    def read_each(self, ids: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Read each of these documents, which must exist, without keeping them in memory. Raises StorageUnreadable."""
        if not self.documents:
            return
        with self._bodies.sequence() as read:
            for doc_id in ids:
                kept = self.documents[doc_id]
                yield doc_id, read(kept, self.name, doc_id) if isinstance(kept, int) else kept

    def put(self, doc_id: int, kept: Kept, document: bytes) -> Before | None:
        """Put a document; return the one it replaces, or None. kept: the document, or its place."""
        before = None
        if doc_id >= self.next_id:  # most often: no document ever had this id
            self.next_id = doc_id + 1
        elif doc_id in self.documents:
            before = self._uncount(doc_id, self.documents[doc_id])
        elif self.documents and doc_id < next(reversed(self.documents)):
            self.is_ascending = False
        self.documents[doc_id] = kept
        self.size += len(document)
        if self.index is not None:
            self.index.add(doc_id, document)
        return before

    def remove(self, doc_id: int) -> Before | None:
        """Remove a document and return it, or None."""
        kept = self.documents.pop(doc_id, None)
        return None if kept is None else self._uncount(doc_id, kept)

    def put_back(self, doc_id: int, before: Before | None) -> None:
        """Undo a change: put back the state before it."""
        if before is None:
            self.remove(doc_id)
            return
        was_there, was_ascending = doc_id in self.documents, self.is_ascending
        if was_there:
            self._uncount(doc_id, self.documents[doc_id])
        size = _size(before.kept)
        self.documents[doc_id] = before.kept
        self.size += size
        if self.index is not None and before.row is not None:
            self.index.restore(doc_id, before.row, size)
        if was_ascending and not was_there:  # it now stands last: put it where it was
            self.documents = dict(sorted(self.documents.items()))

    def written(self, doc_id: int, document: bytes, place: int) -> None:
        """Record that a document is on the disk, at this place."""
        if self.documents.get(doc_id) is document:
            self.documents[doc_id] = place
            self._bodies.keep(place, document)

    def moved(self, doc_id: int, old: int, new: int) -> None:
        """Move a document from `old` to `new`, if it still lies at `old`, which is about to vanish."""
        if self.documents.get(doc_id) == old:
            self.documents[doc_id] = new
            self._bodies.move(old, new)

    def _uncount(self, doc_id: int, kept: Kept) -> Before:
        size = _size(kept)
        self.size -= size
        return Before(kept, None if self.index is None else self.index.remove(doc_id, size))

    def emptied(self) -> TableData:
        """A table like this one without its documents; ids go on."""
        other = TableData(self.name, self._bodies)
        other.next_id = self.next_id
        if self.index is not None:
            other.index = TableIndex(self.index.of)
        return other

    def use(self, fields: Fields) -> None:
        """Keep an index of these fields from now on. Raises StorageUnreadable."""
        index = TableIndex(fields)
        for doc_id, document in self.read_each(self.documents):
            index.add(doc_id, document)
        self.index = index


NO_TABLE = TableData("", Bodies(0))
Frozen = list[tuple[str, int, dict[int, Kept]]]


class _Undo(msgspec.Struct, frozen=True, gc=False):
    """How to take back one change. table: the table before it, or None. doc_id: None for a change of a whole table."""

    name: str
    table: TableData | None
    doc_id: int | None = None
    before: Before | None = None

    def take_back(self, tables: dict[str, TableData]) -> None:
        if self.table is None:
            tables.pop(self.name, None)
            return
        tables[self.name] = self.table
        if self.doc_id is not None:
            self.table.put_back(self.doc_id, self.before)


class DocumentStore:
    """All tables of one journal. One thread owns it, as it does the journal.

    journal: an open one, or a function that opens it and passes each record on, so that no record is read twice.
    memory_bytes: how many bytes of documents may be kept in memory. fields: the indexed fields, by the table's name. A
    table that is not named here can get an index later, and is read for it.
    """

    def __init__(
        self,
        journal: Journal | Callable[[Take], Journal],
        *,
        memory_bytes: int = MEMORY_BYTES,
        fields: Mapping[str, Fields] | None = None,
    ) -> None:
        self.tables: dict[str, TableData] = {}
        self._fields = fields or {}
        self._bodies = Bodies(memory_bytes)
        self._undo: list[_Undo] = []
        self._uncommitted: list[DocumentChange] = []
        self._frozen: Frozen = []
        self._quoted: dict[bytes, TableData] = {}  # by the name as records have it, while they are read
        if isinstance(journal, Journal):
            journal.replay(self._take)
            self._journal = journal
        else:
            self._journal = journal(self._take)
        self._quoted.clear()
        self._bodies.reader = self._journal.reader()

    def _take(self, file: str, offset: int, size: int, record: bytes) -> None:
        # The most usual records are `["+","results",7,{...}]` and `["-","outbox",7]`: no pattern is needed for them.
        parts = record.split(b",", 3)
        count = len(parts)
        table = self._quoted.get(parts[1]) if count > 1 else None
        if table is not None and count == 4 and parts[0] == b'["+"':
            self._put(table, int(parts[2]), parts[3][:-1], file, offset, size)
        elif table is not None and count == 3 and parts[0] == b'["-"':
            table.remove(int(parts[2][:-1]))
        else:
            self._take_any(file, offset, size, record)

    def _take_any(self, file: str, offset: int, size: int, record: bytes) -> None:
        found = _RECORD.fullmatch(record)
        if found is None:
            raise StorageDamaged(f"{file}: the record at byte {offset} is not one of a table", file=file, offset=offset)
        operation, quoted_name, doc_id, document = found.groups()
        name = decode(quoted_name, str)
        if operation == b"X":
            self.tables.pop(name, None)
            self._quoted.pop(quoted_name, None)
            return
        table = self._table(name)
        if operation == b"0":
            table = self.tables[name] = table.emptied()
        elif operation == b"+":
            self._put(table, int(doc_id), document, file, offset, size)
        elif operation == b"-":
            table.remove(int(doc_id))
        else:
            table.next_id = max(table.next_id, int(doc_id or 0))
        self._quoted[quoted_name] = table

    def _put(self, table: TableData, doc_id: int, document: bytes, file: str, offset: int, size: int) -> None:
        kept: Kept = document
        if len(document) > _SMALL:
            kept = place_of(self._bodies.file_number(file), offset, size, len(document))
        table.put(doc_id, kept, document)

    def _table(self, name: str) -> TableData:
        """The table of that name; it is created if missing."""
        table = self.tables.get(name)
        if table is None:
            table = self.tables[name] = TableData(name, self._bodies)
            if name in self._fields:
                table.use(self._fields[name])
        return table

    def apply(self, changes: Sequence[DocumentChange], *, frees_space: bool = False) -> None:
        """Make the changes, all or none, visible at once and durable at the next commit. Raises StorageUnavailable."""
        self._journal.append([encode_change(change) for change in changes], frees_space=frees_space)
        for change in changes:
            self._undo.append(self._make(change))
        self._uncommitted += changes

    def commit(self) -> None:
        """Make every change durable. Raises StorageUnavailable: then none since the last commit was ever made."""
        changes, self._uncommitted = self._uncommitted, []
        try:
            written = self._journal.commit()
        except BaseException:
            undo, self._undo = self._undo, []
            for step in reversed(undo):
                step.take_back(self.tables)
            raise
        self._undo.clear()
        if written is not None:
            self._written(changes, written)

    def _written(self, changes: Sequence[DocumentChange], written: Written) -> None:
        """Record that the changes are on the disk: from now on their documents are read from there."""
        file, offset = self._bodies.file_number(written.file), written.offset
        for change, size in zip(changes, written.sizes, strict=True):
            document = change.document
            if len(document) > _SMALL and (table := self.tables.get(change.table)) is not None:
                table.written(change.doc_id, document, place_of(file, offset, size, len(document)))
            offset += size

    def _make(self, change: DocumentChange) -> _Undo:
        """Make one change in memory; returns how to take it back."""
        name, doc_id, operation = change.table, change.doc_id, change.operation
        table = self.tables.get(name)
        if operation == "+" and table is not None:
            return _Undo(name, table, doc_id, table.put(doc_id, change.document, change.document))
        if operation == "-" and table is not None:
            return _Undo(name, table, doc_id, table.remove(doc_id))
        if operation == "X":
            self.tables.pop(name, None)
        elif operation == "0":
            self.tables[name] = self._table(name).emptied()
        elif operation == "+":
            self._table(name).put(doc_id, change.document, change.document)
        else:
            self._table(name)
        return _Undo(name, table)

    def settle(self) -> None:
        """Commit, and note in the journal what is synced; for when nothing is going on."""
        self.commit()
        self._journal.settle()

    def close(self) -> None:
        """Commit and close. Whatever happens the journal is unlocked."""
        try:
            self.commit()
        finally:
            self._journal.close()

    def stats(self) -> JournalStats:
        return self._journal.stats()

    def is_worth_compacting(self) -> bool:
        """More of the files is dead than alive, and by much; or by little, where the disk is full."""
        live = sum(table.live_bytes for table in self.tables.values())
        stats = self._journal.stats()
        return stats.size_bytes > max(2 * live, live + (0 if stats.is_short else COMPACT_ABOVE_BYTES))

    def begin_compaction(self) -> tuple[Compaction, Callable[[], Iterator[bytes]]]:
        """Draw the line, and freeze what is before it. The records may be asked for in another thread."""
        self.commit()
        compaction = self._journal.begin_compaction()
        self._frozen = [(name, table.next_id, table.documents.copy()) for name, table in self.tables.items()]
        frozen = self._frozen
        return compaction, lambda: self._snapshot(frozen)

    def _snapshot(self, frozen: Frozen) -> Iterator[bytes]:
        with self._bodies.sequence() as read:
            for name, next_id, documents in frozen:
                yield encode_change(DocumentChange("N", name, next_id))
                for doc_id, kept in documents.items():
                    document = read(kept, name, doc_id) if isinstance(kept, int) else kept
                    yield b"%b%b]" % (head_of(name, doc_id), document)

    def finish_compaction(self, compaction: Compaction) -> None:
        """Read from the finished snapshot, and drop the files it replaces. Raises StorageUnavailable."""
        for _ in self.finish_in_steps(compaction):
            pass

    def finish_in_steps(self, compaction: Compaction) -> Iterator[None]:
        """Like `finish_compaction`, in steps that take a few milliseconds. All must be committed between them."""
        file, offsets = self._bodies.file_number(compaction.file), compaction.offsets
        frozen, self._frozen = self._frozen, []
        number = 0  # of the record in the snapshot
        self.commit()  # undoing a change could bring back a place that is about to vanish
        for name, _, documents in frozen:
            number += 1  # the one that says which id comes next
            for doc_id, kept in documents.items():
                if number % _AT_ONCE == 0:
                    yield
                    self.commit()
                if isinstance(kept, int) and name in self.tables:
                    start, end = offsets[number], offsets[number + 1]
                    new = place_of(file, start, end - start, size_at(kept))
                    self.tables[name].moved(doc_id, kept, new)
                number += 1
        compaction.finish()

    def give_up_compaction(self) -> None:
        """Give up the snapshot, which could not be written."""
        self._frozen = []
