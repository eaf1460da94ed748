"""Watcher: reports which files of a project have changed, so that a request for an unchanged project is cheap.

The kernel queues a change before the call that made it returns, and `take` empties that queue. So whatever was
written before a request is known to it, without a wait and without a thread that reads along. What was lost, because
the queue was full or the folder was replaced, is never silent: `take` then says that anything may have changed.

Where the system cannot watch (no inotify, too many folders), `is_watching` stays False and everything is looked at.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from inotify_simple import INotify, flags

log = logging.getLogger(__name__)

# Plain numbers, since an operation on enum members takes a microsecond and there are several for each change.
_ARRIVED = int(flags.CREATE | flags.MOVED_TO)
_MOVED_AWAY = int(flags.MOVED_FROM)
_TOUCHED = int(flags.ATTRIB)  # of a folder: who may read what is in it
_LEFT = int(flags.DELETE | flags.MOVED_FROM)
_SELF_LEFT = int(flags.DELETE_SELF | flags.MOVE_SELF)
# Reads are left out: a context reads hundreds of files, and would fill the queue by itself.
_CHANGES = _ARRIVED | _LEFT | _TOUCHED | _SELF_LEFT | int(flags.MODIFY | flags.CLOSE_WRITE | flags.ONLYDIR)
_BELOW_THE_ROOT = int(flags.DONT_FOLLOW | flags.EXCL_UNLINK)
_IS_FOLDER, _LOST, _WATCH_ENDED = int(flags.ISDIR), int(flags.Q_OVERFLOW), int(flags.IGNORED)
_ROOT_LEFT = _SELF_LEFT | _WATCH_ENDED | int(flags.UNMOUNT)
_MANY = 2000  # more changes than this at once are a checkout: look at everything
_NEVER_TRIED = (-1, -1)
CAN_WATCH = sys.platform == "linux"


class Watcher:
    """Watches a folder until `stop`. `take` is for one thread at a time; the rest may be called from any.

    `.git` is not watched: the stamps of git's index and refs tell what happens there.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._lock = threading.Lock()
        self._watches: _Watches | None = None
        self._is_stopped = False
        self._is_setting_up = False
        self._thread: threading.Thread | None = None
        self._tried: tuple[int, int] | None = _NEVER_TRIED  # the folder that could not be watched
        self._set_up()

    @property
    def is_watching(self) -> bool:
        return self._watches is not None

    def wait_until_watching(self, timeout_s: float) -> bool:
        """Whether the folder is watched, after up to `timeout_s` of waiting for that."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self.is_watching

    def take(self) -> frozenset[str] | None:
        """Paths, relative to the root, that have changed since the last call; None: anything may have."""
        with self._lock:
            changed = self._taken()
            must_set_up = self._watches is None
        if must_set_up:
            self._set_up()
        return frozenset(changed) if changed is not None and len(changed) <= _MANY else None

    def stop(self) -> None:
        with self._lock:
            self._is_stopped = True
            if self._watches is not None:
                self._watches.close()
                self._watches = None

    def _taken(self) -> set[str] | None:
        """The changes since the last call. None, and the watching ends, when they cannot be trusted."""
        watches = self._watches
        if watches is None:
            return None
        try:
            changed = watches.changed()
        except OSError as error:  # a new folder cannot be watched
            log.warning("project is no longer watched path=%s: %s", self._root, error.strerror)
            self._tried = _identity(self._root)
            changed = None
        if changed is None or not watches.is_at(self._root):
            watches.close()
            self._watches = None
            return None
        if watches.is_new:
            watches.is_new = False
            return None  # changes from before the folder was watched have not been seen
        return changed

    def _set_up(self) -> None:
        """Watch every folder, in a thread: a tree of a hundred thousand folders takes seconds."""
        with self._lock:
            # Another try is worth it only at another folder: no room for watches stays no room.
            if not CAN_WATCH or self._is_stopped or self._is_setting_up or _identity(self._root) == self._tried:
                return
            self._is_setting_up = True
        self._thread = threading.Thread(target=self._open, name="context-watch", daemon=True)
        self._thread.start()

    def _open(self) -> None:
        watches, tried = None, _identity(self._root)
        try:
            watches = _Watches(self._root)
        except OSError as error:
            log.warning("project is not watched path=%s: %s", self._root, error.strerror)
        with self._lock:
            self._is_setting_up = False
            self._tried = tried if watches is None else _NEVER_TRIED
            if watches is not None and self._is_stopped:
                watches.close()
            else:
                self._watches = watches


class _Watches:
    """One watch for each folder of a tree. Raises OSError when a folder cannot be watched.

    is_new: no change has been taken yet.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._folder_of: dict[int, str] = {}  # watch -> path relative to the root, "" for the root
        self._watch_of: dict[str, int] = {}
        self.is_new = True
        self._inotify = INotify(nonblocking=True)
        try:
            self._identity = _identity(root)
            self._root_watch = self._add("", at_root=True)
            for _ in self._add_below(""):
                pass
        except BaseException:
            self._inotify.close()
            raise

    def close(self) -> None:
        self._inotify.close()

    def is_at(self, root: str) -> bool:
        """Whether the watched folder is still the one that the path names."""
        return _identity(root) == self._identity

    def changed(self) -> set[str] | None:
        """Every path that changed since the last call; None when changes were lost or the root itself was replaced."""
        changed: set[str] = set()
        for watch, mask, _, name in self._inotify.read(timeout=0):
            if mask & _LOST or (watch == self._root_watch and mask & _ROOT_LEFT):
                return None
            if mask & _WATCH_ENDED:
                self._forget(watch)
                continue
            folder = self._folder_of.get(watch)
            if folder is None or not name:
                continue  # a folder that has left the tree: its arrival elsewhere names what is in it
            path = f"{folder}/{name}" if folder else name
            if not mask & _IS_FOLDER:
                changed.add(path)
            elif name != ".git" and mask & (_ARRIVED | _LEFT | _TOUCHED):
                changed.add(path)
                if mask & _MOVED_AWAY:
                    self._leave(path)
                elif not mask & _LEFT:
                    changed.update(self._arrive(path))
        return changed

    def _arrive(self, folder: str) -> Iterator[str]:
        """Watch a folder that is new here, and all folders below. Yields the files in them."""
        if self._add(folder) is not None:
            yield from self._add_below(folder)

    def _add_below(self, top: str) -> Iterator[str]:
        """Watch each folder below `top`, which is watched. Yields the paths of all files below.

        A folder is watched before it is listed, so that nothing slips in between.
        """
        folders = [top]
        while folders:
            folder = folders.pop()
            try:
                entries = list(os.scandir(f"{self._root}/{folder}"))
            except OSError:
                continue  # it is gone again, or cannot be read
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if not entry.is_dir(follow_symlinks=False):
                    yield path
                elif entry.name != ".git" and self._add(path) is not None:
                    folders.append(path)

    def _add(self, folder: str, *, at_root: bool = False) -> int | None:
        """Watch one folder. None when it has gone again, or may not be read."""
        mask = _CHANGES if at_root else _CHANGES | _BELOW_THE_ROOT
        try:
            watch: int = self._inotify.add_watch(f"{self._root}/{folder}", mask)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            if at_root:
                raise
            return None
        self._folder_of[watch] = folder
        self._watch_of[folder] = watch
        return watch

    def _leave(self, folder: str) -> None:
        """Stop watching a folder that was moved away, and all below it: their paths are no longer true."""
        below = folder + "/"
        for path in [path for path in self._watch_of if path == folder or path.startswith(below)]:
            watch = self._watch_of[path]
            self._forget(watch)
            with contextlib.suppress(OSError):  # the kernel has removed it with the folder
                self._inotify.rm_watch(watch)

    def _forget(self, watch: int) -> None:
        """Forget a watch. Its path may have a newer one already."""
        path = self._folder_of.pop(watch, None)
        if path is not None and self._watch_of.get(path) == watch:
            del self._watch_of[path]


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
