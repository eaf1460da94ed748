"""LogWatch: limits the logs of running agents while they write; fast writers are checked more often.

A file that an agent writes itself can only be cut afterwards. It exceeds its limit by the output between two checks:
LOOK_EVERY_S apart, or BUSY_EVERY_S if a log has just grown by much of the limit.
"""

from __future__ import annotations

import time

from .agent_logs import AgentLogs
from .background import BackgroundLoop

LOOK_EVERY_S = 0.1
BUSY_EVERY_S = 0.02
_AT_MOST_S_PER_S = 0.002  # of a CPU for looks where nothing is busy: with many agents they come less often


class LogWatch(BackgroundLoop):
    """A thread that looks at the logs named by `watch`."""

    def __init__(self, logs: AgentLogs) -> None:
        super().__init__("logs")
        self._logs = logs
        self._watched: dict[int, int] = {}  # serial: how much of its logs was on the disk at the last look

    def watch(self, serial: int) -> None:
        """An agent runs, and may write.

        Only the first wakes the thread, others wait for the next look: a look at all agents whenever one starts would
        take the GIL just while the start needs it.
        """
        with self._changed:
            if not self._watched:
                self._changed.notify()
            self._watched.setdefault(serial, 0)

    def leave(self, serial: int) -> None:
        """The agent has ended: its logs no longer grow."""
        with self._changed:
            self._watched.pop(serial, None)

    def _run(self) -> None:
        wait_s: float | None = None
        while True:
            with self._changed:
                while not self._stopped and not self._watched:
                    self._changed.wait()
                if not self._stopped and wait_s is not None:
                    self._changed.wait(wait_s)
                if self._stopped:
                    return
                watched = dict(self._watched)
            started = time.monotonic()
            is_busy = False
            for serial, before in watched.items():
                size = self._logs.bound_running(serial)
                is_busy |= size - before > self._logs.max_bytes // 4
                watched[serial] = min(size, self._logs.max_bytes)
            with self._changed:
                self._watched.update((serial, watched[serial]) for serial in watched.keys() & self._watched.keys())
            took_s = time.monotonic() - started
            wait_s = BUSY_EVERY_S if is_busy else max(LOOK_EVERY_S, took_s / _AT_MOST_S_PER_S)
