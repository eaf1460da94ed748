"""One project as the builder knows it: its files, its git facts, and the texts it has read, kept while they are true.

Used by one thread at a time, under `lock`. Nothing here decides what is sent.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from .changes import (
    Commit,
    WorkingTreeStatus,
    last_touched,
    read_dates,
    read_log,
    read_numstat,
    read_status,
    read_untracked,
    uncommitted,
    undated,
)
from .fragments import FragmentCache
from .git.git import GitUnavailable
from .git.place import find_git
from .git.repository import Repository, Shadows
from .globs import IgnoreRules
from .index.client import NearIndex
from .inventory import FileListing, Tracked, from_git, from_walk, has_files, read_index, without_secret_names
from .metadata import main_languages
from .private_folders import private_in
from .reader import FileReader
from .safe_root import NotReadable, Root
from .secrets.names import is_secret_path
from .sections import GitFacts
from .watch import Watcher

log = logging.getLogger(__name__)

SHOWN_COMMITS = 50
HISTORY_COMMITS = 200
SMALL_FILES, SMALL_BYTES = 150, 200 * 1024  # read in less time than another process needs to start
_COUNTED_UNTRACKED = 50  # new files whose lines are counted
_NO_GIT = GitFacts(None, None, (), (), None, None, ())
_NO_FILES = FileListing((), {}, frozenset(), {}, 0, False)

T = TypeVar("T")


class Snapshot(NamedTuple):
    """A project at one moment. version: the same as long as nothing sent about the project has changed.

    files_version: the same as long as there are the same files and the same past commits, whatever the files contain.
    sizes: path -> bytes, of the files that can be read.
    """

    listing: FileListing
    sizes: dict[str, int]
    git: GitFacts
    touched: dict[str, int]
    languages: tuple[str, ...]
    version: str
    files_version: str
    memo: dict[object, Any]

    def once(self, key: object, make: Callable[[], T]) -> T:
        """The result of `make`, made once for this snapshot: most builds differ only in their task."""
        if key not in self.memo:
            self.memo[key] = make()
        found: T = self.memo[key]
        return found


class _Known(NamedTuple):
    """Git's answers that stay true until its own files change. tracked: None if git could not read the index."""

    tracked: Tracked | None
    log: tuple[Commit, ...]
    problems: tuple[str, ...]


class Project:
    """A project's root and what is known of it. watches: whether changes are watched for, not only looked for.

    shadows: where git directories of our own are made. storage: the sidecar's own, which may lie in the root.
    """

    def __init__(
        self,
        root: Path,
        fragments: FragmentCache,
        *,
        max_file_bytes: int,
        exclude: tuple[str, ...],
        watches: bool,
        shadows: Shadows,
        storage: Path | None = None,
    ) -> None:
        self.root = root
        self.lock = threading.Lock()
        self.max_file_bytes = max_file_bytes
        self._fragments = fragments
        self._exclude = IgnoreRules(exclude)
        self._shadows = shadows
        self._storage = storage
        self._repository: Repository | None = None
        self._snapshot: Snapshot | None = None
        self._git_state: object = None
        self._known: _Known | None = None
        self._problems: tuple[str, ...] = ()
        self._watches = watches
        self._near_index: NearIndex | None = None
        self._changed: frozenset[str] | None = None
        self._looked: dict[str, int | str] = {}  # what is known of the size of each file, or why it is not read
        self.watcher: Watcher | None = None

    def snapshot(self, *, fresh: bool = False) -> Snapshot:
        """The project as it is now. fresh: trust nothing that is known. Raises OSError when it cannot be read."""
        if self._watches and self.watcher is None:
            self.watcher = Watcher(self.root)
        changed = self.watcher.take() if self.watcher is not None else None
        self._changed = None if changed is None or self._changed is None else self._changed | changed
        try:
            self._open_repository()
            state = self._repository.state() if self._repository is not None else None
        except GitUnavailable as error:
            return self._without_git((str(error),), changed)
        is_same = state == self._git_state and not fresh
        if is_same and changed is not None and not changed and self._snapshot is not None:
            return self._snapshot
        self._git_state = state
        if self._repository is None:
            return self._without_git((), changed)
        try:
            return self._with_git(self._repository, None if fresh else changed, fresh=not is_same)
        except GitUnavailable as error:
            self._git_state = None
            return self._without_git((str(error),), changed)

    @property
    def history(self) -> tuple[str, str] | None:
        """The git directory in which an index may look for past commits, and the root below its toplevel."""
        return (str(self._repository.git_dir), self._repository.prefix) if self._repository is not None else None

    def _open_repository(self) -> None:
        found = find_git(self.root)
        if self._repository is not None and self._repository.found != found:
            self._repository.close()
            self._repository = None
        if self._repository is None and found is not None:
            self._repository = Repository(self.root, found, self._shadows)
            self._git_state = None

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
        if self._repository is not None:
            self._repository.close()

    def _with_git(self, git: Repository, changed: frozenset[str] | None, *, fresh: bool) -> Snapshot:
        known = None if fresh else self._known
        self._forget(changed)
        git.refresh()
        if not git.has_working_tree:
            return self._of_bare(git)
        # Side by side: each is a process that mostly waits, and `status` alone takes as long as all that is done here.
        with ThreadPoolExecutor(max_workers=3, thread_name_prefix="context-git") as pool:
            asked_status, checked = pool.submit(git.status), pool.submit(git.check_objects)
            if known is None:
                known = self._known_of(git, pool.submit(git.log, "HEAD", limit=HISTORY_COMMITS))
            said, failed = _outcome(asked_status)
            checked.result()
        git.refuse_if_moved()
        self._known = known
        problems = [*git.notes, *known.problems, *failed]
        status = read_status(said, git.prefix) if not failed else _untracked(git, problems)
        listing, status = self._listing(git, known.tracked, status, problems)
        counted = _counted(git, status, problems)
        tracked_version = known.tracked.version if known.tracked is not None else b""
        about = repr((git.head, git.remotes, problems, listing.paths if known.tracked is None else ())).encode()
        version = _digest(said, repr(status.untracked).encode() if failed else b"", counted, tracked_version, about)
        if self._snapshot is not None and self._snapshot.version == version:
            return self._snapshot
        counts = read_numstat(counted, git.prefix) | self._lines_of(status)
        facts = _NO_GIT._replace(commits=known.log, changes=uncommitted(status, counts))
        return self._keep(listing, self._about(git, facts, problems), version)

    def _known_of(self, git: Repository, asked_log: Future[bytes]) -> _Known:
        tracked, failed = None, []
        try:
            tracked = read_index(git.tracked(), git.prefix)
            self._look_at(tracked.blobs)
        except GitUnavailable as error:
            failed.append(str(error))
        log, log_failed = _log_of(git, asked_log)
        return _Known(tracked, log, (*failed, *log_failed))

    def _listing(
        self, git: Repository, tracked: Tracked | None, status: WorkingTreeStatus, problems: list[str]
    ) -> tuple[FileListing, WorkingTreeStatus]:
        """The files, and the status without what is private."""
        if tracked is None:
            return self._walked(), status
        if git.prefix and not tracked.blobs and not status.untracked and git.is_ignored():
            problems.append("the repository around the project ignores it: its files are listed as without git")
            return from_walk(self.root, self._storage), status
        private = private_in(self.root, {*tracked.blobs, *status.untracked}, self._storage)
        if private:
            tracked, status = tracked.without(private), status.without(private)
        listing = from_git(tracked, status.untracked, status.deleted)
        if not listing.paths and has_files(self.root):
            problems.append("git ignores every file of the project, or each was deleted")
        return listing, status

    def _walked(self) -> FileListing:
        """The files without git's help, less those that it would ignore."""
        git = self._repository
        ignore_files, prefix = (git.ignore_files(), git.prefix) if git is not None else ((), "")
        return from_walk(self.root, self._storage, ignore_files=ignore_files, prefix=prefix)

    def _of_bare(self, git: Repository) -> Snapshot:
        """A repository without a working tree: its commits, and the files around a git directory, never those in it."""
        git.check_objects()
        log, failed = _log_of(git, None)
        git.refuse_if_moved()
        problems = [*git.notes, *failed]
        if git.found.is_git_dir:
            listing = _NO_FILES
            problems.append("the project's root is a git directory: it holds no files of a project")
        else:
            listing = self._walked()
            problems.append("the repository is bare: what is not committed is not known")
        version = _digest(
            repr((git.head, git.remotes, problems, listing.paths, log)).encode("utf-8", "surrogateescape")
        )
        if self._snapshot is not None and self._snapshot.version == version:
            return self._snapshot
        return self._keep(listing, self._about(git, _NO_GIT._replace(commits=log), problems), version)

    def _about(self, git: Repository, facts: GitFacts, problems: list[str]) -> GitFacts:
        remote = "origin" if "origin" in git.remotes else next(iter(sorted(git.remotes)), None)
        url = git.remotes[remote] if remote else None
        branch = git.head.branch
        if branch is not None:
            branch = branch.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return facts._replace(
            branch=branch, head=git.head.oid, remote=remote, remote_url=url, problems=self._told(problems)
        )

    def _told(self, problems: Iterable[str]) -> tuple[str, ...]:
        """The problems, each once; new ones go to the log."""
        told = tuple(dict.fromkeys(problems))
        for problem in told:
            if problem not in self._problems:
                log.warning("git is not fully known root=%s problem=%s", self.root, problem)
        self._problems = told
        return told

    def _forget(self, changed: frozenset[str] | None) -> None:
        """Forget what was learned of these files; None: of any file."""
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

    def _lines_of(self, status: WorkingTreeStatus) -> dict[str, tuple[int | None, int | None]]:
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

    def _without_git(self, problems: tuple[str, ...], changed: frozenset[str] | None) -> Snapshot:
        self._forget(changed)
        listing = self._walked()
        version = _digest(repr((problems, listing.paths)).encode("utf-8", "surrogateescape"))
        if self._snapshot is not None and self._snapshot.version == version:
            return self._snapshot
        return self._keep(listing, _NO_GIT._replace(problems=self._told(problems)), version)

    def _keep(self, listing: FileListing, facts: GitFacts, version: str) -> Snapshot:
        listing = without_secret_names(listing)
        if self._exclude:
            listing.unread.update(dict.fromkeys(self._exclude.ignored(listing.paths), "excluded"))
        self._look_at(listing.paths)
        sizes = {}
        for path in listing.paths:
            if path not in listing.unread:
                found = self._looked[path]
                if isinstance(found, int):
                    sizes[path] = found
                else:
                    listing.unread[path] = found
        files_version = _digest("\n".join(sizes).encode(), repr((facts.head, self.history)).encode())
        touched = last_touched(facts.commits)
        languages = main_languages(listing.paths)
        self._snapshot = Snapshot(listing, sizes, facts, touched, languages, version, files_version, {})
        return self._snapshot

    @contextmanager
    def reading(self) -> Iterator[FileReader]:
        """Read the project's files. Raises OSError when its folder cannot be opened."""
        with Root(self.root) as root:
            yield FileReader(root, str(self.root), self._fragments, self.max_file_bytes)


def _outcome(asked: Future[bytes]) -> tuple[bytes, tuple[str, ...]]:
    """The output of a command, and why it failed, if it did."""
    try:
        return asked.result(), ()
    except GitUnavailable as error:
        return error.output, (str(error),)


def _untracked(git: Repository, problems: list[str]) -> WorkingTreeStatus:
    """The state of the working tree as far as it is known when `status` fails."""
    try:
        return read_untracked(git.untracked(), git.prefix)
    except GitUnavailable as error:
        problems.append(str(error))
        return read_untracked(b"", git.prefix)


def _counted(git: Repository, status: WorkingTreeStatus, problems: list[str]) -> bytes:
    differing = [path for path, word in status.changed.items() if word != "untracked"]
    if not differing or git.head.oid is None:
        return b""
    try:
        return git.numstat(differing)
    except GitUnavailable as error:
        problems.append(str(error))
        return b""


def _log_of(git: Repository, asked: Future[bytes] | None) -> tuple[tuple[Commit, ...], list[str]]:
    """The commits, and problems with them; none where there is no commit yet, which git calls an error."""
    if git.head.oid is None:
        return (), []
    problems: list[str] = []
    try:
        output = asked.result() if asked is not None else git.log("HEAD", limit=HISTORY_COMMITS)
    except GitUnavailable as error:  # a partial clone may lack what the lists of files are made of
        problems.append(str(error))
        output = _without_files(git, error.output)
    dates: dict[str, int] = {}
    if odd := undated(output):
        with suppress(GitUnavailable):  # then their dates are not known, and 1970 stands for them
            dates = read_dates(git.headers(odd))
    return read_log(output, git.prefix, dates), problems


def _without_files(git: Repository, so_far: bytes) -> bytes:
    """Commits without their files; those so far where that fails too."""
    try:
        return git.log("HEAD", limit=HISTORY_COMMITS, with_files=False)
    except GitUnavailable as error:
        return max(so_far, error.output, key=len)


def _digest(*parts: bytes) -> str:
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.hexdigest()
