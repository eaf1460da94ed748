"""A cache of results about texts that others write, with a limit in bytes.

`functools.lru_cache` limits the number of texts, but a few thousand long texts would take gigabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from functools import update_wrapper
from sys import getsizeof
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

_ENTRY_BYTES = 100  # of a dictionary, for one key and its value
_SHARE = 1024  # a text that takes more than this part of the bound is not kept


class Remembered(Generic[T]):
    """A function of a text that keeps what it returned, and returns it again.

    max_bytes: of the texts and their results. The cache has two halves; when the newer half is full, the older half is
    dropped, so recently used texts stay. For any thread. Results must not be None, and must be immutable.
    """

    def __init__(self, find: Callable[[str], T], max_bytes: int) -> None:
        update_wrapper(self, find)
        self._find = find
        self._half_bytes = max_bytes // 2
        self._most_of_one = max_bytes // _SHARE
        self._newer: dict[str, T] = {}
        self._older: dict[str, T] = {}
        self._newer_bytes = self._older_bytes = 0
        self._lock = Lock()

    def __call__(self, text: str) -> T:
        found = self._newer.get(text)
        return found if found is not None else self._look_for(text)

    @property
    def kept_bytes(self) -> int:
        """The bytes that the cache takes now."""
        return self._newer_bytes + self._older_bytes

    def _look_for(self, text: str) -> T:
        found = self._older.get(text)
        if found is None:
            found = self._find(text)
        size = _ENTRY_BYTES + getsizeof(text) + _size(found)
        if size > self._most_of_one:
            return found
        with self._lock:
            if text in self._newer:
                return found
            if self._newer_bytes + size > self._half_bytes:
                self._older, self._older_bytes = self._newer, self._newer_bytes
                self._newer, self._newer_bytes = {}, 0
            self._newer[text] = found
            self._newer_bytes += size
        return found


def remembered(max_bytes: int) -> Callable[[Callable[[str], T]], Remembered[T]]:
    """Decorates a function of a text; see Remembered."""
    return lambda find: Remembered(find, max_bytes)


def _size(found: object) -> int:
    """The memory of a value. Other values than texts and collections of texts are shared, and cost nothing."""
    if isinstance(found, tuple | frozenset):
        items: Iterable[object] = found
        return getsizeof(found) + sum(map(getsizeof, items))
    return getsizeof(found) if isinstance(found, str) else 0
