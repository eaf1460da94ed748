"""TinyDB on a journal: a Storage, a Table and a TinyDB whose writes cost what they touch and whose queries use indexes.

The only place that imports TinyDB. It hangs on TinyDB 4.9's own points, `Storage`, `table_class` and
`default_storage_class`, and on five private names: `Table._update_table`, `Table._read_table`, `Table._get_next_id`,
`Table._next_id` and `QueryInstance._hash`; a test fails when one of them changes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import msgspec
from tinydb import Query, TinyDB, where
from tinydb.queries import QueryInstance
from tinydb.storages import Storage
from tinydb.table import Document, Table

from ..journal.journal import Journal
from ..journal.reads import Take
from .document_bodies import MEMORY_BYTES
from .document_store import NO_TABLE, DocumentChange, DocumentStore, TableData
from .query_plan import is_within
from .selection import Condition, TableSelection
from .table_index import Fields
from .table_overlay import TableOverlay

__all__ = ["Document", "Fields", "JournalDB", "JournalStorage", "JournalTable", "Page", "Query", "between", "where"]

_decode = msgspec.json.decode
_encode = msgspec.json.Encoder().encode
_NO_FIELDS = Fields()


def between(field: str, since: datetime | None, until: datetime | None) -> QueryInstance:
    """Documents whose `field` is a time not before `since` and before `until`; an index of moments answers it."""
    return where(field).test(cast(Any, is_within), since, until)


class Page(msgspec.Struct, frozen=True):
    """Ids of documents, newest first. total: how many match, over all pages. has_more: older ones follow."""

    ids: list[int]
    total: int
    has_more: bool


class JournalStorage(Storage):
    """TinyDB's storage contract over a DocumentStore.

    journal: its directory, one that is open, or what opens it (see DocumentStore, also for memory_bytes and fields).
    commit_each: every write is durable when it returns. Without it the owner calls `commit`, once for many writes.
    """

    def __init__(
        self,
        journal: Journal | Callable[[Take], Journal] | Path | str,
        *,
        commit_each: bool = True,
        memory_bytes: int = MEMORY_BYTES,
        fields: Mapping[str, Fields] | None = None,
    ) -> None:
        if isinstance(journal, (Path, str)):
            directory = Path(journal)
            journal = partial(_open, directory)
        self.store = DocumentStore(journal, memory_bytes=memory_bytes, fields=fields)
        self._commit_each = commit_each

    def read(self) -> dict[str, dict[str, Any]] | None:
        """Everything, decoded: the contract's way, for middleware; tables do not use it."""
        if not self.store.tables:
            return None
        return {
            name: {str(doc_id): _decode(document) for doc_id, document in data.read_each(data.ids())}
            for name, data in self.store.tables.items()
        }

    def write(self, data: Mapping[str, Mapping[Any, Any]]) -> None:
        """Make the store hold exactly `data`, in one transaction that names only what differs."""
        changes = [DocumentChange("X", name) for name in self.store.tables if name not in data]
        for name, documents in data.items():
            overlay = TableOverlay(name, self.store.tables.get(name), _encode)
            wanted = {int(doc_id): document for doc_id, document in documents.items()}
            for doc_id in [doc_id for doc_id in overlay if doc_id not in wanted]:
                del overlay[doc_id]
            overlay.update(wanted)
            changes += overlay.changes()
        self.apply(changes)

    def apply(self, changes: Sequence[DocumentChange]) -> None:
        """Make the changes, of any tables, in one transaction. Raises StorageUnavailable."""
        if changes:
            frees_space = changes[0].operation in "-0X" and all(change.operation in "-0X" for change in changes)
            self.store.apply(changes, frees_space=frees_space)
            if self._commit_each:
                self.store.commit()

    def commit(self) -> None:
        self.store.commit()

    def close(self) -> None:
        self.store.close()


def _open(directory: Path, take: Take) -> Journal:
    return Journal.open(directory, take=take)


class JournalTable(Table):
    """A table whose documents stay on the disk, encoded, until they are read.

    indexed, columns, moments, weighed: see `Fields`. A query over these fields alone reads no document. Any other query
    reads the documents one after the other, with one in memory at a time. Ids are never used twice.
    """

    _storage: JournalStorage
    _next_id: int | None  # type: ignore[assignment]  # TinyDB infers None

    def __init__(
        self,
        storage: JournalStorage,
        name: str,
        cache_size: int = 0,
        persist_empty: bool = False,
        *,
        indexed: Iterable[str] = (),
        columns: Iterable[str] = (),
        moments: Iterable[str] = (),
        weighed: Iterable[str] = (),
    ) -> None:
        self._fields = Fields(tuple(indexed), tuple(columns), tuple(moments), tuple(weighed))
        # TinyDB's query cache hands the same documents to all callers, and is dropped by each write anyhow.
        super().__init__(storage, name, cache_size=cache_size, persist_empty=persist_empty)

    # --- reading ---

    def search(self, cond: Condition) -> list[Document]:
        data = self._data()
        return _documents(data, _select(cond, data).ids())

    def get(  # type: ignore[override]  # TinyDB spells it in seven overloads
        self, cond: Condition | None = None, doc_id: int | None = None, doc_ids: list[int] | None = None
    ) -> Document | list[Document] | None:
        data = self._data()
        if doc_id is not None:
            document = data.read(int(doc_id))
            return None if document is None else Document(_decode(document), doc_id)
        if doc_ids is not None:
            wanted = {int(doc_id) for doc_id in doc_ids}
            found = sorted(one for one in wanted if one in data) if data.is_ascending else data.ids()
            return _documents(data, (one for one in found if one in wanted))
        if cond is None:
            raise RuntimeError("You have to pass either cond or doc_id or doc_ids")
        return next(iter(_documents(data, islice(_select(cond, data).ids(), 1))), None)

    def count(self, cond: Condition) -> int:
        return _select(cond, self._data()).count()

    def page(
        self, cond: Condition | None, *, limit: int, before: int | None = None, max_bytes: int | None = None
    ) -> Page:
        """The `limit` newest documents that match, of those with ids below `before`. cond None: all.

        max_bytes: of their JSON together; the page ends sooner then, though never without its first document.
        """
        data = self._data()
        selection = _select(cond, data)
        if selection.test is not None:
            matching: Sequence[int] = sorted(selection.ids())
        elif selection.candidates is not None:
            matching = selection.candidates
        elif data.is_ascending and before is None:
            newest = list(islice(reversed(data.documents), limit))
            return _cut(data, newest, max_bytes, len(data), len(data) > limit)
        else:
            matching = sorted(data.ids())
        below = len(matching) if before is None else bisect_left(matching, before)
        start = max(below - limit, 0)
        return _cut(data, list(matching[start:below])[::-1], max_bytes, len(matching), start > 0)

    def weigh(self, cond: Condition | None) -> tuple[int, int]:
        """How many documents match, and the bytes of their JSON."""
        data = self._data()
        if cond is None:
            return len(data), data.size
        match _description(cond):
            case ("==", (str() as field,), str() as value) if data.index is not None and field in data.index.of.weighed:
                return len(data.index.with_value(field, value)), data.index.size_with(field, value)
        sizes = [data.size_of(doc_id) for doc_id in _select(cond, data).ids()]
        return len(sizes), sum(sizes)

    def earliest(self, field: str, until: datetime, limit: int) -> tuple[list[int], datetime | None]:
        """Up to `limit` documents with the earliest times in a field of `moments`, before `until`; and the earliest."""
        index = self._data().index
        return ([], None) if index is None else index.moments[field].first(until, limit)

    def encoded(self, doc_id: int) -> bytes | None:
        """A document as its JSON. Raises StorageUnreadable."""
        return self._data().read(doc_id)

    def has(self, doc_id: int) -> bool:
        return doc_id in self._data()

    def explain(self, cond: Condition) -> str:
        """How a query is answered: the indexes it uses, or a scan, and how many documents are looked at for it."""
        return str(_select(cond, self._data()))

    def __len__(self) -> int:
        return len(self._data())

    def __iter__(self) -> Iterator[Document]:
        data = self._data()
        for doc_id, document in data.read_each(data.ids()):
            yield Document(_decode(document), doc_id)

    def _read_table(self) -> dict[str, Mapping[str, Any]]:
        return {str(document.doc_id): document for document in self}

    def _data(self) -> TableData:
        data = self._storage.store.tables.get(self.name)
        if data is None:
            return NO_TABLE
        if data.index is None and self._fields != _NO_FIELDS:
            data.use(self._fields)
        return data

    # --- writing ---

    def next_id(self) -> int:
        """The id of a new document; no other ever gets it."""
        return self._get_next_id()

    def update(
        self,
        fields: Mapping[str, Any] | Callable[[MutableMapping[str, Any]], None],
        cond: Condition | None = None,
        doc_ids: Iterable[int] | None = None,
    ) -> list[int]:
        if doc_ids is None and cond is not None:
            doc_ids = list(_select(cond, self._data()).ids())
        return super().update(fields, None, doc_ids)

    def remove(self, cond: Condition | None = None, doc_ids: Iterable[int] | None = None) -> list[int]:
        if doc_ids is None and cond is not None:
            doc_ids = list(_select(cond, self._data()).ids())
        return super().remove(None, doc_ids)

    def _get_next_id(self) -> int:
        data = self._storage.store.tables.get(self.name)
        doc_id = max(data.next_id if data is not None else 1, self._next_id or 1)
        self._next_id = doc_id + 1
        return doc_id

    def _update_table(self, updater: Callable[[Any], None]) -> None:
        self._data()  # the index must know the table before it changes
        overlay = TableOverlay(self.name, self._storage.store.tables.get(self.name), _encode)
        updater(overlay)
        self._storage.apply(overlay.changes())


class JournalDB(TinyDB):
    """`JournalDB(path)`: a TinyDB kept in a journal in the directory `path`."""

    table_class: type[Table] = JournalTable
    default_storage_class: type[Storage] = JournalStorage  # type: ignore[assignment]  # TinyDB infers its own class
    _storage: JournalStorage

    @property
    def storage(self) -> JournalStorage:
        return self._storage

    def table(self, name: str, **kwargs: Any) -> JournalTable:
        """The table of this name. The first call sets `indexed` and the other options (see JournalTable)."""
        return cast(JournalTable, super().table(name, **kwargs))

    def tables(self) -> set[str]:
        return set(self._storage.store.tables)

    def drop_table(self, name: str) -> None:
        self._tables.pop(name, None)
        if name in self._storage.store.tables:
            self._storage.apply([DocumentChange("X", name)])


def _documents(data: TableData, ids: Iterable[int]) -> list[Document]:
    return [Document(_decode(document), doc_id) for doc_id, document in data.read_each(ids)]


def _cut(data: TableData, ids: list[int], max_bytes: int | None, total: int, has_more: bool) -> Page:
    """A page of these, as far as they have room in it."""
    if max_bytes is not None:
        size = 0
        for number, doc_id in enumerate(ids):
            size += data.size_of(doc_id)
            if size > max_bytes and number > 0:
                return Page(ids[:number], total, True)
    return Page(ids, total, has_more)


def _select(cond: Condition | None, data: TableData) -> TableSelection:
    return TableSelection(cond, _description(cond), data)


def _description(cond: Condition | None) -> Any:
    """The description of itself that a TinyDB query carries; None for any other condition."""
    return cond._hash if isinstance(cond, QueryInstance) else None
