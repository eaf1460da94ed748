"""One project as the builder knows it: its files, its git facts, and the texts it has read, kept while they are true.

Used by one thread at a time, under `lock`. Nothing here decides what is sent.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pathspec

from .changes import Commit, Status, last_touched, read_log, read_numstat, read_status, uncommitted
from .fragments import FragmentCache
from .git import GitDoor, GitUnavailable, find_toplevel
from .index_client import NearIndex
from .inventory import Listing, Tracked, from_git, from_walk, read_index
from .metadata import main_languages
from .reader import Reader
from .rooted import NotReadable, Root
from .secrets import is_secret_path
from .sections import GitFacts
from .watch import Watcher

SHOWN_COMMITS = 50
HISTORY_COMMITS = 200
SMALL_FILES, SMALL_BYTES = 150, 200 * 1024  # read in less time than another process needs to start
_COUNTED_UNTRACKED = 50  # new files whose lines are counted
_NO_GIT = GitFacts(None, None, (), (), None, None, None)

T = TypeVar("T")


class Snapshot(NamedTuple):
    """A project at one moment. version: the same as long as nothing that is told of the project has changed.

    files_version: the same as long as there are the same files and the same past commits, whatever is in the files.
    sizes: path -> bytes, of the files that can be read.
    """

    listing: Listing
    sizes: dict[str, int]
    git: GitFacts
    touched: dict[str, int]
    languages: tuple[str, ...]
    version: str
    files_version: str
    memo: dict[object, Any]

    def once(self, key: object, make: Callable[[], T]) -> T:
        """What `make` gives, made once for this snapshot: most builds differ only in their task."""
        if key not in self.memo:
            self.memo[key] = make()
        found: T = self.memo[key]
        return found


class _Known(NamedTuple):
    """What git said that stays true until its own files change."""

    tracked: Tracked
    remotes: dict[str, str]
    log: tuple[Commit, ...]


class Project:
    """A project's root and what is known of it. watches: whether changes are watched for, not only looked for."""

    def __init__(
        self, root: Path, fragments: FragmentCache, *, max_file_bytes: int, exclude: tuple[str, ...], watches: bool
    ) -> None:
        self.root = root
        self.lock = threading.Lock()
        self.max_file_bytes = max_file_bytes
        self._fragments = fragments
        self._exclude = pathspec.GitIgnoreSpec.from_lines(exclude)
        self._door: GitDoor | None = None
        self._snapshot: Snapshot | None = None
        self._git_state: object = None
        self._known: _Known | None = None
        self._watches = watches
        self._near_index: NearIndex | None = None
        self._changed: frozenset[str] | None = None
        self._looked: dict[str, int | str] = {}  # what is known of the size of each file, or why it is not read
        self.watcher: Watcher | None = None

    def snapshot(self, *, anew: bool = False) -> Snapshot:
        """The project as it is now. anew: trust nothing that was known. Raises OSError when it cannot be read."""
        if self._watches and self.watcher is None:
            self.watcher = Watcher(self.root)
        changed = self.watcher.take() if self.watcher is not None else None
        self._changed = None if changed is None or self._changed is None else self._changed | changed
        toplevel = find_toplevel(self.root)
        if toplevel is None:
            self._door = None
        elif self._door is None or self._door.toplevel != toplevel:
            self._door = GitDoor(self.root, toplevel)
        try:
            state = self._door.state() if self._door is not None else None
        except GitUnavailable as error:
            return self._without_git(str(error), changed)
        is_same = state == self._git_state and not anew
        if is_same and changed is not None and not changed and self._snapshot is not None:
            return self._snapshot
        self._git_state = state
        if self._door is None:
            return self._without_git(None, changed)
        try:
            return self._with_git(self._door, None if anew else changed, anew=not is_same)
        except GitUnavailable as error:
            self._git_state = None
            return self._without_git(str(error), changed)

    def take_changed(self) -> frozenset[str] | None:
        """Files seen to change since the last call; None: any may have."""
        changed, self._changed = self._changed, frozenset()
        return changed

    def near_index(self, snapshot: Snapshot) -> NearIndex | None:
        """The project's own index if it is small, else None."""
        if len(snapshot.sizes) > SMALL_FILES or sum(snapshot.sizes.values()) > SMALL_BYTES:
            self._near_index = None
        elif self._near_index is None:
            self._near_index = NearIndex()
        return self._near_index

    def close(self) -> None:
        if self.watcher is not None:
            self.watcher.stop()

    def _with_git(self, door: GitDoor, changed: frozenset[str] | None, *, anew: bool) -> Snapshot:
        known = None if anew else self._known
        self._forget(changed)
        door.disarmed()
        # Side by side: each is a process that mostly waits, and `status` alone takes as long as all that is done here.
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="context-git") as beside:
            asked_status = beside.submit(door.status)
            if known is None:
                asked_log = beside.submit(door.log, "HEAD", limit=HISTORY_COMMITS)
                tracked = read_index(door.tracked(), door.prefix)
                self._look_at(tracked.blobs)
                known = _Known(tracked, door.remotes(), _log_of(asked_log, asked_status, door.prefix))
            said = asked_status.result()
        self._known = known
        status = read_status(said, door.prefix)
        differing = [path for path, word in status.changed.items() if word != "untracked"]
        counted = door.numstat(differing) if differing and status.head is not None else b""
        version = _digest(said, counted, known.tracked.version, repr(known.remotes).encode())
        if self._snapshot is not None and self._snapshot.version == version:
            return self._snapshot
        listing = from_git(known.tracked, status.untracked, status.deleted)
        counts = read_numstat(counted, door.prefix) | self._lines_of(status)
        remote = "origin" if "origin" in known.remotes else next(iter(sorted(known.remotes)), None)
        url = known.remotes[remote] if remote else None
        changes = uncommitted(status, counts)
        facts = GitFacts(status.branch, status.head, known.log, changes, remote, url, None)
        return self._keep(listing, facts, version)

    def _forget(self, changed: frozenset[str] | None) -> None:
        """What was learned of these files does not hold any more; None: of any file."""
        if changed is None:
            self._looked.clear()
        else:
            for path in changed:
                self._looked.pop(path, None)

    def _look_at(self, paths: Iterable[str]) -> None:
        """Learn the size of each file that is not known."""
        unknown = [path for path in paths if path not in self._looked]
        with Root(self.root) as root:
            for path, found in zip(unknown, root.states(unknown), strict=True):
                self._looked[path] = found if isinstance(found, str) else found.size

    def _lines_of(self, status: Status) -> dict[str, tuple[int | None, int | None]]:
        """Lines of new files: git counts none for what it does not track."""
        counts: dict[str, tuple[int | None, int | None]] = {}
        with Root(self.root) as root:
            for path in status.untracked[:_COUNTED_UNTRACKED]:
                if is_secret_path(path):
                    continue
                try:
                    data, _ = root.read(path, self.max_file_bytes)
                except NotReadable:
                    continue
                if b"\0" not in data:
                    counts[path] = (data.count(b"\n") + (not data.endswith(b"\n") and bool(data)), 0)
        return counts

    def _without_git(self, problem: str | None, changed: frozenset[str] | None) -> Snapshot:
        self._forget(changed)
        listing = from_walk(self.root)
        version = _digest(repr((problem, listing.paths)).encode("utf-8", "surrogateescape"))
        if self._snapshot is not None and self._snapshot.version == version:
            return self._snapshot
        return self._keep(listing, _NO_GIT._replace(problem=problem), version)

    def _keep(self, listing: Listing, facts: GitFacts, version: str) -> Snapshot:
        if self._exclude:
            listing.unread.update(dict.fromkeys(self._exclude.match_files(listing.paths), "excluded"))
        self._look_at(listing.paths)
        sizes = {}
        for path in listing.paths:
            if path not in listing.unread:
                found = self._looked[path]
                if isinstance(found, int):
                    sizes[path] = found
                else:
                    listing.unread[path] = found
        files_version = _digest("\n".join(sizes).encode(), repr(facts.head).encode())
        touched = last_touched(facts.commits)
        languages = main_languages(listing.paths)
        self._snapshot = Snapshot(listing, sizes, facts, touched, languages, version, files_version, {})
        return self._snapshot

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """Read the project's files. Raises OSError when its folder cannot be opened."""
        with Root(self.root) as root:
            yield Reader(root, str(self.root), self._fragments, self.max_file_bytes)


def _log_of(asked_log: Future[bytes], asked_status: Future[bytes], prefix: str) -> tuple[Commit, ...]:
    """The commits; none where there is no commit yet, which git calls an error."""
    try:
        return read_log(asked_log.result(), prefix)
    except GitUnavailable:
        if read_status(asked_status.result(), prefix).head is None:
            return ()
        raise


def _digest(*parts: bytes) -> str:
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.hexdigest()
