"""Folders in a project that are never part of it: git directories under any name, and storages of a sidecar.

A git directory holds credentials (`http.extraheader`, URLs), a storage the secret that signs tokens.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from .git.place import is_git_dir

# Files that lie in the top folder of a git directory, or of a storage.
_TELLING = ("HEAD", "config", "packed-refs", "description", "commondir", "secret", "LOCK")
_STORAGE = (
    *("LOCK", "MANIFEST", "NEWEST", "RESERVE", "URL", "secret"),
    *("results", "events", "registry", "audit", "logs", "shadows"),
)
_OF_STORAGE_ALONE = ("LOCK", "secret", "registry", "events", "results", "audit")
_ENOUGH = 4  # so many of these names make a storage


class Private(NamedTuple):
    """The private parts of a project. folders: each ends with `/`. names: files in the root."""

    folders: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()

    def holds(self, path: str) -> bool:
        return path.startswith(self.folders) or path in self.names

    def __bool__(self) -> bool:
        return bool(self.folders)


def private_in(root: Path, paths: Collection[str], storage: Path | None) -> Private:
    """Find the private parts of a project. paths: its files, relative to the root. storage: the sidecar's own."""
    candidates = {path.rpartition("/")[0] for path in _telling(paths)}
    folders = {f"{folder}/" for folder in candidates if folder and is_private(root / folder)}
    if storage == root or is_storage(root):
        return Private(tuple(sorted(folders | {f"{name}/" for name in _STORAGE})), frozenset(_STORAGE))
    if storage is not None and storage.is_relative_to(root):
        folders.add(f"{storage.relative_to(root).as_posix()}/")
    return Private(tuple(sorted(folders)))


def is_private(folder: Path) -> bool:
    """Whether a folder is a git directory or a sidecar's storage, as far as its names tell."""
    return is_git_dir(folder) or is_storage(folder)


def may_be_private(names: Collection[str]) -> bool:
    """Whether a folder with these names is worth a closer look."""
    return any(name in names for name in _TELLING) or ("objects" in names and "refs" in names)


def is_storage(folder: Path) -> bool:
    """Whether a folder is the storage of a sidecar, this one or another."""
    return sum(os.path.lexists(folder / name) for name in _OF_STORAGE_ALONE) >= _ENOUGH


def _telling(paths: Iterable[str]) -> Iterable[str]:
    """The paths that end with a telling name; checking each path would take longer than all else."""
    text = "\n" + "\n".join(paths) + "\n"
    for name in _TELLING:
        for wanted in (f"/{name}\n", f"\n{name}\n"):
            at = text.find(wanted)
            while at >= 0:
                yield text[text.rfind("\n", 0, at + 1) + 1 : at + len(wanted) - 1]
                at = text.find(wanted, at + 1)
