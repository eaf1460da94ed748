"""Remembers which contents of files hold no secret, so that none is looked through twice.

The same content is read for one context after another: for excerpts, from a work tree of each agent, and again when it
was too large or too old to be kept ready. What a rule says changes only with the process.
"""

from __future__ import annotations

from threading import Lock

_MOST_IN_A_HALF = 16 * 1024  # contents; a key takes about 130 bytes


class CleanContents:
    """The keys of contents in which no secret was found. Any thread may ask.

    A key tells the bytes and how they were read. Of two halves the older one is forgotten when the newer one is full.
    """

    def __init__(self, most_in_a_half: int = _MOST_IN_A_HALF) -> None:
        self._most = most_in_a_half
        self._newer: set[bytes] = set()
        self._older: set[bytes] = set()
        self._lock = Lock()

    def __contains__(self, key: bytes) -> bool:
        if key in self._newer:
            return True
        if key not in self._older:
            return False
        self.add(key)
        return True

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def add(self, key: bytes) -> None:
        with self._lock:
            if len(self._newer) >= self._most:
                self._older, self._newer = self._newer, set()
            self._newer.add(key)
