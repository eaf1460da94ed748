"""Tables of JSON documents in memory, each change a record of a journal first. Knows the journal, not TinyDB.

Documents are held as JSON bytes and decoded by whoever reads them: a caller who edits what he was given cannot
change what is stored. Records: `["+",table,id,document]`, `["-",table,id]`, `["T",table]` makes a table,
`["0",table]` empties it, `["X",table]` drops it, `["N",table,id]` (in snapshots) says which id comes next.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Literal

import msgspec

from .errors import StorageDamaged
from .journal import Compaction, Journal, JournalNumbers
from .table_index import TableIndex
from .typed import decode

Operation = Literal["+", "-", "T", "0", "X", "N"]

# Compaction pays when more of the files is dead than alive; below this nobody would notice.
COMPACT_ABOVE_BYTES = 32 << 20
_LINE_BYTES = 64  # of a journal line around a document, about

_RECORD = re.compile(rb'\["([-+T0XN])",("(?:[^"\\]|\\.)*")(?:,(\d+)(?:,(.*))?)?\]', re.DOTALL)


class Change(msgspec.Struct, frozen=True):
    """One operation on one table. document: of `+` only."""

    operation: Operation
    table: str
    doc_id: int = 0
    document: bytes = b""


@lru_cache(maxsize=64)
def _quoted(name: str) -> bytes:
    return msgspec.json.encode(name)


def encode_change(change: Change) -> bytes:
    table = _quoted(change.table)
    match change.operation:
        case "+":
            return b'["+",%b,%d,%b]' % (table, change.doc_id, change.document)
        case "-" | "N":
            return b'["%b",%b,%d]' % (change.operation.encode(), table, change.doc_id)
        case _:
            return b'["%b",%b]' % (change.operation.encode(), table)


class TableData:
    """One table. Documents stand in the order they were put in; next_id is greater than every id there ever was."""

    def __init__(self) -> None:
        self.documents: dict[int, bytes] = {}
        self.next_id = 1
        self.is_ascending = True  # documents stand in the order of their ids
        self.live_bytes = 0
        self.index: TableIndex | None = None

    def put(self, doc_id: int, document: bytes) -> bytes | None:
        """What was there before, or None."""
        before = self.documents.get(doc_id)
        if before is not None:
            self.live_bytes -= len(before) + _LINE_BYTES
            if self.index is not None:
                self.index.remove(doc_id, before)
        elif self.documents and doc_id < next(reversed(self.documents)):
            self.is_ascending = False
        self.documents[doc_id] = document
        self.live_bytes += len(document) + _LINE_BYTES
        self.next_id = max(self.next_id, doc_id + 1)
        if self.index is not None:
            self.index.add(doc_id, document)
        return before

    def remove(self, doc_id: int) -> bytes | None:
        before = self.documents.pop(doc_id, None)
        if before is not None:
            self.live_bytes -= len(before) + _LINE_BYTES
            if self.index is not None:
                self.index.remove(doc_id, before)
        return before

    def emptied(self) -> TableData:
        """A table like this one without its documents; ids go on."""
        other = TableData()
        other.next_id = self.next_id
        if self.index is not None:
            other.use(TableIndex(self.index.indexed, self.index.columns))
        return other

    def use(self, index: TableIndex) -> None:
        """Keep this index from now on."""
        for doc_id, document in self.documents.items():
            index.add(doc_id, document)
        self.index = index


class DocumentStore:
    """All tables of one journal. One thread owns it, as it does the journal."""

    def __init__(self, journal: Journal) -> None:
        self.tables: dict[str, TableData] = {}
        self._journal = journal
        self._undo: list[Callable[[], None]] = []
        names: dict[bytes, str] = {}
        for entry in journal.entries():
            found = _RECORD.fullmatch(entry.record)
            if found is None:
                raise StorageDamaged(f"{journal.directory}: record {entry.seq} is none of a table", record=entry.seq)
            operation, quoted, doc_id, document = found.groups()
            name = names.get(quoted)
            if name is None:
                name = names[quoted] = decode(quoted, str)
            self._replay(operation, name, int(doc_id or 0), document or b"")

    def _replay(self, operation: bytes, name: str, doc_id: int, document: bytes) -> None:
        if operation == b"X":
            self.tables.pop(name, None)
            return
        table = self.tables.get(name)
        if table is None:
            table = self.tables[name] = TableData()
        if operation == b"+":
            table.put(doc_id, document)
        elif operation == b"-":
            table.remove(doc_id)
        elif operation == b"0":
            self.tables[name] = table.emptied()
        elif operation == b"N":
            table.next_id = max(table.next_id, doc_id)

    def apply(self, changes: Sequence[Change], *, frees_space: bool = False) -> None:
        """Make the changes, all or none, visible at once and durable at the next commit. Raises StorageUnavailable."""
        self._journal.append([encode_change(change) for change in changes], frees_space=frees_space)
        for change in changes:
            self._undo.append(self._make(change))

    def commit(self) -> None:
        """Make every change durable. Raises StorageUnavailable: then none since the last commit was ever made."""
        try:
            self._journal.commit()
        except BaseException:
            undo, self._undo = self._undo, []
            for step in reversed(undo):
                step()
            raise
        self._undo.clear()

    def _make(self, change: Change) -> Callable[[], None]:
        """Make one change in memory; returns how to take it back."""
        name, doc_id = change.table, change.doc_id
        table = self.tables.get(name)
        if change.operation == "X":
            gone = self.tables.pop(name, None)
            return lambda: self._restore(name, gone)
        if change.operation == "0":
            self.tables[name] = table.emptied() if table is not None else TableData()
            return lambda: self._restore(name, table)
        if table is None:
            made = self.tables[name] = TableData()
            if change.operation == "+":
                made.put(doc_id, change.document)
            return lambda: self._restore(name, None)
        if change.operation == "+":
            before = table.put(doc_id, change.document)
            return lambda: _put_back(table, doc_id, before)
        if change.operation == "-":
            removed = table.remove(doc_id)
            return lambda: _put_back(table, doc_id, removed)
        return lambda: None

    def _restore(self, name: str, table: TableData | None) -> None:
        if table is None:
            self.tables.pop(name, None)
        else:
            self.tables[name] = table

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

    def numbers(self) -> JournalNumbers:
        return self._journal.numbers()

    def is_worth_compacting(self) -> bool:
        """More of the files is dead than alive, and by much; or by little, where the disk is full."""
        live = sum(table.live_bytes for table in self.tables.values())
        numbers = self._journal.numbers()
        return numbers.size_bytes > max(2 * live, live + (0 if numbers.is_short else COMPACT_ABOVE_BYTES))

    def begin_compaction(self) -> tuple[Compaction, Callable[[], Iterator[bytes]]]:
        """Draw the line, and freeze what is before it. The records may be asked for in another thread."""
        self.commit()
        compaction = self._journal.begin_compaction()
        frozen = [(name, table.next_id, table.documents.copy()) for name, table in self.tables.items()]
        return compaction, lambda: _snapshot(frozen)

    def finish_compaction(self, compaction: Compaction) -> None:
        self._journal.finish_compaction(compaction)


def _snapshot(frozen: Iterable[tuple[str, int, dict[int, bytes]]]) -> Iterator[bytes]:
    for name, next_id, documents in frozen:
        yield encode_change(Change("N", name, next_id))
        for doc_id, document in documents.items():
            yield encode_change(Change("+", name, doc_id, document))


def _put_back(table: TableData, doc_id: int, before: bytes | None) -> None:
    if before is None:
        table.remove(doc_id)
        return
    was_ascending, was_there = table.is_ascending, doc_id in table.documents
    table.put(doc_id, before)
    if was_ascending and not was_there:  # it now stands last: put it where it was
        table.documents = dict(sorted(table.documents.items()))
        table.is_ascending = True
