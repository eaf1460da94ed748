"""Waitress's worker threads, started with the first request that needs one: until then the loop answers by itself."""

from __future__ import annotations

import logging

from waitress.task import ThreadedTaskDispatcher


class Workers(ThreadedTaskDispatcher):  # type: ignore[misc]  # waitress has no types
    """A pool of worker threads. count: their number."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count
        # Waitress warns of every request for which no worker is idle; a queue is what the workers are for.
        self.queue_logger.setLevel(logging.ERROR)

    def add_task(self, task: object) -> None:
        """Have a worker call `task.service()`. Called in the I/O thread."""
        if self._count:
            self.set_thread_count(self._count)
            self._count = 0
        super().add_task(task)

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        self._count = 0
        return bool(super().shutdown(cancel_pending, timeout))
