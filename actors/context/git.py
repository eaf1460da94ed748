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
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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


_CONFIG_THAT_MATTERS = r"^(filter|include|includeif)\.|^remote\..*\.url$"
_NAMED_PATHS = 100  # more than so many are not worth their words on a command line


class GitUnavailable(Exception):
    """There is no git binary, or a command of it failed or took too long. The text has no path in it."""


def find_toplevel(root: Path) -> Path | None:
    """The working tree that `root` lies in: the nearest folder upwards that has a `.git`, or None."""
    for folder in (root, *root.parents):
        if (folder / ".git").exists():
            return folder
    return None


class _Config(NamedTuple):
    """options: those that turn off what the config could run. remotes: name -> URL."""

    options: tuple[str, ...]
    remotes: dict[str, str]


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
        self._config: _Config | None = None
        self._config_stamp: object = None

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
        """Porcelain v2 with NUL ends, HEAD and branch first, each untracked file; paths relative to the toplevel."""
        return self._run(
            "status",
            "--porcelain=v2",
            "--branch",
            "--no-ahead-behind",
            "-z",
            "--untracked-files=all",
            "--ignore-submodules=all",
            "--no-renames",
            "--",
            self.prefix or ".",
        )

    def numstat(self, paths: Sequence[str]) -> bytes:
        """`added TAB removed TAB path NUL` of those tracked files (relative to the root) that differ from HEAD."""
        flags = ("--no-ext-diff", "--no-textconv", "--no-renames", "--ignore-submodules=all")
        named = [self.prefix + path for path in paths] if len(paths) <= _NAMED_PATHS else [self.prefix or "."]
        return self._run("diff", "--numstat", "-z", *flags, "HEAD", "--", *named)

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

    def branch(self) -> str | None:
        """The branch that is checked out, or None when HEAD is detached."""
        try:
            text = self._run("symbolic-ref", "--quiet", "--short", "HEAD")
        except GitUnavailable:
            return None
        return text.decode("utf-8", "replace").strip() or None

    def remotes(self) -> dict[str, str]:
        """Names of the remotes and their URLs, as configured: credentials are still in them."""
        return self._read_config().remotes

    def _run(self, *arguments: str) -> bytes:
        return self._execute(*self.disarmed(), *arguments)

    def disarmed(self) -> tuple[str, ...]:
        """`-c` options that turn off what the config could run, its filters too.

        Called once before commands are run side by side, so that only one of them has to look.
        """
        return self._read_config().options

    def _read_config(self) -> _Config:
        """What matters of the repository's config; read anew when it changes."""
        stamp = tuple(_stamp(path) for path in (self.git_dir() / "config", self.git_dir() / "config.worktree"))
        if self._config is not None and stamp == self._config_stamp:
            return self._config
        base = tuple(word for setting in _DISARMED_CONFIG for word in ("-c", setting))
        try:
            text = self._execute(*base, "config", "-z", "--get-regexp", _CONFIG_THAT_MATTERS)
        except GitUnavailable as error:
            if isinstance(error.__cause__, GitCommandNotFound):
                raise
            text = b""  # exit 1: no such key
        entries = [entry.partition("\n")[::2] for entry in text.decode("utf-8", "surrogateescape").split("\0") if entry]
        drivers = sorted({key.split(".", 1)[1].rsplit(".", 1)[0] for key, _ in entries if key.startswith("filter.")})
        off: list[str] = []
        for driver in drivers:
            for key, value in (("clean", ""), ("smudge", ""), ("process", ""), ("required", "false")):
                off += ("-c", f"filter.{driver}.{key}={value}")
        remotes: dict[str, str] = {}
        for key, url in entries:
            if key.startswith("remote.") and url:
                name = key.removeprefix("remote.").removesuffix(".url")
                remotes.setdefault(name, url.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
        found = _Config((*base, *off), remotes)
        # A config that includes others can change without its own stamp changing.
        if not any(key.startswith("include") for key, _ in entries):
            self._config, self._config_stamp = found, stamp
        return found

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
