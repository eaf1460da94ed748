"""Which files a project has: from git's index plus what is not ignored, or from a walk where there is no git.

The list comes from the index, not from the disk: what `.gitignore` leaves out is never seen. Git directories and
storages are never listed, whatever their names and however the list is made.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from .globs import MAX_PATTERNS, IgnoreRules
from .private_folders import Private, is_private, may_be_private, private_in
from .safe_root import READ_NO_LINK
from .secrets.redaction import redact_names

_MAX_FILES = 200_000
_MAX_PATH_BYTES = 4096  # what the kernel opens; an index can hold longer ones
_MAX_DEPTH = 100  # folders in folders that a walk enters
_MAX_IGNORE_BYTES = 256 * 1024
_SYMLINK_MODE = b"120000"
_SUBMODULE_MODE = b"160000"
# Folders that a walk without git does not enter: none of them is written by people.
_SKIPPED = frozenset(
    (
        *(".git", ".hg", ".svn", ".bzr", "node_modules", ".venv", "venv", "__pycache__", ".tox", ".nox", ".idea"),
        *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".vscode", ".gradle", ".terraform", ".next", ".cache"),
        *("target", "dist"),
    )
)


class FileListing(NamedTuple):
    """Every file of a project. paths: sorted, relative to the root, `/` between parts.

    unread: path -> why its content is not looked at. untracked: those of `paths` that git does not track.
    blobs: path -> the blob id in the index. undecodable: how many names are no UTF-8; JSON cannot carry them.
    withheld: how many names hold a secret; none of them is told.
    """

    paths: tuple[str, ...]
    unread: dict[str, str]
    untracked: frozenset[str]
    blobs: dict[str, str]
    undecodable: int
    cut: bool
    withheld: int = 0


class Tracked(NamedTuple):
    """The content of git's index below the root; fields as in `Listing`. version: the same for the same index."""

    blobs: dict[str, str]
    unread: dict[str, str]
    undecodable: int
    version: bytes

    def without(self, private: Private) -> Tracked:
        """A copy without private files."""
        return self._replace(
            blobs={path: blob for path, blob in self.blobs.items() if not private.holds(path)},
            unread={path: why for path, why in self.unread.items() if not private.holds(path)},
        )


def read_index(tracked: bytes, prefix: str) -> Tracked:
    """Parse the output of `git ls-files -s -z`. prefix: the root below the toplevel."""
    unread: dict[str, str] = {}
    blobs: dict[str, str] = {}
    undecodable = 0
    start = len(prefix.encode())
    for entry in tracked.split(b"\0"):
        head, tab, raw = entry.partition(b"\t")
        if not tab:
            continue
        if len(raw) > _MAX_PATH_BYTES:
            undecodable += 1
            continue
        try:
            path = raw[start:].decode("utf-8")
        except UnicodeDecodeError:
            undecodable += 1
            continue
        mode = head[:6]
        blobs[path] = head[7:-2].decode("ascii")
        if mode == _SYMLINK_MODE:
            unread[path] = "symlink"
        elif mode == _SUBMODULE_MODE:
            unread[path] = "submodule"
    return Tracked(blobs, unread, undecodable, hashlib.blake2b(tracked, digest_size=16).digest())


def from_git(tracked: Tracked, untracked: Iterable[str], deleted: Iterable[str]) -> FileListing:
    """The listing from git's index and what `git status` said."""
    blobs = tracked.blobs.copy()
    for path in deleted:
        blobs.pop(path, None)
    unread = {path: why for path, why in tracked.unread.items() if path in blobs}
    new = frozenset(path for path in untracked if path not in tracked.blobs and not path.endswith("/"))
    paths = sorted({*blobs, *new})
    return FileListing(tuple(paths[:_MAX_FILES]), unread, new, blobs, tracked.undecodable, len(paths) > _MAX_FILES)


def without_secret_names(listing: FileListing) -> FileListing:
    """The listing without the files whose own names hold a secret, such as a token."""
    safe = redact_names(listing.paths)
    told = tuple(path for path, shown in zip(listing.paths, safe, strict=True) if path == shown)
    if len(told) == len(listing.paths):
        return listing
    kept = frozenset(told)
    unread = {path: why for path, why in listing.unread.items() if path in kept}
    return listing._replace(paths=told, unread=unread, withheld=len(listing.paths) - len(told))


def from_walk(
    root: Path, storage: Path | None = None, *, ignore_files: Iterable[bytes] = (), prefix: str = ""
) -> FileListing:
    """The listing of a folder without git, in which `.gitignore` files count all the same. Links are not followed.

    storage: the sidecar's own, in case it lies in the folder. ignore_files: others that count, the weakest first; their
    paths begin with `prefix`.
    """
    private = private_in(root, (), storage)
    paths: list[str] = []
    unread: dict[str, str] = {}
    undecodable = 0
    rules = tuple(("", prefix, _rules_of(text)) for text in ignore_files)
    walk = _Walk(root)
    for path, is_link in walk.files("", rules):
        if not path.isprintable() and "\udc80" <= max(path) <= "\udcff":
            undecodable += 1
            continue
        if private.holds(path):
            continue
        if len(paths) >= _MAX_FILES:
            walk.cut = True
            break
        paths.append(path)
        if is_link:
            unread[path] = "symlink"
    return FileListing(tuple(sorted(paths)), unread, frozenset(), {}, undecodable, walk.cut)


_Rules = tuple[tuple[str, str, IgnoreRules], ...]  # the folder of a file of patterns, what its paths begin with, they


class _Walk:
    """A walk through a folder. cut: a folder was left out, being too deep or having more patterns than are applied."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._patterns_left = MAX_PATTERNS
        self.cut = False

    def files(self, folder: str, rules: _Rules) -> Iterator[tuple[str, bool]]:
        """Yield each file's path, and whether it is a link."""
        try:
            with os.scandir(self._root / folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            return  # it cannot be read, so it counts as empty
        # Of the root, the caller decides.
        if folder and may_be_private({entry.name for entry in entries}) and is_private(self._root / folder):
            return
        if any(entry.name == ".gitignore" and entry.is_file(follow_symlinks=False) for entry in entries):
            own = _rules_in(self._root / folder / ".gitignore")
            self._patterns_left -= len(own)
            if own.is_cut or self._patterns_left < 0:  # some files of it may be ignored, and it is unknown which
                self.cut = True
                return
            rules = (*rules, (folder, "", own))
        for entry in entries:
            path = folder + entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name in _SKIPPED or _is_ignored(path + "/", rules):
                    continue
                if path.count("/") < _MAX_DEPTH:
                    yield from self.files(path + "/", rules)
                else:
                    self.cut = True
            elif not _is_ignored(path, rules) and entry.name != ".git":
                yield path, entry.is_symlink()


def _rules_in(path: Path) -> IgnoreRules:
    try:
        # As `safe_root` opens files: a file of a moment ago may be a link or a pipe now.
        with os.fdopen(os.open(path, READ_NO_LINK), "rb") as file:
            text = file.read(_MAX_IGNORE_BYTES)
    except OSError:
        return IgnoreRules([])
    return _rules_of(text)


@lru_cache(maxsize=32)
def _rules_of(text: bytes) -> IgnoreRules:
    """Make rules of a file. They are kept for the next context: to make them takes longer than to use them."""
    return IgnoreRules(text.decode("utf-8-sig", "replace").split("\n"))


def _is_ignored(path: str, rules: _Rules) -> bool:
    """The nearest `.gitignore` that says anything decides, as in git."""
    for folder, prefix, spec in reversed(rules):
        verdict = spec.verdict(prefix + path[len(folder) :])
        if verdict is not None:
            return verdict
    return False


def has_files(root: Path) -> bool:
    """Whether a folder holds anything except `.git`."""
    try:
        with os.scandir(root) as found:
            return any(entry.name != ".git" for entry in found)
    except OSError:
        return False
