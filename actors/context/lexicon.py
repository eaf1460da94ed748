"""Lexicon: which terms stand in which files, and how well a query fits each (BM25). Updated file by file.

Postings only grow; a file that changed gets a new number and its old one is dead, until enough are dead and
everything is written anew. Plain arrays: an update costs microseconds, where the BM25 packages rebuild everything.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from math import log

_K1 = 1.2
_B = 0.75
_DEAD_SHARE = 0.3


class Lexicon:
    """Documents by key (a path, a commit) with the counts of their terms."""

    def __init__(self, *, k1: float = _K1, b: float = _B) -> None:
        self._k1, self._b = k1, b
        self._number: dict[str, int] = {}
        self._keys: list[str | None] = []
        self._lengths = array("L")
        self._total = 0
        self._norms: list[float] | None = None
        self._postings: dict[str, tuple[array[int], array[int]]] = {}

    def __len__(self) -> int:
        return len(self._number)

    def __contains__(self, key: str) -> bool:
        return key in self._number

    def put(self, key: str, counts: Mapping[str, int]) -> None:
        """Add a document, or replace it."""
        self.remove(key)
        self._norms = None
        number = len(self._keys)
        self._keys.append(key)
        self._number[key] = number
        length = 0
        for term, times in counts.items():
            length += times
            found = self._postings.get(term)
            if found is None:
                found = self._postings[term] = (array("L"), array("L"))
            found[0].append(number)
            found[1].append(times)
        self._lengths.append(length)
        self._total += length

    def remove(self, key: str) -> None:
        number = self._number.pop(key, None)
        if number is None:
            return
        self._keys[number] = None
        self._norms = None
        self._total -= self._lengths[number]
        if len(self._keys) > 64 and len(self._number) < len(self._keys) * (1 - _DEAD_SHARE):
            self._write_anew()

    def _write_anew(self) -> None:
        moved = {old: new for new, old in enumerate(sorted(self._number.values()))}
        self._keys = [self._keys[old] for old in moved]
        self._lengths = array("L", (self._lengths[old] for old in moved))
        self._number = {key: number for number, key in enumerate(self._keys) if key is not None}
        for term, (numbers, times) in list(self._postings.items()):
            kept = [(moved[number], count) for number, count in zip(numbers, times, strict=True) if number in moved]
            if kept:
                self._postings[term] = (array("L", (n for n, _ in kept)), array("L", (c for _, c in kept)))
            else:
                del self._postings[term]

    def _norms_now(self) -> list[float]:
        """What the length of each document takes off, kept until a document comes or goes."""
        if self._norms is None:
            mean = self._total / len(self._number) or 1.0
            k1, b = self._k1, self._b
            self._norms = [k1 * (1 - b + b * length / mean) for length in self._lengths]
        return self._norms

    def weight_of(self, term: str) -> float:
        """How telling a term is, from about 0 (in every document) up; 0 for one that stands nowhere."""
        found = self._postings.get(term)
        if found is None:
            return 0.0
        spread = len(found[0])
        return log(1 + (len(self._number) - spread + 0.5) / (spread + 0.5)) if spread < len(self._number) else 0.01

    def scores(self, query: Mapping[str, float]) -> dict[str, float]:
        """BM25 of every document that has a term of the query. query: term -> its weight in it."""
        if not self._number:
            return {}
        k1, norms = self._k1, self._norms_now()
        totals = [0.0] * len(self._keys)
        for term, asked in sorted(query.items()):  # sorted: sums of floats depend on their order
            found = self._postings.get(term)
            if found is None:
                continue
            worth = asked * self.weight_of(term) * (k1 + 1)
            for number, times in zip(*found, strict=True):
                totals[number] += worth * times / (times + norms[number])
        return {key: total for key, total in zip(self._keys, totals, strict=True) if key is not None and total > 0}
