"""Finds a project's git directory, and decides whether it is the project's own.

`.git` may be a file or a link, and a git directory may name another one that it shares objects and refs with. So anyone
who can write in a project could make the sidecar read somebody else's repository. Therefore a git directory outside the
project counts only if it names the project itself: only a person who may write in that git directory can make it do so.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from ..safe_root import NotReadable, Root
from .config import repository_config
from .git import GitUnavailable

_MAX_POINTER_BYTES = 4096 + 64  # a path, and the few characters before and after it
_NOT_OURS = (
    "the git directory lies outside the project and does not name it: for a worktree, run `git worktree repair`; for "
    "any other repository, set core.worktree in its configuration"
)


class GitFolder(NamedTuple):
    """The folder that has a `.git`, or is itself a git directory (is_git_dir)."""

    folder: Path
    is_git_dir: bool


class GitDirectory(NamedTuple):
    """A git directory: the path `inside`, relative to the folder `base`. Only the owner of `base` can replace it by a
    link."""

    base: Path
    inside: str

    @property
    def path(self) -> Path:
        return self.base / self.inside if self.inside else self.base

    def open(self) -> Root:
        return Root(self.base)

    def at(self, name: str) -> str:
        """The path of a file in it, relative to the opened `Root`."""
        return f"{self.inside}/{name}" if self.inside else name


class RepositoryLayout(NamedTuple):
    """A repository. toplevel: its working tree, or None. own: the git directory with HEAD and index. shared: the git
    directory with everything else; usually the same."""

    toplevel: Path | None
    own: GitDirectory
    shared: GitDirectory


def find_git(root: Path) -> GitFolder | None:
    """The nearest folder that is under git, from `root` upwards, or None."""
    for folder in (root, *root.parents):
        if os.path.lexists(folder / ".git"):
            return GitFolder(folder, False)
        if is_git_dir(folder):
            return GitFolder(folder, True)
    return None


def is_git_dir(folder: Path) -> bool:
    """Whether a folder is the git directory of a repository or of a linked worktree, whatever its name."""
    try:
        head = os.open(folder / "HEAD", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        # Git accepts a link as HEAD. A git directory without HEAD is broken, but its other files are as private.
        return _has(folder, "objects") and _has(folder, "refs") and (_has(folder, "HEAD") or _has(folder, "config"))
    try:
        text = os.read(head, 64) if stat.S_ISREG(os.fstat(head).st_mode) else b""
    except OSError:
        return False
    finally:
        os.close(head)
    if _has(folder, "objects") and _has(folder, "refs"):
        return True
    return _is_head(text) and any(
        _has(folder, name) for name in ("objects", "refs", "commondir", "gitdir", "packed-refs")
    )


def _has(folder: Path, name: str) -> bool:
    return os.path.lexists(folder / name)


def _is_head(text: bytes) -> bool:
    return text.startswith(b"ref: ") or (len(text) >= 40 and all(byte in b"0123456789abcdef" for byte in text[:40]))


def locate(found: GitFolder) -> RepositoryLayout:
    """The repository of a folder. Raises GitUnavailable, also if the repository is not the folder's own."""
    top = Path(os.path.realpath(found.folder))
    if found.is_git_dir:
        own = GitDirectory(top, "")
        return RepositoryLayout(None, own, _shared_of(own, top))
    own = _own_of(top)
    shared = _shared_of(own, top)
    if not own.path.is_relative_to(top) and not _names(own, shared, top):
        raise GitUnavailable(_NOT_OURS)
    return RepositoryLayout(top, own, shared)


def _own_of(top: Path) -> GitDirectory:
    entry = top / ".git"
    try:
        kind = stat.S_IFMT(entry.lstat().st_mode)
        if kind == stat.S_IFDIR:
            return GitDirectory(top, ".git")
        target = Path(os.path.realpath(entry))
        if kind == stat.S_IFLNK and target.is_dir():
            return _tree(target, top)
        with Root(target.parent) as root:
            text, _ = root.read(target.name, _MAX_POINTER_BYTES)
    except NotReadable as error:
        raise GitUnavailable(f"the .git file cannot be read: {error}") from error
    except OSError as error:
        raise GitUnavailable(f"the .git file cannot be read: {error.strerror}") from error
    if not text.startswith(b"gitdir: "):
        raise GitUnavailable("the .git file names no git directory")
    return _tree(_target(top, text.removeprefix(b"gitdir: ")), top)


def _target(folder: Path, text: bytes) -> Path:
    """The folder that a pointer file names, with all links resolved."""
    name = os.fsdecode(text.rstrip(b"\r\n"))
    if "\0" in name or not name:
        raise GitUnavailable("a pointer file of the git directory names no folder")
    return Path(os.path.realpath(folder / name))


def _tree(folder: Path, top: Path) -> GitDirectory:
    if not folder.is_relative_to(top):
        return GitDirectory(folder, "")
    inside = folder.relative_to(top).as_posix()
    return GitDirectory(top, "" if inside == "." else inside)


def _shared_of(own: GitDirectory, top: Path) -> GitDirectory:
    """The git directory with the files that worktrees share: `own`, or for a linked worktree the main one."""
    text = _pointer(own, "commondir")
    if text is None:
        return own
    target = _target(own.path, text)
    is_linked = own.path.parent == target / "worktrees"
    if not is_linked and not target.is_relative_to(top):
        raise GitUnavailable("commondir of the git directory leads out of the project")
    return _tree(target, top)


def _pointer(tree: GitDirectory, name: str) -> bytes | None:
    try:
        with tree.open() as root:
            return root.read(tree.at(name), _MAX_POINTER_BYTES)[0]
    except NotReadable as error:
        if str(error) == "missing":
            return None
        raise GitUnavailable(f"{name} of the git directory cannot be read: {error}") from error
    except OSError as error:
        raise GitUnavailable(f"the git directory cannot be read: {error.strerror}") from error


def _names(own: GitDirectory, shared: GitDirectory, top: Path) -> bool:
    """Whether a git directory outside the project says that this is its working tree."""
    if own != shared:
        text = _pointer(own, "gitdir")
        # The last part is not resolved: a link there could lead to the `.git` file of another worktree.
        entry = own.path / os.fsdecode((text or b"").rstrip(b"\r\n"))
        return entry.name == ".git" and Path(os.path.realpath(entry.parent)) == top
    with own.open() as root:
        worktree = repository_config((root, own.inside), (root, own.inside)).worktree
    return worktree is not None and _target(own.path, os.fsencode(worktree)) == top
