"""Shows git a repository's objects, but none with links among them or with alternates outside the project.

Through a link or an alternate, git would read objects of any repository that the sidecar may read.
"""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from ..safe_root import NotReadable, Root, Stamp, stamp_of
from .git import GitUnavailable
from .place import GitDirectory

_MAX_STORES = 20
_MAX_ALTERNATES_BYTES = 64 * 1024
_OUTSIDE = "objects/info/alternates leads out of the project: `git repack -a -d`, then delete that file"


class ObjectStore:
    """The objects of one repository, and of those that it names as alternates.

    link: the path by which git finds them; `refresh` makes it.
    """

    def __init__(self, link: Path) -> None:
        self._link = link
        self._shown: Path | None = None
        self._checked: dict[Path, dict[str, Stamp]] = {}
        self._unread: list[
            tuple[GitDirectory, str]
        ] = []  # folders of objects that have changed since they were looked at
        self.note: str | None = None

    def refresh(self, tree: GitDirectory, project: Path) -> None:
        """Check the folders that have changed, and show git the objects, or none with a `note` that says why.

        tree: the git directory that has the objects. project: alternates may lie in it and in `tree`.
        Raises GitUnavailable.
        """
        self._unread.clear()
        waiting = [(tree, tree.at("objects"))]
        seen: list[Path] = []
        leads_out = False
        for tree_of, inside in waiting:
            store = tree_of.base / inside
            if store in seen:
                continue
            if len(seen) == _MAX_STORES:
                raise GitUnavailable(f"the repository has more than {_MAX_STORES} alternates")
            seen.append(store)
            with tree_of.open() as root:
                self._check(root, tree_of, inside)
                for alternate in _alternates(root, store, inside):
                    base = next((base for base in (project, tree.path) if alternate.is_relative_to(base)), None)
                    if base is not None:
                        waiting.append((GitDirectory(base, ""), alternate.relative_to(base).as_posix()))
                    leads_out = leads_out or base is None
        self.note = _OUTSIDE if leads_out else None
        self._show(self._link.parent / "none" if leads_out else seen[0])

    def check(self) -> None:
        """Refuse links among single objects, of which there may be thousands; git may run meanwhile.

        Raises GitUnavailable; then git's output must be thrown away.
        """
        try:
            for tree, folders in groupby(self._unread, itemgetter(0)):
                with tree.open() as root:
                    for _, folder in folders:
                        root.names(folder)
        except NotReadable as error:
            self._checked.clear()
            raise GitUnavailable(f"the repository's objects cannot be read: {error}") from error
        self._unread.clear()

    def refuse_if_moved(self) -> None:
        """Raise GitUnavailable when alternates may have come since the last `refresh`."""
        for store, folders in self._checked.items():
            if _info_stamp(store) != folders.get("info"):
                raise GitUnavailable("the repository's alternates changed while git read it")

    def _check(self, root: Root, tree: GitDirectory, inside: str) -> None:
        """Refuse links. A folder that has not changed since the last look is not read again."""
        before = self._checked.get(tree.base / inside, {})
        try:
            now = dict(root.folders(inside))
            for name, stamp in now.items():
                if before.get(name) == stamp:
                    continue
                if name in ("info", "pack"):
                    for folder, _ in root.folders(f"{inside}/{name}"):
                        root.names(f"{inside}/{name}/{folder}")
                else:
                    self._unread.append((tree, f"{inside}/{name}"))
        except NotReadable as error:
            raise GitUnavailable(f"the repository's objects cannot be read: {error}") from error
        self._checked[tree.base / inside] = now

    def _show(self, objects: Path) -> None:
        if self._shown == objects:
            return
        new = self._link.with_name("objects.new")
        with suppress(FileNotFoundError):
            new.unlink()
        new.symlink_to(objects)
        new.replace(self._link)
        self._shown = objects


def _info_stamp(store: Path) -> Stamp | None:
    try:
        return stamp_of((store / "info").lstat())
    except OSError:
        return None


def _alternates(root: Root, store: Path, inside: str) -> list[Path]:
    try:
        text, _ = root.read(f"{inside}/info/alternates", _MAX_ALTERNATES_BYTES)
    except NotReadable as error:
        if str(error) == "missing":
            return []
        raise GitUnavailable(f"objects/info/alternates cannot be read: {error}") from error
    lines = [os.fsdecode(line) for line in text.split(b"\n") if line and not line.startswith(b"#")]
    return [Path(os.path.realpath(store / line)) for line in lines if "\0" not in line]
