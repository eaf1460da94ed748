"""What a table keeps in memory of its documents: hash indexes over some fields, the times in some, and small values of
others. A query that asks for nothing else reads no document. Ids are kept in ascending arrays: eight bytes each.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from operator import getitem
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import astuple

from ..typed import decoder

Ids = array  # of "q", ascending, each once
NO_IDS: Ids[int] = array("q")

_UNHASHABLE = object()  # a list or an object
_KEPT_CHARS = 200


class Fields(msgspec.Struct, frozen=True):
    """indexed: fields with a hash index. moments: fields that hold a time, RFC 3339, and are asked for by ranges.

    columns: further fields of which queries ask; short values of theirs are kept in memory.
    weighed: fields of `indexed` for which the total size of the documents with one value is kept.
    """

    indexed: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    moments: tuple[str, ...] = ()
    weighed: tuple[str, ...] = ()


class Row(msgspec.Struct, frozen=True, gc=False):
    """The index entries of a removed document. is_whole: whether `fields_of` needed no more than `items`."""

    items: tuple[Any, ...]
    is_whole: bool


class Posting(msgspec.Struct, gc=False):
    """The documents with one value of an indexed field. size: of their JSON in bytes, if the field is weighed.

    gc=False: there may be a hundred thousand of them, and they are part of no cycle.
    """

    value: Hashable
    ids: Ids[int]
    size: int = 0


class _Texts(dict[Any, Posting]):
    """Postings of the values that are strings; one that is asked for is there. Raises KeyError for any other value."""

    def __missing__(self, value: Any) -> Posting:
        if type(value) is not str:
            raise KeyError(value)
        posting = self[value] = Posting(value, array("q"))
        return posting


def add_id(ids: Ids[int], doc_id: int) -> None:
    if not ids or doc_id > ids[-1]:
        ids.append(doc_id)
    elif ids[place := bisect_left(ids, doc_id)] != doc_id:
        ids.insert(place, doc_id)


def has_id(ids: Ids[int], doc_id: int) -> bool:
    place = bisect_left(ids, doc_id)
    return place < len(ids) and ids[place] == doc_id


def seconds_of(value: Any) -> float | None:
    """A time in RFC 3339 as seconds since 1970, exact to the microsecond for some centuries; None if it is none."""
    try:
        moment = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        return None
    return None if moment.tzinfo is None else moment.timestamp()


@cache
def _decoder_of(fields: tuple[str, ...]) -> Callable[[bytes], Any]:
    """A decoder of only these fields of a document: its attributes, in this order, UNSET if missing."""
    names = [(f"field_{n}", Any, msgspec.field(name=field, default=UNSET)) for n, field in enumerate(fields)]
    return decoder(msgspec.defstruct("Fields", names, gc=False)).decode


class Moments:
    """Documents by a time: both arrays in the order of the times. is_ascending: then the ids ascend as well."""

    def __init__(self) -> None:
        self.times: array[float] = array("d")
        self.ids: Ids[int] = array("q")
        self.is_ascending = True

    def add(self, time: float, doc_id: int) -> None:
        if not self.times or (time >= self.times[-1] and doc_id > self.ids[-1]):
            self.times.append(time)
            self.ids.append(doc_id)
            return
        place = bisect_right(self.times, time)
        self.is_ascending = False
        self.times.insert(place, time)
        self.ids.insert(place, doc_id)

    def remove(self, time: float, doc_id: int) -> None:
        place = bisect_left(self.times, time)
        while self.ids[place] != doc_id:
            place += 1
        del self.times[place]
        del self.ids[place]

    def between(self, since: float | None, until: float | None) -> Ids[int]:
        """Ids of documents whose time is not before `since` and is before `until`, ascending."""
        start = 0 if since is None else bisect_left(self.times, since)
        end = len(self.times) if until is None else bisect_left(self.times, until)
        ids = self.ids[start:end]
        return ids if self.is_ascending else array("q", sorted(ids))

    def first(self, until: datetime, limit: int) -> tuple[list[int], datetime | None]:
        """Up to `limit` ids with the earliest times, as far as they are before `until`; and the earliest time."""
        end = min(bisect_left(self.times, until.timestamp()), limit)
        earliest = datetime.fromtimestamp(self.times[0], UTC) if self.times else None
        return self.ids[:end].tolist(), earliest


class TableIndex:
    """See `Fields`. `add` is given each document once, when it is put."""

    def __init__(self, fields: Fields) -> None:
        self.of = fields
        self.indexed = fields.indexed
        self.moments = {field: Moments() for field in fields.moments}
        self._columns = tuple(dict.fromkeys(field for field in fields.columns if field not in fields.indexed))
        self.columns = frozenset((*fields.indexed, *self._columns))  # what queries may ask of `fields_of`
        every = (*fields.indexed, *self._columns, *fields.moments)
        self._decode = _decoder_of(every)
        self._moments_at = tuple(
            (len(every) - len(self.moments) + number, moments) for number, moments in enumerate(self.moments.values())
        )
        self._texts: dict[str, _Texts] = {field: _Texts() for field in self.indexed}
        self._others: dict[str, dict[Hashable, Posting]] = {field: {} for field in self.indexed}
        self._every_text = tuple(self._texts.values())
        self._weighed = tuple(self.indexed.index(field) for field in fields.weighed)
        self._newest = 0  # the greatest id there ever was
        # Documents whose value for the field is a list or an object: no hash finds them, so they are always looked at.
        self._unhashable: dict[str, Ids[int]] = {field: array("q") for field in self.indexed}
        # Of each document: its postings, values of columns, times; in the order of the fields.
        self._rows: dict[int, tuple[Any, ...]] = {}
        self._beyond: set[int] = set()  # documents of which a row does not say everything that `fields_of` has to

    def fields_of(self, doc_id: int) -> Mapping[str, Any] | None:
        """Indexed fields and columns of a document, those that it has; None if only the document itself can tell."""
        if doc_id in self._beyond:
            return None
        row = self._rows[doc_id]
        fields = {}
        for field, item in zip((*self.indexed, *self._columns), row, strict=False):  # times follow
            if item is not UNSET:
                fields[field] = item.value if type(item) is Posting else item
        return fields

    def add(self, doc_id: int, document: bytes) -> None:
        values: Sequence[Any] = astuple(self._decode(document))
        row: list[Any]
        try:
            row = list(map(getitem, self._every_text, values))
        except (KeyError, TypeError):  # not all of them are strings, which is rare where speed counts
            row = [self._item(doc_id, field, value) for field, value in zip(self.indexed, values, strict=False)]
            postings = [item for item in row if type(item) is Posting]
            self._weigh(row, len(document))
        else:
            postings = row
            for place in self._weighed:
                row[place].size += len(document)
        if doc_id > self._newest:  # than any in the arrays
            self._newest = doc_id
            for posting in postings:
                posting.ids.append(doc_id)
        else:
            for posting in postings:
                add_id(posting.ids, doc_id)
        self._rows[doc_id] = (*row, *self._columns_of(doc_id, values), *self._times_of(doc_id, values))

    def _weigh(self, items: Sequence[Any], size: int) -> None:
        for place in self._weighed:
            if type(items[place]) is Posting:
                items[place].size += size

    def _columns_of(self, doc_id: int, values: Sequence[Any]) -> Sequence[Any]:
        if not self._columns:
            return ()
        found = []
        for value in values[len(self.indexed) : len(self.indexed) + len(self._columns)]:
            if isinstance(value, (list, dict)) or (isinstance(value, str) and len(value) > _KEPT_CHARS):
                self._beyond.add(doc_id)
                found.append(UNSET)
            else:
                found.append(value)
        return found

    def _times_of(self, doc_id: int, values: Sequence[Any]) -> Sequence[float | None]:
        found = []
        for place, moments in self._moments_at:
            time = seconds_of(values[place])
            found.append(time)
            if time is not None:
                moments.add(time, doc_id)
        return found

    def _item(self, doc_id: int, field: str, value: Any) -> Any:
        """The entry of a row for this value of an indexed field."""
        if value is UNSET:
            return UNSET
        if isinstance(value, (list, dict)):
            self._beyond.add(doc_id)
            add_id(self._unhashable[field], doc_id)
            return _UNHASHABLE
        postings = self._postings(field, value)
        posting = postings.get(value)
        if posting is None:
            posting = postings[value] = Posting(value, array("q"))
        elif type(posting.value) is not type(value):  # 1, 1.0 and true are equal, and share a posting
            self._beyond.add(doc_id)
        return posting

    def _postings(self, field: str, value: Hashable) -> dict[Any, Posting]:
        return self._texts[field] if type(value) is str else self._others[field]

    def remove(self, doc_id: int, size: int) -> Row:
        """Remove a document of `size` bytes; return what `restore` needs to bring it back."""
        items = self._rows.pop(doc_id)
        self._weigh(items, -size)
        for field, item in zip(self.indexed, items, strict=False):
            if item is _UNHASHABLE:
                _remove_id(self._unhashable[field], doc_id)
            elif item is not UNSET:
                _remove_id(item.ids, doc_id)
                if not item.ids:
                    del self._postings(field, item.value)[item.value]
        for moments, time in zip(self.moments.values(), items[len(items) - len(self.moments) :], strict=True):
            if time is not None:
                moments.remove(time, doc_id)
        row = Row(items, doc_id not in self._beyond)
        self._beyond.discard(doc_id)
        return row

    def restore(self, doc_id: int, row: Row, size: int) -> None:
        """Undo a `remove`."""
        items = list(row.items)
        for number, (field, item) in enumerate(zip(self.indexed, row.items, strict=False)):
            if item is _UNHASHABLE:
                add_id(self._unhashable[field], doc_id)
            elif item is not UNSET:
                posting = items[number] = self._postings(field, item.value).setdefault(item.value, item)
                add_id(posting.ids, doc_id)
        self._weigh(items, size)
        for moments, time in zip(self.moments.values(), items[len(items) - len(self.moments) :], strict=True):
            if time is not None:
                moments.add(time, doc_id)
        self._rows[doc_id] = tuple(items)
        if not row.is_whole:
            self._beyond.add(doc_id)

    def with_value(self, field: str, value: Hashable) -> Ids[int]:
        """Documents whose `field` equals `value`; not to be changed by the caller."""
        posting = self._postings(field, value).get(value)
        return NO_IDS if posting is None else posting.ids

    def size_with(self, field: str, value: Hashable) -> int:
        """Bytes of the JSON of those documents; of a field that is weighed."""
        posting = self._postings(field, value).get(value)
        return 0 if posting is None else posting.size

    def unhashable(self, field: str) -> Ids[int]:
        return self._unhashable[field]


def _remove_id(ids: Ids[int], doc_id: int) -> None:
    place = bisect_left(ids, doc_id)
    if place < len(ids) and ids[place] == doc_id:
        del ids[place]


def intersection(one: Ids[int], other: Ids[int]) -> Ids[int]:
    if not one or not other:
        return NO_IDS
    start, end = max(one[0], other[0]), min(one[-1], other[-1])
    one, other = _within(one, start, end), _within(other, start, end)
    small, large = sorted((one, other), key=len)
    if len(large) == end - start + 1:  # without gaps: whatever the other has is in it
        return small
    if len(small) * 16 < len(large):  # looking each up is cheaper than hashing them all
        return array("q", (doc_id for doc_id in small if has_id(large, doc_id)))
    return array("q", sorted(set(small).intersection(large)))


def _within(ids: Ids[int], start: int, end: int) -> Ids[int]:
    """Those from `start` to `end`, both included."""
    if not ids or (ids[0] >= start and ids[-1] <= end):
        return ids
    return ids[bisect_left(ids, start) : bisect_right(ids, end)]


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
