"""Reads the user's own git configuration: which files are ignored and how files are compared.

Git parses these files without their includes. The includes are followed here, because some depend on where the
repository lies, and git never sees the repository. Only a few values count.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from .config import USERS_FILES, Pairs, last_value, listed, pair, pairs_in, plain_values
from .git import NO_REPOSITORY, GitUnavailable, run_git

_MAX_INCLUDES = 20
_NAMES = ("HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM")

_Placed = tuple[str, str, str | None]  # the file that a pair stands in, and the pair


class UserConfig:
    """The user's and the system's configuration: which files are ignored and how files are compared.

    The user is the one who started the sidecar. Read again when one of the files has changed; for any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stamp: object = None
        self._files: dict[str, Pairs] = {}
        self._pairs: tuple[_Placed, ...] = ()
        self.notes: tuple[str, ...] = ()

    def stamp(self) -> object:
        """A stamp that changes when one of the files does, or when another file is named."""
        with self._lock:
            return (_named(), *(_stat(path) for path in (*_own_files(), *self._files)))

    def values(self, git_dir: str) -> dict[str, str]:
        """Plain values, and the absolute paths of the ignore and attributes files.

        git_dir: of the repository, for includes that depend on it.
        """
        stamp = self.stamp()
        with self._lock:
            if stamp != self._stamp:
                self._files.clear()
                self._read()
            pairs = tuple(_spliced(self._pairs, git_dir, self._included, 0))
            self._stamp = (_named(), *(_stat(path) for path in (*_own_files(), *self._files)))
        found = plain_values(pairs)
        base = os.environ.get("XDG_CONFIG_HOME") or _in_home(".config")
        for name, file in USERS_FILES.items():
            value = last_value(pairs, name)
            path = _expanded(value, "") if value else (f"{base}/git/{file}" if base else None)
            if path is not None and "\n" not in path:
                found[name] = path
        return found

    def _read(self) -> None:
        environment = {name: os.environ[name] for name in _NAMES if name in os.environ}
        words = ("config", "--no-includes", "--show-origin", "-z", "--list")
        try:
            output, self.notes = run_git(*words, at=Path("/"), environment=environment | NO_REPOSITORY), ()
        except (
            GitUnavailable
        ) as error:  # a line that git cannot parse: read the files one by one, each up to such a line
            self.notes = (f"the user's own configuration: {error}",)
            self._pairs = tuple((path, *pair) for path in _own_files() for pair in _read_file(path))
            return
        fields = iter(output.decode("utf-8", "surrogateescape").split("\0"))
        named = zip(fields, fields, strict=False)  # a file and what stands in it, in turn
        self._pairs = tuple((origin.removeprefix("file:"), *pair(entry)) for origin, entry in named)

    def _included(self, path: str) -> Pairs:
        if path not in self._files and len(self._files) < _MAX_INCLUDES:
            self._files[path] = _read_file(path)
        return self._files.get(path, ())


def _read_file(path: str) -> Pairs:
    """A file of the user's as far as git can parse it; nothing where there is none, as for git itself."""
    try:
        with Path(path).open("rb") as file:
            return pairs_in(listed("--file", "-", stdin=file))
    except GitUnavailable as error:
        return pairs_in(error.output)
    except OSError:
        return ()


def _own_files() -> tuple[str, ...]:
    """The files that git reads by itself, in its order."""
    base = os.environ.get("XDG_CONFIG_HOME") or _in_home(".config")
    system = None if os.environ.get("GIT_CONFIG_NOSYSTEM") else os.environ.get("GIT_CONFIG_SYSTEM", "/etc/gitconfig")
    users = (f"{base}/git/config" if base else None, _in_home(".gitconfig"))
    chosen = os.environ.get("GIT_CONFIG_GLOBAL")
    return tuple(path for path in (system, *(users if chosen is None else (chosen,))) if path)


def _named() -> tuple[str | None, ...]:
    return tuple(map(os.environ.get, _NAMES))


def _in_home(name: str) -> str | None:
    home = os.environ.get("HOME")
    return f"{home}/{name}" if home else None


def _stat(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _spliced(
    pairs: Iterable[_Placed], git_dir: str, read: Callable[[str], Pairs], depth: int
) -> Iterator[tuple[str, str | None]]:
    """The pairs with those of included files in their places."""
    for origin, name, value in pairs:
        yield (name, value)
        condition = name.removeprefix("include").removesuffix(".path")
        if value is None or not (name.startswith(("include.", "includeif.")) and name.endswith(".path")):
            continue
        if condition and not _holds(condition.removeprefix("if."), origin, git_dir):
            continue
        path = _expanded(value, str(Path(origin).parent))
        if path is not None and depth < _MAX_INCLUDES:
            yield from _spliced(((path, *pair) for pair in read(path)), git_dir, read, depth + 1)


def _expanded(value: str, base_dir: str) -> str | None:
    if value.startswith("~"):
        path = _home_expanded(value)
        return path if path.startswith("/") else None
    return value if value.startswith("/") else f"{base_dir}/{value}" if base_dir else None


def _home_expanded(value: str) -> str:
    try:
        return str(Path(value).expanduser()) + ("/" if value.endswith("/") else "")
    except RuntimeError:  # there is no such user, or no home
        return value


def _holds(condition: str, origin: str, git_dir: str) -> bool:
    """Whether a `gitdir:` condition of the user's configuration names this git directory (git-config, includes)."""
    kind, _, pattern = condition.partition(":")
    if kind not in ("gitdir", "gitdir/i"):
        return False
    if pattern.startswith("./"):
        pattern = str(Path(origin).parent) + pattern[1:]
    pattern = _home_expanded(pattern)
    if not pattern.startswith("/"):
        pattern = "**/" + pattern
    if pattern.endswith("/"):
        pattern += "**"
    if kind == "gitdir/i":
        pattern, git_dir = pattern.lower(), git_dir.lower()
    return _matches(pattern.strip("/").split("/"), git_dir.strip("/").split("/"))


def _matches(pattern: list[str], parts: list[str]) -> bool:
    """`**` stands for any number of names, a shell pattern for one. Each place is reached at most once."""
    reached = {0}
    for wanted in pattern:
        if wanted == "**":
            reached = set(range(min(reached), len(parts) + 1)) if reached else set()
        else:
            reached = {at + 1 for at in reached if at < len(parts) and fnmatchcase(parts[at], wanted)}
    return len(parts) in reached
