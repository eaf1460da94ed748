"""Files ready to send, kept as long as their stamps on the disk stay the same."""

from __future__ import annotations

import threading
from collections import OrderedDict

from .emit import Fragment
from .safe_root import Stamp


class FragmentCache:
    """Fragments of all projects, the least recently used dropped beyond `max_bytes`. For any thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, ...], tuple[Stamp, Fragment]] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, key: tuple[str, ...]) -> bool:
        return key in self._kept

    def get(self, key: tuple[str, ...], stamp: Stamp) -> Fragment | None:
        with self._lock:
            found = self._kept.get(key)
            if found is None or found[0] != stamp:
                return None
            self._kept.move_to_end(key)
            return found[1]

    def put(self, key: tuple[str, ...], stamp: Stamp, made: Fragment) -> None:
        with self._lock:
            old = self._kept.pop(key, None)
            self._bytes -= len(old[1].data) if old else 0
            if len(made.data) > self._max_bytes:
                return
            self._kept[key] = (stamp, made)
            self._bytes += len(made.data)
            while self._bytes > self._max_bytes:
                _, (_, dropped) = self._kept.popitem(last=False)
                self._bytes -= len(dropped.data)
