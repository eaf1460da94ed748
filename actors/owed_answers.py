"""OwedAnswers: answers that wait until what they tell of is in the registry, and a revocation in it on the disk."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from ..state.errors import StorageUnavailable
from .asking import Later


class _Owed(msgspec.Struct):
    """what: it tells of, for the error. after: the record that must be on the disk; None until it is written."""

    later: Later[Any]
    answer: Any
    what: str
    after: int | None = None


class OwedAnswers:
    """In the order in which they are owed, which is that of the records that they wait for."""

    def __init__(self) -> None:
        self._owed: deque[_Owed] = deque()

    def owe(self, later: Later[Any], answer: Any, what: str) -> None:
        self._owed.append(_Owed(later, answer, what))

    def settle(self, error: StorageUnavailable | None, *, wait_for: int, synced: int) -> None:
        """Give those whose time has come.

        error: why what was put could not be kept, or None. wait_for: the newest record that must be on the disk before
        it may be told. synced: the newest that is.
        """
        if error is not None:
            while self._owed:
                owed = self._owed.popleft()
                owed.later.refuse(StorageUnavailable(f"{owed.what}, which could not be written down: {error.message}"))
            return
        for owed in self._owed:
            if owed.after is None:
                owed.after = wait_for
        while self._owed and (self._owed[0].after or 0) <= synced:
            owed = self._owed.popleft()
            owed.later.answer(owed.answer)
