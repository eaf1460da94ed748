"""Lexicon: which terms stand in which files, and how well a query fits each (BM25). Updated file by file.

Kept by name as it is written; the terms of a name are worked out once, when it is first seen, and put together when a
query asks for them. Plain sorted arrays: to replace a file costs well under a millisecond, where the BM25 packages
rebuild everything, and queries of a few dozen terms take a few milliseconds without numpy's 60 MB.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping
from math import log
from typing import NamedTuple

_K1 = 1.2
_B = 0.75
_TIMES_BITS = 12  # an entry is the document's number and, below it, how often the name stands there
_SWEEP_AT = 20_000  # names that stand nowhere
_MOST_TIMES = (1 << _TIMES_BITS) - 1


class _Posting(NamedTuple):
    """Where one name stands. width: how many terms it has; entries: sorted, one a document."""

    name: str
    width: int
    entries: array[int]


class _Merged(NamedTuple):
    """Where one term stands: documents, and how often in each."""

    numbers: list[int]
    times: list[int]


_NOWHERE = _Merged([], [])


class Lexicon:
    """Documents by key (a path, a commit) with the counts of their names.

    terms_of: the terms of a name; without it, names are terms.
    """

    def __init__(
        self, *, k1: float = _K1, b: float = _B, terms_of: Callable[[str], tuple[str, ...]] | None = None
    ) -> None:
        self._k1, self._b = k1, b
        self._terms_of = terms_of or (lambda name: (name,))
        self._number: dict[str, int] = {}
        self._keys: list[str | None] = []
        self._held: dict[str, list[_Posting]] = {}
        self._free: list[int] = []
        self._lengths = array("I")
        self._total = 0
        self._norms: list[float] | None = None
        self._postings: dict[str, _Posting] = {}
        self._names: dict[str, list[str]] = {}  # term -> the names that have it
        self._idle = 0  # names that stand nowhere: of files that are gone, or are just being replaced
        self._merged: dict[str, _Merged] = {}  # of terms that were asked for

    def __len__(self) -> int:
        return len(self._number)

    def __contains__(self, key: str) -> bool:
        return key in self._number

    def put(self, key: str, counts: Mapping[str, int]) -> None:
        """Add a document, or replace it. counts: name -> how often it stands there."""
        self.remove(key)
        self._norms = None
        if self._free:
            number = self._free.pop()
        else:
            number = len(self._keys)
            self._keys.append(None)
            self._lengths.append(0)
        first = number << _TIMES_BITS
        length = 0
        held = []
        postings = self._postings
        for name, times in counts.items():
            posting = postings.get(name) or self._begin(name)
            _, width, entries = posting
            if not width:
                continue
            length += width * times
            entry = first | (times if times < _MOST_TIMES else _MOST_TIMES)
            if not entries:
                self._idle -= 1
                entries.append(entry)
            elif entries[-1] > entry:
                insort(entries, entry)
            else:
                entries.append(entry)
            held.append(posting)
        self._number[key] = number
        self._keys[number] = key
        self._held[key] = held
        self._lengths[number] = length
        self._total += length
        self._forget_merged(held)

    def _begin(self, name: str) -> _Posting:
        """A name that is seen for the first time. One without terms is kept too: it will be seen again."""
        terms = self._terms_of(name)
        posting = self._postings[name] = _Posting(name, len(terms), array("I"))
        for term in terms:
            self._names.setdefault(term, []).append(name)
        self._idle += bool(terms)
        return posting

    def remove(self, key: str) -> None:
        number = self._number.pop(key, None)
        if number is None:
            return
        self._norms = None
        held = self._held.pop(key)
        for _, _, entries in held:
            del entries[bisect_left(entries, number << _TIMES_BITS)]
            self._idle += not entries
        self._forget_merged(held)
        self._keys[number] = None
        self._total -= self._lengths[number]
        self._lengths[number] = 0
        self._free.append(number)
        if self._idle > max(_SWEEP_AT, len(self._postings) // 2):
            self._sweep()

    def _sweep(self) -> None:
        """Forget names that stand nowhere any more. To look for each as it goes would take thousands of steps."""
        self._postings = {name: posting for name, posting in self._postings.items() if posting.entries}
        self._names = {}
        for name in self._postings:
            for term in self._terms_of(name):
                self._names.setdefault(term, []).append(name)
        self._idle = 0

    def _forget_merged(self, held: list[_Posting]) -> None:
        if self._merged:
            for name, _, _ in held:
                for term in self._terms_of(name):
                    self._merged.pop(term, None)

    def _where(self, term: str) -> _Merged:
        """Where a term stands, put together from the names that have it."""
        names = self._names.get(term)
        if names is None:
            return _NOWHERE
        found = self._merged.get(term)
        if found is None:
            sums: dict[int, int] = {}
            for name in names:
                for entry in self._postings[name].entries:
                    number = entry >> _TIMES_BITS
                    sums[number] = sums.get(number, 0) + (entry & _MOST_TIMES)
            found = self._merged[term] = _Merged(list(sums), list(sums.values()))
        return found

    def weight_of(self, term: str) -> float:
        """How telling a term is, from about 0 (in every document) up; 0 for one that stands nowhere."""
        spread = len(self._where(term).numbers)
        return log(1 + (len(self._number) - spread + 0.5) / (spread + 0.5)) if spread else 0.0

    def _norms_now(self) -> list[float]:
        """The penalty for the length of each document, kept until a document comes or goes."""
        if self._norms is None:
            mean = self._total / len(self._number) or 1.0
            k1, b = self._k1, self._b
            self._norms = [k1 * (1 - b + b * length / mean) for length in self._lengths]
        return self._norms

    def scores(self, query: Mapping[str, float]) -> dict[str, float]:
        """BM25 of every document that has a term of the query. query: term -> its weight in it."""
        if not self._number:
            return {}
        k1, norms = self._k1, self._norms_now()
        totals = [0.0] * len(self._keys)
        for term, asked in sorted(query.items()):  # sorted: sums of floats depend on their order
            worth = asked * self.weight_of(term) * (k1 + 1)
            for number, times in zip(*self._where(term), strict=True):
                totals[number] += worth * times / (times + norms[number])
        return {key: total for key, total in zip(self._keys, totals, strict=True) if key is not None and total > 0}
