"""A table as one transaction sees it: changes lie over the stored documents until they are taken, or forgotten.

TinyDB hands each write a function that edits a dict of the whole table. It gets this instead, and only the documents
it touches are decoded, compared and written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import msgspec

from .document_store import NO_TABLE, DocumentChange, TableData

_decode = msgspec.json.decode


class TableOverlay(MutableMapping[int, Any]):
    """`{doc_id: document}`, in the order of the table, new ones last. A document read here may be edited in place."""

    def __init__(self, name: str, data: TableData | None, encode: Callable[[Any], bytes]) -> None:
        self._name = name
        self._stored = data if data is not None else NO_TABLE
        self._exists = data is not None
        self._encode = encode
        self._touched: dict[int, Any] = {}
        self._removed: set[int] = set()
        self._cleared = False

    def __getitem__(self, doc_id: int) -> Any:
        if doc_id in self._touched:
            return self._touched[doc_id]
        if not self._is_stored(doc_id):
            raise KeyError(doc_id)
        document = self._touched[doc_id] = _decode(self._stored.read(doc_id) or b"")
        return document

    def __setitem__(self, doc_id: int, document: Any) -> None:
        self._touched[doc_id] = document

    def __delitem__(self, doc_id: int) -> None:
        if doc_id not in self:
            raise KeyError(doc_id)
        self._touched.pop(doc_id, None)
        if doc_id in self._stored:
            self._removed.add(doc_id)

    def __contains__(self, doc_id: object) -> bool:
        return doc_id in self._touched or self._is_stored(doc_id)

    def __iter__(self) -> Iterator[int]:
        for doc_id in self._stored.ids():
            if self._is_stored(doc_id):
                yield doc_id
        for doc_id in self._touched:
            if not self._is_stored(doc_id):
                yield doc_id

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def clear(self) -> None:
        self._touched.clear()
        self._removed.clear()
        self._cleared = True

    def _is_stored(self, doc_id: object) -> bool:
        return not self._cleared and doc_id in self._stored and doc_id not in self._removed

    def changes(self) -> list[DocumentChange]:
        """The result of the transaction. Raises TypeError for a document that is not JSON."""
        changes: list[DocumentChange] = []
        if self._cleared and self._stored:
            changes.append(DocumentChange("0", self._name))
        elif not self._exists:
            changes.append(DocumentChange("T", self._name))
        changes += [DocumentChange("-", self._name, doc_id) for doc_id in self._removed]
        for doc_id, document in self._touched.items():
            encoded = self._encode(document)
            if not self._is_stored(doc_id) or encoded != self._stored.read(doc_id):
                changes.append(DocumentChange("+", self._name, doc_id, encoded))
        return changes
