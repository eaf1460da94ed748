"""Notices that files of a project change, so that an unchanged project costs nothing to ask about.

What it says is a hint: every file that is sent is looked at anyway. Where the system cannot watch (too many folders,
no inotify), `is_watching` stays False and everything is validated by stat and git.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from watchfiles import watch

log = logging.getLogger(__name__)

# watchfiles' own default lets 1.6 s pass before it tells; with these an event is here 3 ms after the write.
_DEBOUNCE_MS, _STEP_MS = 10, 2
_LOOK_UP_MS = 250  # how soon the thread sees that it should stop
_MANY = 2000  # so many changes at once are a checkout: look at everything


class Watcher:
    """Watches a folder in a thread of its own until `stop`. Methods may be called from any thread."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._lock = threading.Lock()
        self._changed: set[str] = set()
        self._everything = True
        self._watching = threading.Event()
        self._stop = threading.Event()
        threading.Thread(target=self._run, name="context-watch", daemon=True).start()

    @property
    def is_watching(self) -> bool:
        return self._watching.is_set()

    def wait_until_watching(self, timeout_s: float) -> bool:
        return self._watching.wait(timeout_s)

    def take(self) -> frozenset[str] | None:
        """Paths, relative to the root, that have changed since the last call; None: anything may have."""
        with self._lock:
            if self._everything or not self.is_watching:
                self._everything = not self.is_watching
                self._changed.clear()
                return None
            changed = frozenset(self._changed)
            self._changed.clear()
            return changed

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        try:
            for changes in watch(
                self._root,
                watch_filter=None,
                debounce=_DEBOUNCE_MS,
                step=_STEP_MS,
                stop_event=self._stop,
                rust_timeout=_LOOK_UP_MS,
                yield_on_timeout=True,
                raise_interrupt=False,
                ignore_permission_denied=True,
            ):
                self._note([os.path.relpath(path, self._root) for _, path in changes])
        except Exception as error:  # noqa: BLE001 - watchfiles raises a bare RuntimeError, among others
            log.warning("project not watched, contexts are validated by stat: %s", type(error).__name__)
        finally:
            with self._lock:
                self._watching.clear()
                self._everything = True

    def _note(self, paths: list[str]) -> None:
        with self._lock:
            if not self._watching.is_set():
                # What changed before this was not seen.
                self._everything = True
                self._watching.set()
            # git's own files are judged by the stamps of its index and refs.
            self._changed.update(path for path in paths if not path.startswith(".git" + os.sep))
            if len(self._changed) > _MANY:
                self._changed.clear()
                self._everything = True
