"""TinyDB on a journal: a Storage, a Table and a TinyDB whose writes cost what they touch and whose queries use indexes.

The only place that imports TinyDB. It hangs on TinyDB 4.9's own points, `Storage`, `table_class` and
`default_storage_class`, and on five private names: `Table._update_table`, `Table._read_table`, `Table._get_next_id`,
`Table._next_id` and `QueryInstance._hash`; a test fails when one of them changes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

import msgspec
from tinydb import Query, TinyDB, where
from tinydb.queries import QueryInstance
from tinydb.storages import Storage
from tinydb.table import Document, Table

from .document_store import Change, DocumentStore, TableData
from .journal import Journal
from .query_plan import SCAN, Plan, is_covered, plan
from .table_index import Ids, TableIndex, has_id
from .table_overlay import TableOverlay

__all__ = ["Document", "JournalDB", "JournalStorage", "JournalTable", "Page", "Query", "where"]

Condition = Callable[[Mapping[str, Any]], bool]

_decode = msgspec.json.decode
_encode = msgspec.json.Encoder().encode


class Page(msgspec.Struct, frozen=True):
    """Ids of documents, newest first. total: how many match, over all pages. has_more: older ones follow."""

    ids: list[int]
    total: int
    has_more: bool


class JournalStorage(Storage):
    """TinyDB's storage contract over a DocumentStore.

    commit_each: every write is durable when it returns. Without it the owner calls `commit`, once for many writes.
    """

    def __init__(self, journal: Journal | Path | str, *, commit_each: bool = True) -> None:
        self.journal = journal if isinstance(journal, Journal) else Journal.open(Path(journal))
        self.store = DocumentStore(self.journal)
        self._commit_each = commit_each

    def read(self) -> dict[str, dict[str, Any]] | None:
        """Everything, decoded: the contract's way, for middleware; tables do not use it."""
        if not self.store.tables:
            return None
        return {
            name: {str(doc_id): _decode(document) for doc_id, document in data.documents.items()}
            for name, data in self.store.tables.items()
        }

    def write(self, data: Mapping[str, Mapping[Any, Any]]) -> None:
        """Make the store hold exactly `data`, in one transaction that names only what differs."""
        changes = [Change("X", name) for name in self.store.tables if name not in data]
        for name, documents in data.items():
            overlay = TableOverlay(name, self.store.tables.get(name), _encode)
            wanted = {int(doc_id): document for doc_id, document in documents.items()}
            for doc_id in [doc_id for doc_id in overlay if doc_id not in wanted]:
                del overlay[doc_id]
            overlay.update(wanted)
            changes += overlay.changes()
        self.apply(changes)

    def apply(self, changes: Sequence[Change]) -> None:
        """Make the changes, of any tables, in one transaction. Raises StorageUnavailable."""
        if changes:
            self.store.apply(changes, frees_space=all(change.operation in "-0X" for change in changes))
            if self._commit_each:
                self.store.commit()

    def commit(self) -> None:
        self.store.commit()

    def close(self) -> None:
        self.store.close()


class JournalTable(Table):
    """A table whose documents stay encoded until they are read.

    indexed: fields with a hash index. columns: further fields that queries and listings ask for; a query over
    indexed fields and columns alone decodes nothing else. Ids are never used twice.
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
    ) -> None:
        self._fields = (tuple(indexed), tuple(columns))
        # TinyDB's query cache hands the same documents to all callers, and is dropped by each write anyhow.
        super().__init__(storage, name, cache_size=cache_size, persist_empty=persist_empty)

    # --- reading ---

    def search(self, cond: Condition) -> list[Document]:
        data = self._data()
        return [Document(_decode(data.documents[doc_id]), doc_id) for doc_id in self._matching(cond, data)]

    def get(  # type: ignore[override]  # TinyDB spells it in seven overloads
        self, cond: Condition | None = None, doc_id: int | None = None, doc_ids: list[int] | None = None
    ) -> Document | list[Document] | None:
        data = self._data()
        if doc_id is not None:
            document = data.documents.get(int(doc_id))
            return None if document is None else Document(_decode(document), doc_id)
        if doc_ids is not None:
            wanted = {int(doc_id) for doc_id in doc_ids}
            found = sorted(wanted & data.documents.keys()) if data.is_ascending else data.documents
            return [Document(_decode(data.documents[i]), i) for i in found if i in wanted]
        if cond is None:
            raise RuntimeError("You have to pass either cond or doc_id or doc_ids")
        first = next(self._matching(cond, data), None)
        return None if first is None else Document(_decode(data.documents[first]), first)

    def count(self, cond: Condition) -> int:
        data = self._data()
        candidates, test = self._plan(cond, data)
        if candidates is not None and test is None:
            return len(candidates)
        return sum(1 for _ in self._matching(cond, data))

    def page(self, cond: Condition | None, *, limit: int, before: int | None = None) -> Page:
        """The `limit` newest documents that match, of those with ids below `before`. cond None: all."""
        data = self._data()
        candidates, test = self._plan(cond, data)
        if test is not None:
            matching: Sequence[int] = sorted(self._matching(cond, data))
        elif candidates is not None:
            matching = candidates
        elif data.is_ascending and before is None:
            newest = list(islice(reversed(data.documents), limit))
            return Page(newest, len(data.documents), len(data.documents) > limit)
        else:
            matching = sorted(data.documents)
        below = len(matching) if before is None else bisect_left(matching, before)
        start = max(below - limit, 0)
        return Page(list(matching[start:below])[::-1], len(matching), start > 0)

    def weigh(self, cond: Condition | None) -> tuple[int, int]:
        """How many documents match, and the bytes of their JSON."""
        documents = self._data().documents
        sizes = [len(documents[doc_id]) for doc_id in self._matching(cond, self._data())]
        return len(sizes), sum(sizes)

    def ids(self) -> Iterator[int]:
        """Ids in the order of the table."""
        return iter(self._data().documents)

    def encoded(self, doc_id: int) -> bytes | None:
        """A document as its JSON."""
        return self._data().documents.get(doc_id)

    def explain(self, cond: Condition) -> str:
        """How a query is answered: the indexes it uses, or a scan, and how many documents are looked at for it."""
        data = self._data()
        found = _plan(cond, data)
        looked_at = len(data.documents) if found.candidates is None else len(found.candidates)
        return f"{found.uses}: {0 if found.exact else looked_at} of {len(data.documents)} documents looked at"

    def __len__(self) -> int:
        return len(self._data().documents)

    def __iter__(self) -> Iterator[Document]:
        for doc_id, document in self._data().documents.items():
            yield Document(_decode(document), doc_id)

    def _read_table(self) -> dict[str, Mapping[str, Any]]:
        return {str(document.doc_id): document for document in self}

    def _data(self) -> TableData:
        data = self._storage.store.tables.get(self.name)
        if data is None:
            return TableData()
        if data.index is None and any(self._fields):
            data.use(TableIndex(*self._fields))
        return data

    def _plan(self, cond: Condition | None, data: TableData) -> tuple[Ids[int] | None, Callable[[bytes], bool] | None]:
        """Candidates, or None for all of the table, and what each must pass, or None if all of them match."""
        if cond is None:
            return None, None
        found = _plan(cond, data)
        if found.exact:
            return found.candidates, None
        index = data.index
        if index is not None and is_covered(_description(cond), index):
            return found.candidates, lambda document: cond(index.fields(document))
        return found.candidates, lambda document: cond(_decode(document))

    def _matching(self, cond: Condition | None, data: TableData) -> Iterator[int]:
        """Ids of documents that match, in the order of the table."""
        candidates, test = self._plan(cond, data)
        ids: Iterable[int] = data.documents
        if candidates is not None:
            ids = candidates if data.is_ascending else (i for i in data.documents if has_id(candidates, i))
        if test is None:
            yield from ids
            return
        for doc_id in ids:
            if test(data.documents[doc_id]):
                yield doc_id

    # --- writing ---

    def next_id(self) -> int:
        """The id that a new document is to have; no other ever gets it."""
        return self._get_next_id()

    def update(
        self,
        fields: Mapping[str, Any] | Callable[[MutableMapping[str, Any]], None],
        cond: Condition | None = None,
        doc_ids: Iterable[int] | None = None,
    ) -> list[int]:
        if doc_ids is None and cond is not None:
            doc_ids = list(self._matching(cond, self._data()))
        return super().update(fields, None, doc_ids)

    def remove(self, cond: Condition | None = None, doc_ids: Iterable[int] | None = None) -> list[int]:
        if doc_ids is None and cond is not None:
            doc_ids = list(self._matching(cond, self._data()))
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
        """The table of that name; the first call says which fields are `indexed` and which are `columns`."""
        return cast(JournalTable, super().table(name, **kwargs))

    def tables(self) -> set[str]:
        return set(self._storage.store.tables)

    def drop_table(self, name: str) -> None:
        self._tables.pop(name, None)
        if name in self._storage.store.tables:
            self._storage.apply([Change("X", name)])


def _description(cond: Condition) -> Any:
    return cond._hash if isinstance(cond, QueryInstance) else None


def _plan(cond: Condition, data: TableData) -> Plan:
    return SCAN if data.index is None else plan(_description(cond), data.index)
