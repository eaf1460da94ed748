"""Syncs journals of level `os` in a separate thread, so that writers do not wait for the disk.

The owner begins a sync, the thread runs it, and the owner notes in the journal what is synced: from then on damage to
it can be told apart from a torn tail, also after a power loss.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from .journal import Journal
from .segment import SegmentSync

# While a journal is written to without a pause.
SYNC_EVERY_S = 5.0
SETTLE_AFTER_S = 0.25  # after something was written, and as long after that as it goes on


class BackgroundSync:
    """Keeps the journals of one owner synced. All methods except `_run` are called in the owner's thread.

    synced: called in another thread when a sync is done; the owner then calls `look`.
    """

    def __init__(self, journals: Sequence[Journal], synced: Callable[[], None]) -> None:
        self._journals = journals
        self._synced = synced
        self._seen: dict[Journal, int] = {}  # the last record of each at the last look
        self._begun_at: dict[Journal, float] = {}  # monotonic
        self._work: queue.SimpleQueue[SegmentSync | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def look(self, *, now: float, at_once: bool = False) -> bool:
        """Mark finished syncs, and begin to sync journals that were not written to since the last call.

        at_once: sync journals that are being written to, too. Returns whether everything is synced and marked.
        """
        is_settled = True
        for journal in self._journals:
            if journal.settle():
                continue
            is_settled = False
            is_idle = self._seen.get(journal) == journal.last_seq
            self._seen[journal] = journal.last_seq
            is_due = now - self._begun_at.get(journal, float("-inf")) >= SYNC_EVERY_S
            if (at_once or is_idle or is_due) and (sync := journal.begin_sync()) is not None:
                self._begun_at[journal] = now
                self._start(sync)
        return is_settled

    @property
    def is_behind(self) -> bool:
        """Whether a journal has an unsynced commit."""
        return any(journal.synced_seq != journal.last_seq for journal in self._journals)

    @property
    def failure(self) -> str | None:
        """Why a journal accepts no more records, or None. Its owner opens it again, from the disk."""
        return next((failure for journal in self._journals if (failure := journal.failure) is not None), None)

    def close(self) -> None:
        """End the thread after its current sync. The journals sync the rest when they close."""
        if self._thread is not None:
            self._work.put(None)

    def _start(self, sync: SegmentSync) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sync", daemon=True)
            self._thread.start()
        self._work.put(sync)

    def _run(self) -> None:
        while (sync := self._work.get()) is not None:
            sync.run()
            self._synced()
