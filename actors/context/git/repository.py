"""Asks git about one project's repository, through a shadow of its git directory."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path

from ..safe_root import NotReadable
from .git import NO_CONFIGURATION, GitStalled, GitUnavailable, run_git
from .place import GitFolder, RepositoryLayout, locate
from .reftable import LIST
from .shadow import MAX_REF_BYTES, Head, Shadow, user_files, user_stamp

_PREFIX = "sidecar-git-"
ASK_AGAIN_S = 300.0  # after a command that took too long: a pipe named .gitignore, say, stops git each time
MAX_IGNORE_BYTES = 1 << 20
_NAMED_PATHS = 100  # with more changed files, a command gets the whole root instead of their names
_STAMPED_OWN = ("index", "HEAD", "logs/HEAD", "MERGE_HEAD", "commondir", "gitdir", "config.worktree")
_STAMPED_SHARED = (
    "packed-refs",
    LIST,
    "config",
    "info/exclude",
    "info/attributes",
    "objects/info/alternates",
    "shallow",
)


class Shadows:
    """The folder that shadows lie in, for any thread. It is emptied when a process first uses it.

    directory: its place in the storage; None: a temporary folder.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._made: Path | None = None

    def of(self, root: Path) -> Path:
        """The shadow's folder for a project. Raises OSError."""
        with self._lock:
            if self._made is None or not self._made.is_dir():
                self._made = self._make()
            return self._made / hashlib.sha256(os.fsencode(root)).hexdigest()[:16]

    def close(self) -> None:
        if self._made is not None:
            shutil.rmtree(self._made, ignore_errors=True)

    def _make(self) -> Path:
        if self._directory is not None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in self._directory.glob(f"{_PREFIX}*"):  # links in them are removed, not followed
                shutil.rmtree(left, ignore_errors=True)
        made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._directory))
        weakref.finalize(self, shutil.rmtree, made, ignore_errors=True)
        return made


class History:
    """The commits of a repository whose shadow exists. prefix: the path of the project's root below the toplevel."""

    def __init__(self, git_dir: Path, prefix: str) -> None:
        self.git_dir = git_dir
        self.prefix = prefix

    def log(self, revisions: str, *, limit: int, skip_merges: bool = False, with_files: bool = True) -> bytes:
        """Commits, newest first: `%H NUL author NUL seconds NUL message NUL`, then the raw list of changed files."""
        return self.run(
            "log",
            "-z",
            *(("--raw",) if with_files else ()),
            "--no-renames",
            "--no-abbrev",
            "--no-ext-diff",
            "--no-textconv",
            "--no-show-signature",
            "--no-notes",
            "--no-mailmap",
            "--no-color",
            "--encoding=UTF-8",
            f"-n{limit}",
            *(("--no-merges",) if skip_merges else ()),
            "--format=%x01%H%x00%an%x00%ct%x00%B%x00",
            revisions,
            *(("--", self.prefix) if self.prefix else ("--",)),
        )

    def headers(self, oids: Sequence[str]) -> bytes:
        """Commits as they are stored, for dates that git cannot read."""
        return self.run("log", "--no-walk=unsorted", "--no-color", "--no-notes", "--format=raw", *oids, "--")

    def run(self, *words: str) -> bytes:
        return self._run(self.git_dir, {}, *words)

    def _run(self, at: Path, environment: dict[str, str], *words: str) -> bytes:
        return run_git(
            *words,
            at=at,
            environment=NO_CONFIGURATION | {"GIT_DIR": str(self.git_dir)} | environment,
            names={str(self.git_dir): ".git"},
        )


class Repository(History):
    """Git commands in a project's working tree. root: the project's folder; `found.folder` or a folder below it.

    Every command returns the bytes that git printed, or raises GitUnavailable. Call `refresh` first.
    """

    def __init__(self, root: Path, found: GitFolder, shadows: Shadows) -> None:
        relative = root.relative_to(found.folder).as_posix()
        try:
            self._shadow = Shadow(shadows.of(root))
        except OSError as error:
            raise GitUnavailable(f"the shadow of the git directory cannot be made: {error.strerror}") from error
        super().__init__(self._shadow.directory, "" if relative == "." else relative + "/")
        self.root = root
        self.found = found
        self._stalled_at: float | None = None
        self._place: RepositoryLayout | None = None
        self._pointers: object = None
        self._users: object = None  # what `_user_files` depends on: includes may depend on the git directory's place
        self._user_files: tuple[Path, ...] = ()
        self._ignoring = _ignoring(found.folder, relative)

    def state(self) -> tuple[object, ...]:
        """Stamps of the files that git writes when the index, HEAD or the settings change. Takes about 100 µs.

        Raises GitUnavailable.
        """
        place = self._located()
        try:
            # Not by its path: a link could lead anywhere, and reading a pipe could take for ever.
            with place.own.open() as own:
                text = own.read(place.own.at("HEAD"), MAX_REF_BYTES)[0]
        except NotReadable as error:
            raise GitUnavailable(f"HEAD cannot be read: {error}") from error
        except OSError as error:
            raise GitUnavailable(f"HEAD cannot be read: {error.strerror}") from error
        ref = text.decode("utf-8", "replace").strip().removeprefix("ref: ")
        places = [place.own.path / name for name in _STAMPED_OWN]
        places += [place.shared.path / name for name in _STAMPED_SHARED]
        if ref.startswith("refs/") and ".." not in ref and "\0" not in ref:
            places.append(place.shared.path / ref)
        users = user_stamp()
        if (users, place.own.path) != self._users:
            self._users, self._user_files = (users, place.own.path), user_files(place.own.path)
        return (ref, self._pointers, users, *map(_stamp, (*places, *self._ignoring, *self._user_files)))

    def refresh(self) -> None:
        """Update the shadow from the git directory. Raises GitUnavailable."""
        place = self._located()
        self._shadow.refresh(place, place.toplevel or place.own.path)

    def check_objects(self) -> None:
        """Look for links among the objects, while commands are already running.

        Raises GitUnavailable; then the output of the commands must be thrown away.
        """
        self._shadow.check_objects()

    def refuse_if_moved(self) -> None:
        """Raise GitUnavailable when output since `refresh` may be of another repository."""
        self._shadow.refuse_if_moved()

    @property
    def has_working_tree(self) -> bool:
        """Whether the repository has files; a bare repository has only commits. Known after `refresh`."""
        place, config = self._place, self._shadow.config
        if place is None or place.toplevel is None:
            return False
        return not (config is not None and config.is_bare and place.own == place.shared)

    @property
    def head(self) -> Head:
        return self._shadow.head

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on parts of the repository that cannot be read, and on its settings that do not count."""
        return self._shadow.notes

    @property
    def remotes(self) -> dict[str, str]:
        """Names of the remotes and their URLs, as configured: credentials are still in them."""
        return self._shadow.config.remotes if self._shadow.config is not None else {}

    def ignore_files(self) -> tuple[bytes, ...]:
        """The content of the user's ignore file and of `info/exclude`, for listing files where git fails.

        The later file decides. A file that cannot be read counts as empty, as for git.
        """
        try:
            place = self._located()
            with place.shared.open() as shared:
                own = shared.read(place.shared.at("info/exclude"), MAX_IGNORE_BYTES)[0]
        except (GitUnavailable, NotReadable, OSError):
            own = b""
        users = (_start_of(path) for path in user_files(self.found.folder / ".git")[:1])
        return (*users, own)

    def tracked(self) -> bytes:
        """`mode blob stage TAB path NUL` for every file in the index below the root."""
        return self.run("ls-files", "-s", "-z", "--", self.prefix or ".")

    def untracked(self) -> bytes:
        """`path NUL` for every file that is neither tracked nor ignored; paths relative to the toplevel."""
        return self.run("ls-files", "--others", "--exclude-standard", "-z", "--", self.prefix or ".")

    def is_ignored(self) -> bool:
        """Whether the repository that the root lies in ignores the root as a whole."""
        # This command reads a name as a pattern, which may begin with magic characters; after `./` they have no effect.
        environment = {"GIT_WORK_TREE": str(self.found.folder), "GIT_LITERAL_PATHSPECS": "0"}
        words = ("check-ignore", "--quiet", "--no-index", "--", f"./{self.prefix}")
        try:
            self._run(self.found.folder, environment, *words)
        except GitUnavailable:
            return False  # exit code 1
        return True

    def status(self) -> bytes:
        """Porcelain v2, separated by NUL, with each untracked file; paths relative to the toplevel."""
        return self.run(
            "status",
            "--porcelain=v2",
            "-z",
            "--untracked-files=all",
            "--ignore-submodules=all",
            "--no-renames",
            "--",
            self.prefix or ".",
        )

    def numstat(self, paths: Sequence[str]) -> bytes:
        """`added TAB removed TAB path NUL` for those of these tracked files that differ from HEAD.

        paths: relative to the root.
        """
        flags = ("--no-ext-diff", "--no-textconv", "--no-renames", "--ignore-submodules=all")
        named = [self.prefix + path for path in paths] if len(paths) <= _NAMED_PATHS else [self.prefix or "."]
        return self.run("diff", "--numstat", "-z", *flags, "HEAD", "--", *named)

    def run(self, *words: str) -> bytes:
        if self._stalled_at is not None and time.monotonic() - self._stalled_at < ASK_AGAIN_S:
            raise GitUnavailable(
                f"git {words[0]} is not run: less than {ASK_AGAIN_S:g} s ago a git command took too long"
            )
        try:
            if not self.has_working_tree:
                return super().run(*words)
            return self._run(self.found.folder, {"GIT_WORK_TREE": str(self.found.folder)}, *words)
        except GitStalled:
            self._stalled_at = time.monotonic()
            raise

    def close(self) -> None:
        self._shadow.remove()

    def _located(self) -> RepositoryLayout:
        """The place of the git directory. It is looked for again when a file that names it has changed."""
        entry = self.found.folder / ".git"
        place = self._place
        named = () if place is None else tuple(place.own.path / name for name in ("commondir", "gitdir", "config"))
        pointers = (_link_stamp(entry), *map(_link_stamp, named))
        if place is None or pointers != self._pointers:
            self._place = place = locate(self.found)
            named = tuple(place.own.path / name for name in ("commondir", "gitdir", "config"))
            self._pointers = (_link_stamp(entry), *map(_link_stamp, named))
        return place


def _ignoring(top: Path, relative: str) -> list[Path]:
    """The files above a root that say what is ignored or how files are compared."""
    folders = [top]
    for part in relative.split("/")[:-1]:
        folders.append(folders[-1] / part)
    return [folder / name for folder in folders for name in (".gitignore", ".gitattributes")]


def _start_of(path: Path) -> bytes:
    """The start of one of the user's files; empty if it is missing or not a regular file."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return file.read(MAX_IGNORE_BYTES) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except OSError:
        return b""


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _link_stamp(path: Path) -> tuple[int, int, int] | None:
    """Like `_stamp`, but of a link itself, not of its target; changes of owner and mode count too."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return (found.st_ino, found.st_mode, 0 if stat.S_ISDIR(found.st_mode) else found.st_ctime_ns)
