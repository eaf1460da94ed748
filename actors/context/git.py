"""The one door to git: GitPython's plumbing, with the repository's own configuration disarmed.

Only `Git(...)` commands are used, never GitPython's objects: `commit.stats` or `tree.traverse()` cost 10 to 90 times
as much. A repository's config can name programs (fsmonitor, filters, textconv, signers, remote helpers); an agent
can write that config, so none of them may run here.
"""

from __future__ import annotations

import logging
import os
import re
import time
from pathlib import Path

# Without this, importing GitPython fails where there is no git; we want to say so in the answer instead.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

from git.cmd import Git
from git.exc import GitCommandError, GitCommandNotFound

log = logging.getLogger(__name__)

TIMEOUT_S = 20.0  # `status` of 50,000 files on a cold disk takes about 5 s
_REF = re.compile(r"refs/[\w./\-@+#]+")

_DISARMED_ENV = {
    "GIT_OPTIONAL_LOCKS": "0",  # else `status` takes index.lock against the agents' own git
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "GIT_PAGER": "cat",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    # A missing object of a partial clone would be fetched through a remote helper of the config's choice.
    "GIT_ALLOW_PROTOCOL": "none",
    "LC_ALL": "C",
}
_DISARMED_CONFIG = (
    "core.fsmonitor=false",
    "core.hooksPath=" + os.devnull,
    "core.quotePath=false",
    "core.pager=cat",
    "core.attributesFile=" + os.devnull,
    "log.showSignature=false",
    "gpg.program=false",
    "diff.external=",
    "diff.renames=false",
    "diff.ignoreSubmodules=all",
    "status.renames=false",
    "submodule.recurse=false",
    "safe.directory=*",  # the operator named this root; with the config disarmed its owner does not matter
)


class GitUnavailable(Exception):
    """There is no git binary, or a command of it failed or took too long. The text has no path in it."""


def find_toplevel(root: Path) -> Path | None:
    """The working tree that `root` lies in: the nearest folder upwards that has a `.git`, or None."""
    for folder in (root, *root.parents):
        if (folder / ".git").exists():
            return folder
    return None


class GitDoor:
    """Commands in one working tree. root: the project's folder, the working tree's top or somewhere below it.

    Every method gives the bytes git printed, or raises GitUnavailable.
    """

    def __init__(self, root: Path, toplevel: Path) -> None:
        self.root = root
        self.toplevel = toplevel
        relative = root.relative_to(toplevel).as_posix()
        self.prefix = "" if relative == "." else relative + "/"
        self._git = Git(str(toplevel))
        # Naming both keeps `core.worktree` of the config from pointing elsewhere.
        self._git.update_environment(
            **_DISARMED_ENV, GIT_DIR=str(toplevel / ".git"), GIT_WORK_TREE=str(toplevel), GIT_COMMON_DIR=None
        )
        self._options: tuple[str, ...] | None = None
        self._options_stamp: object = None

    def git_dir(self) -> Path:
        """The repository's own folder: `.git`, or where a worktree's or submodule's `.git` file points."""
        entry = self.toplevel / ".git"
        if entry.is_dir():
            return entry
        try:
            text = entry.read_text(errors="replace").strip()
        except OSError as error:
            raise GitUnavailable(f"the .git file cannot be read: {error.strerror}") from error
        if not text.startswith("gitdir: "):
            raise GitUnavailable("the .git file names no git directory")
        return (self.toplevel / text.removeprefix("gitdir: ")).resolve()

    def state(self) -> tuple[object, ...]:
        """Stamps of what git writes when the index, HEAD or its own settings change; about 50 µs, no process."""
        own = self.git_dir()
        try:
            shared = (own / (own / "commondir").read_text().strip()).resolve()  # of a worktree
        except OSError:
            shared = own
        try:
            ref = (own / "HEAD").read_text(errors="replace").strip().removeprefix("ref: ")
        except OSError as error:
            raise GitUnavailable(f"HEAD cannot be read: {error.strerror}") from error
        places = [own / name for name in ("index", "HEAD", "logs/HEAD", "MERGE_HEAD")]
        places += [shared / name for name in ("packed-refs", "config")]
        if _REF.fullmatch(ref) and ".." not in ref:
            places.append(shared / ref)
        return (ref, *map(_stamp, places), _stamp(self.toplevel / ".gitignore"), _stamp(shared / "info" / "exclude"))

    def tracked(self) -> bytes:
        """`mode blob stage TAB path NUL` for every file in the index below the root."""
        return self._run("ls-files", "-s", "-z", "--", self.prefix or ".")

    def status(self) -> bytes:
        """Porcelain v2 with NUL ends, untracked files one by one, paths relative to the toplevel."""
        return self._run(
            "status",
            "--porcelain=v2",
            "-z",
            "--untracked-files=all",
            "--ignore-submodules=all",
            "--no-renames",
            "--",
            self.prefix or ".",
        )

    def numstat(self) -> bytes:
        """`added TAB removed TAB path NUL` of the tracked files that differ from HEAD."""
        flags = ("--no-ext-diff", "--no-textconv", "--no-renames", "--ignore-submodules=all")
        return self._run("diff", "--numstat", "-z", *flags, "HEAD", "--", self.prefix or ".")

    def log(self, revisions: str, *, limit: int, skip_merges: bool = False) -> bytes:
        """Commits, newest first: `%H NUL author NUL seconds NUL message NUL`, then the raw list of changed files."""
        return self._run(
            "log",
            "-z",
            "--raw",
            "--no-renames",
            "--no-abbrev",
            "--no-ext-diff",
            "--no-textconv",
            "--no-show-signature",
            "--no-color",
            f"-n{limit}",
            *(("--no-merges",) if skip_merges else ()),
            "--format=%x01%H%x00%an%x00%ct%x00%B%x00",
            revisions,
            "--",
            self.prefix or ".",
        )

    def head(self) -> str | None:
        """The commit that HEAD names, or None before the first commit."""
        try:
            return self._run("rev-parse", "--verify", "--quiet", "HEAD^{commit}").decode("ascii").strip() or None
        except GitUnavailable:
            return None

    def branch(self) -> str | None:
        """The branch that is checked out, or None when HEAD is detached."""
        try:
            text = self._run("symbolic-ref", "--quiet", "--short", "HEAD")
        except GitUnavailable:
            return None
        return text.decode("utf-8", "replace").strip() or None

    def remotes(self) -> dict[str, str]:
        """Names of the remotes and their URLs, as configured: credentials are still in them."""
        try:
            text = self._run("config", "-z", "--get-regexp", r"^remote\..*\.url$")
        except GitUnavailable:
            return {}  # git exits with 1 when nothing matches
        found: dict[str, str] = {}
        for entry in text.decode("utf-8", "replace").split("\0"):
            key, _, url = entry.partition("\n")
            if url:
                found.setdefault(key.removeprefix("remote.").removesuffix(".url"), url)
        return found

    def _run(self, *arguments: str) -> bytes:
        return self._execute(*self.disarmed(), *arguments)

    def disarmed(self) -> tuple[str, ...]:
        """`-c` options that turn off what the config could run, its filters too; looked up anew when it changes.

        Called once before commands are run side by side, so that only one of them has to look.
        """
        stamp = tuple(_stamp(path) for path in (self.git_dir() / "config", self.git_dir() / "config.worktree"))
        # A config that includes others can change without its own stamp changing.
        if self._options is not None and stamp == self._options_stamp:
            return self._options
        base = tuple(word for setting in _DISARMED_CONFIG for word in ("-c", setting))
        try:
            text = self._execute(*base, "config", "-z", "--name-only", "--get-regexp", r"^(filter|include|includeif)\.")
        except GitUnavailable as error:
            if isinstance(error.__cause__, GitCommandNotFound):
                raise
            text = b""  # exit 1: no such key
        names = text.decode("utf-8", "surrogateescape").split("\0")
        drivers = sorted({name.split(".", 1)[1].rsplit(".", 1)[0] for name in names if name.startswith("filter.")})
        off: list[str] = []
        for driver in drivers:
            for key, value in (("clean", ""), ("smudge", ""), ("process", ""), ("required", "false")):
                off += ("-c", f"filter.{driver}.{key}={value}")
        options = (*base, *off)
        if not any(name.startswith("include") for name in names):
            self._options, self._options_stamp = options, stamp
        return options

    def _execute(self, *words: str) -> bytes:
        started = time.monotonic()
        try:
            output = self._git.execute(
                [Git.GIT_PYTHON_GIT_EXECUTABLE or "git", "--no-pager", *words],
                stdout_as_string=False,
                strip_newline_in_stdout=False,
                kill_after_timeout=TIMEOUT_S,
            )
        except GitCommandNotFound as error:
            raise GitUnavailable("there is no git binary on this machine") from error
        except GitCommandError as error:
            if time.monotonic() - started >= TIMEOUT_S:
                raise GitUnavailable(f"git took longer than {TIMEOUT_S:g} s") from error
            raise GitUnavailable(f"git ended with {error.status}") from error
        except (OSError, ValueError) as error:
            raise GitUnavailable(f"git could not be run: {type(error).__name__}") from error
        assert isinstance(output, bytes)
        return output


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns)
