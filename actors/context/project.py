"""One project as the builder knows it: its files, its git facts, and the texts it has read, kept while they are true.

Used by one thread at a time, under `lock`. Nothing here decides what is sent.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pathspec

from .changes import Status, last_touched, read_log, read_numstat, read_status, uncommitted
from .emit import Fragment, fragment
from .facts import Text, Unsent, read_text
from .git import GitDoor, GitUnavailable, find_toplevel
from .inventory import Listing, from_git, from_walk
from .kinds import language_of
from .metadata import main_languages
from .rooted import NotReadable, Root, Stamp
from .secrets import is_secret_path
from .sections import GitFacts

SHOWN_COMMITS = 50
HISTORY_COMMITS = 200
_RACY_NS = 50_000_000  # a file changed this short before it was read may have changed again unseen (git's rule)
_NO_GIT = GitFacts(None, None, (), (), None, None, None)


class Snapshot(NamedTuple):
    """A project at one moment. version: the same as long as nothing that is told of the project has changed."""

    listing: Listing
    git: GitFacts
    touched: dict[str, int]
    languages: tuple[str, ...]
    version: str


class FragmentCache:
    """Files ready to send, of all projects, the least recently used dropped beyond `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, ...], tuple[Stamp, Fragment]] = OrderedDict()
        self._lock = threading.Lock()

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


class Project:
    """A project's root and what is known of it."""

    def __init__(self, root: Path, fragments: FragmentCache, *, max_file_bytes: int, exclude: tuple[str, ...]) -> None:
        self.root = root
        self.lock = threading.Lock()
        self._fragments = fragments
        self._max_file_bytes = max_file_bytes
        self._exclude = pathspec.GitIgnoreSpec.from_lines(exclude)
        self._door: GitDoor | None = None
        self._snapshot: Snapshot | None = None

    def snapshot(self) -> Snapshot:
        """The project as it is now. Raises OSError when its folder cannot be read."""
        toplevel = find_toplevel(self.root)
        if toplevel is None:
            return self._without_git(None)
        if self._door is None or self._door.toplevel != toplevel:
            self._door = GitDoor(self.root, toplevel)
        try:
            return self._with_git(self._door)
        except GitUnavailable as error:
            return self._without_git(str(error))

    def _with_git(self, door: GitDoor) -> Snapshot:
        said = door.status()
        head = door.head()
        counted = door.numstat() if head is not None and said else b""
        tracked = door.tracked()
        branch = door.branch()
        remotes = door.remotes()
        told = (said, counted, tracked, repr((head, branch, sorted(remotes.items()))).encode())
        version = _digest(*told)
        if self._snapshot is not None and self._snapshot.version == version:
            return self._snapshot
        status = read_status(said, door.prefix)
        listing = from_git(tracked, status.untracked, status.deleted, door.prefix)
        counts = read_numstat(counted, door.prefix) | self._lines_of(status)
        commits = read_log(door.log(head, limit=HISTORY_COMMITS), door.prefix) if head is not None else ()
        remote = "origin" if "origin" in remotes else next(iter(sorted(remotes)), None)
        facts = GitFacts(
            branch, head, commits, uncommitted(status, counts), remote, remotes[remote] if remote else None, None
        )
        return self._keep(listing, facts, version)

    def _lines_of(self, status: Status) -> dict[str, tuple[int | None, int | None]]:
        """Lines of new files: git counts none for what it does not track."""
        counts: dict[str, tuple[int | None, int | None]] = {}
        with Root(self.root) as root:
            for path in status.untracked[:50]:
                if is_secret_path(path):
                    continue
                try:
                    data, _ = root.read(path, self._max_file_bytes)
                except NotReadable:
                    continue
                if b"\0" not in data:
                    counts[path] = (data.count(b"\n") + (not data.endswith(b"\n") and bool(data)), 0)
        return counts

    def _without_git(self, problem: str | None) -> Snapshot:
        listing = from_walk(self.root)
        version = _digest(repr((problem, listing.paths)).encode("utf-8", "surrogateescape"))
        if self._snapshot is not None and self._snapshot.version == version:
            return self._snapshot
        return self._keep(listing, _NO_GIT._replace(problem=problem), version)

    def _keep(self, listing: Listing, facts: GitFacts, version: str) -> Snapshot:
        listing.unread.update(dict.fromkeys(self._exclude.match_files(listing.paths), "excluded"))
        languages = main_languages(listing.paths)
        self._snapshot = Snapshot(listing, facts, last_touched(facts.commits), languages, version)
        return self._snapshot

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """Read the project's files. Raises OSError when its folder cannot be opened."""
        with Root(self.root) as root:
            yield Reader(root, str(self.root), self._fragments, self._max_file_bytes)


class Reader:
    """Files of one project during one build."""

    def __init__(self, root: Root, name: str, fragments: FragmentCache, max_file_bytes: int) -> None:
        self._root = root
        self._name = name
        self._fragments = fragments
        self._max_file_bytes = max_file_bytes
        self._texts: dict[str, Text] = {}

    def stamp(self, path: str) -> Stamp | Unsent:
        try:
            return self._root.stamp(path)
        except NotReadable as error:
            return Unsent(str(error))

    def text(self, path: str, *, named: bool = False) -> Text | Unsent:
        """The text of a file, at most its first `max_file_bytes`; never that of a file with secrets."""
        if is_secret_path(path):
            return Unsent("secret")
        try:
            data, _ = self._root.read(path, self._max_file_bytes)
        except NotReadable as error:
            return Unsent(str(error))
        return read_text(data, named=named)

    def fragment(self, path: str, *, named: bool = False) -> tuple[Fragment, Stamp] | Unsent:
        """The file ready to send, as it is on the disk now: kept pieces are used only if its stamp is the same."""
        if is_secret_path(path):
            return Unsent("secret")
        key = (self._name, path, "named" if named else "")
        try:
            stamp = self._root.stamp(path)
            if (kept := self._fragments.get(key, stamp)) is not None:
                return kept, stamp
            data, stamp = self._root.read(path, self._max_file_bytes)
        except NotReadable as error:
            return Unsent(str(error))
        text = read_text(data, named=named)
        if isinstance(text, Unsent):
            return text
        if stamp.size > len(data):
            text = text._replace(checksum="")  # not of the whole file, and that would take reading it
        made = fragment(
            path, language_of(path), stamp, text, max_bytes=self._max_file_bytes, cut=stamp.size > len(data)
        )
        if time.time_ns() - stamp.mtime_ns > _RACY_NS:
            self._fragments.put(key, stamp, made)
        return made, stamp

    def start_of(self, path: str, max_bytes: int) -> tuple[Fragment, Stamp] | Unsent:
        """The start of a file in an entry of at most `max_bytes`."""
        if is_secret_path(path):
            return Unsent("secret")
        try:
            data, stamp = self._root.read(path, self._max_file_bytes)
        except NotReadable as error:
            return Unsent(str(error))
        text = read_text(data)
        if isinstance(text, Unsent):
            return text
        around = fragment(path, language_of(path), stamp, text._replace(text=""), max_bytes=2, cut=True)
        return fragment(
            path, language_of(path), stamp, text, max_bytes=max_bytes - len(around.data), cut=stamp.size > len(data)
        ), stamp


def _digest(*parts: bytes) -> str:
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.hexdigest()
