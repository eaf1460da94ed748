"""Hash indexes over some fields of a table's documents, and those fields decoded alone: a query that asks for nothing
else never decodes a document. Ids are kept in ascending arrays: eight bytes each, newest last.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Hashable, Iterable, Mapping
from functools import cache
from typing import Any, TypedDict

from .typed import decoder

Ids = array  # of "q", ascending, each once
NO_IDS: Ids[int] = array("q")


def add_id(ids: Ids[int], doc_id: int) -> None:
    if not ids or doc_id > ids[-1]:
        ids.append(doc_id)
    elif ids[place := bisect_left(ids, doc_id)] != doc_id:
        ids.insert(place, doc_id)


def has_id(ids: Ids[int], doc_id: int) -> bool:
    place = bisect_left(ids, doc_id)
    return place < len(ids) and ids[place] == doc_id


@cache
def _shape_of(columns: frozenset[str]) -> Any:
    """One type for the same columns: a decoder is kept for each type there ever was."""
    shape: Any = TypedDict("shape", dict.fromkeys(columns, Any), total=False)  # type: ignore[misc]
    return shape


class TableIndex:
    """indexed: fields with a hash index. columns: all fields that are decoded alone, the indexed ones among them."""

    def __init__(self, indexed: Iterable[str], columns: Iterable[str] = ()) -> None:
        self.indexed = tuple(indexed)
        self.columns = frozenset((*self.indexed, *columns))
        self._decode = decoder(_shape_of(self.columns)).decode
        self._ids: dict[str, dict[Hashable, Ids[int]]] = {field: {} for field in self.indexed}
        # Documents whose value for the field is a list or an object: no hash finds them, so they are always looked at.
        self._unhashable: dict[str, Ids[int]] = {field: array("q") for field in self.indexed}

    def fields(self, document: bytes) -> Mapping[str, Any]:
        """The document's columns, those that it has."""
        fields: Mapping[str, Any] = self._decode(document)
        return fields

    def add(self, doc_id: int, document: bytes) -> None:
        fields = self.fields(document)
        for field in self.indexed:
            if field in fields:
                value = fields[field]
                if isinstance(value, (list, dict)):
                    add_id(self._unhashable[field], doc_id)
                else:
                    ids = self._ids[field].get(value)
                    if ids is None:
                        self._ids[field][value] = array("q", (doc_id,))
                    else:
                        add_id(ids, doc_id)

    def remove(self, doc_id: int, document: bytes) -> None:
        fields = self.fields(document)
        for field in self.indexed:
            if field in fields:
                value = fields[field]
                if isinstance(value, (list, dict)):
                    _remove_id(self._unhashable[field], doc_id)
                else:
                    ids = self._ids[field][value]
                    _remove_id(ids, doc_id)
                    if not ids:
                        del self._ids[field][value]

    def with_value(self, field: str, value: Hashable) -> Ids[int]:
        """Documents whose `field` equals `value`; not to be changed by the caller."""
        return self._ids[field].get(value, NO_IDS)

    def unhashable(self, field: str) -> Ids[int]:
        return self._unhashable[field]


def _remove_id(ids: Ids[int], doc_id: int) -> None:
    place = bisect_left(ids, doc_id)
    if place < len(ids) and ids[place] == doc_id:
        del ids[place]


def intersection(one: Ids[int], other: Ids[int]) -> Ids[int]:
    small, large = sorted((one, other), key=len)
    if len(small) * 16 < len(large):  # looking each up is cheaper than hashing them all
        return array("q", (doc_id for doc_id in small if has_id(large, doc_id)))
    return array("q", sorted(set(small).intersection(large)))


def union(one: Ids[int], other: Ids[int]) -> Ids[int]:
    if len(one) < len(other):
        one, other = other, one
    if len(other) * 16 < len(one):
        merged = array("q", one)
        for doc_id in other:
            if not has_id(merged, doc_id):
                insort(merged, doc_id)
        return merged
    return array("q", sorted(set(one).union(other)))
