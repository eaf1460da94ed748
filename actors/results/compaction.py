"""Rewrites the result store's journal while its writers go on, in a thread that only reads frozen data."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

from ...state.errors import SidecarError, StorageUnavailable
from ...state.journal.compaction import Compaction
from ...state.results.document_store import DocumentStore
from ..runtime.asking import Recipient
from .facts import ResultsCompacted

log = logging.getLogger(__name__)

AGAIN_AFTER_S = 60.0
PAUSE_S = 0.004  # after each 256 KiB, so that writers are hardly slowed


class ResultCompaction:
    """At most one at a time. Everything but the writing happens in the store's thread."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents
        self._running: Compaction | None = None
        self._steps: Iterator[None] | None = None  # of finishing it
        self._thread: threading.Thread | None = None
        self._not_before = 0.0
        self._closing = threading.Event()

    def start_if_worth(self, store: Recipient) -> None:
        """Call it when everything is committed."""
        if self._running is not None or time.monotonic() < self._not_before:
            return
        if not self._documents.is_worth_compacting():
            return
        self._not_before = time.monotonic() + AGAIN_AFTER_S
        try:
            self._running, records = self._documents.begin_compaction()
        except StorageUnavailable as error:
            log.warning("results not compacted: %s", error)
            return
        self._thread = threading.Thread(
            target=self._write, args=(self._running, records, store), name="result-compaction", daemon=True
        )
        self._thread.start()

    def written(self, fact: ResultsCompacted, store: Recipient) -> None:
        """Take one step of moving to the snapshot, and send the store the fact that makes it go on.

        Call it when everything is committed.
        """
        if self._running is None or fact.at != self._running.at:
            return  # of an earlier incarnation
        if fact.error is not None:
            log.warning("results not compacted: %s", fact.error)
            self._documents.give_up_compaction()
            self._running = None
            return
        if self._steps is None:
            self._steps = self._documents.finish_in_steps(self._running)
        for _ in self._steps:
            store.tell(fact)
            return
        self._running = self._steps = None

    def close(self) -> None:
        """End the writing, if there is any; nothing of it is left."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _write(self, compaction: Compaction, records: Callable[[], Iterator[bytes]], store: Recipient) -> None:
        error: BaseException | None = None
        try:
            compaction.write(records, self._breathe)
        except (SidecarError, _Interrupted) as failure:
            error = failure
        store.tell(ResultsCompacted(at=compaction.at, error=error))

    def _breathe(self) -> None:
        if self._closing.wait(PAUSE_S):
            raise _Interrupted("the store is closing")


class _Interrupted(Exception):
    """The store closes while a snapshot is written."""
