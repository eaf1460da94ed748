"""Ledger: a journal of entries by key. The last entry of each key counts, and its owner keeps it in memory.

It is rewritten as a snapshot when most of it is out of date.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Generic, TypeVar

import msgspec

from ..typed import LateDecoder
from .journal import Durability, Journal

E = TypeVar("E")

# A rewrite costs an fdatasync. It is worth it from this many entries on, and so many more for each one that counts.
_REWRITE_FROM = 4096
_ENTRIES_OF_LIVE = 4


class Ledger(Generic[E]):
    """A journal of entries by key. entry_type: a union of tagged structs, one for each kind. Used by one thread.

    At level `os`: entries survive the death of the sidecar, and a power loss once they are synced.
    Raises what Journal.open raises.
    """

    def __init__(self, directory: Path, entry_type: UnionType) -> None:
        self.journal = Journal.open(directory, durability=Durability.OS)
        self._decode: LateDecoder[E] = LateDecoder(entry_type)
        self._count = 0

    def entries(self) -> Iterator[E]:
        """All entries, oldest first. To be read once, before the first `write`."""
        for entry in self.journal.entries():
            self._count += 1
            yield self._decode.decode(entry.record)

    def write(self, entries: Sequence[E]) -> None:
        """Write entries, at least one, as one transaction. Raises StorageUnavailable: then none is written."""
        self.journal.append([msgspec.json.encode(entry) for entry in entries])
        self.journal.commit()
        self._count += len(entries)

    def rewrite_if_long(self, live: int, entries: Callable[[], Iterable[E]]) -> None:
        """Rewrite the ledger if most of it is out of date. live: how many entries count. entries: returns them.

        Raises StorageUnavailable: then nothing has changed.
        """
        if self._count > _REWRITE_FROM + _ENTRIES_OF_LIVE * live:
            self.rewrite(entries())

    def rewrite(self, entries: Iterable[E]) -> None:
        """Replace everything by these entries, on the disk when this returns. Raises StorageUnavailable."""
        kept = [msgspec.json.encode(entry) for entry in entries]
        self.journal.compact(kept)
        self._count = len(kept)

    def close(self) -> None:
        self.journal.close()
