"""OwedAnswers: answers that wait until their records are in the registry, and revocations among them are synced."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from ...state.errors import StorageUnavailable
from ..runtime.asking import Later


class _Owed(msgspec.Struct):
    """One answer. what: its subject, for the error. after: the record that must be synced; None until it is written."""

    later: Later[Any]
    answer: Any
    what: str
    after: int | None = None


class OwedAnswers:
    """The answers in the order of the records that they wait for."""

    def __init__(self) -> None:
        self._owed: deque[_Owed] = deque()

    def owe(self, later: Later[Any], answer: Any, what: str) -> None:
        self._owed.append(_Owed(later, answer, what))

    def settle(self, error: StorageUnavailable | None, *, wait_for: int, synced: int) -> None:
        """Give the answers that are due.

        error: why records could not be kept, or None. wait_for: the newest record that an answer waits for.
        synced: the newest synced record.
        """
        if error is not None:
            while self._owed:
                owed = self._owed.popleft()
                owed.later.refuse(StorageUnavailable(f"{owed.what}, but that could not be recorded: {error.message}"))
            return
        for owed in self._owed:
            if owed.after is None:
                owed.after = wait_for
        while self._owed and (self._owed[0].after or 0) <= synced:
            owed = self._owed.popleft()
            owed.later.answer(owed.answer)
