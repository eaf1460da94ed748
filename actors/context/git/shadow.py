"""Shadow: the git directory that our commands use instead of the repository's, with a configuration of our own.

Git runs programs that a repository's configuration names, so it must never see that configuration. A shadow has the
values that count, copies of the index, HEAD and a few other files, each read without following a link, and links to the
folders with the objects. It has no ref except HEAD: no other is needed, and none can point outside the project.

See docs/security.md, "Git".
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..safe_root import NotReadable, Root, Stamp
from .config import USERS_FILES, RepositoryConfig, config_text, repository_config
from .git import GitUnavailable
from .objects import ObjectStore
from .place import GitDirectory, RepositoryLayout
from .reftable import LIST, head_in_tables
from .user_config import UserConfig

MAX_REF_BYTES = 4096
_MAX_PACKED_REFS_BYTES = 64 << 20
_SYMREFS = 5  # refs that name refs, as many as git follows
_READ_BYTES = 1 << 20
_NO_COMMIT = "the branch that is checked out names no commit"
_COPIED = ("info/exclude", "info/attributes", "info/sparse-checkout")  # of the shared directory, except the last
_USER = UserConfig()


def user_stamp() -> object:
    """A stamp that changes with the user's own configuration."""
    return _USER.stamp()


def user_files(git_dir: Path) -> tuple[Path, ...]:
    """The user's ignore and attributes files."""
    values = _USER.values(str(git_dir))
    return tuple(Path(values[name]) for name in USERS_FILES if name in values)


class Head(NamedTuple):
    """HEAD. branch: without `refs/heads/`, None when detached. oid: of the commit, None before the first one."""

    ref: str | None
    oid: str | None

    @property
    def branch(self) -> str | None:
        return self.ref.removeprefix("refs/heads/") if self.ref is not None else None


class Shadow:
    """One repository's shadow, in the folder `directory`. For one thread at a time; commands may run meanwhile."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.head = Head(None, None)
        self.config: RepositoryConfig | None = None
        self.notes: tuple[str, ...] = ()
        self._copied: dict[str, Stamp | None] = {}
        self._written: dict[str, str] = {}
        self._config_state: object = None
        self._packed: tuple[str, Stamp | None, str | None] = ("", None, None)
        self._tables_state: Stamp | None = None
        self._head_of_tables = self.head
        self._objects = ObjectStore(directory / "objects")

    def refresh(self, place: RepositoryLayout, project: Path) -> None:
        """Update it from the repository. project: the folder alternates may lie in. Raises GitUnavailable."""
        try:
            self._make()
            with place.own.open() as own, place.shared.open() as shared:
                self._refresh_config(place, own, shared)
                self._objects.refresh(place.shared, project)
                self._refresh_head(place, own, shared)
                notes = self._copy_files(place, own, shared)
            assert self.config is not None
            own_notes = (*self.config.notes, *_USER.notes, *notes)
            self.notes = (*own_notes, self._objects.note) if self._objects.note is not None else own_notes
        except NotReadable as error:
            raise GitUnavailable(f"the git directory cannot be read: {error}") from error
        except OSError as error:
            raise GitUnavailable(f"the git directory cannot be read or its shadow made: {error.strerror}") from error

    def check_objects(self) -> None:
        """Check the objects that `refresh` has not checked; git may run meanwhile. Raises GitUnavailable."""
        try:
            self._objects.check()
        except OSError as error:
            raise GitUnavailable(f"the git directory cannot be read: {error.strerror}") from error

    def refuse_if_moved(self) -> None:
        """Raise GitUnavailable when git may have read objects that were not checked."""
        self._objects.refuse_if_moved()

    def _forget(self) -> None:
        self._copied.clear()
        self._written.clear()
        self._config_state = None
        self._objects = ObjectStore(self.directory / "objects")

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)  # links in it are removed, not followed

    def _make(self) -> None:
        if (self.directory / "refs").is_dir() and (self.directory / "HEAD").exists():
            return
        self._forget()
        for name in ("refs", "info", "none"):  # none: shown to git in place of objects that lead elsewhere
            (self.directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def _refresh_config(self, place: RepositoryLayout, own: Root, shared: Root) -> None:
        state = (
            place,
            _state(shared, place.shared.at("config")),
            _state(own, place.own.at("config.worktree")),
            _USER.stamp(),
        )
        if self.config is None or state != self._config_state:
            self.config = repository_config((shared, place.shared.inside), (own, place.own.inside))
            users = _USER.values(str(place.own.path))
            self._write("config", config_text(self.config, users))
            self._config_state = (*state[:-1], _USER.stamp())

    def _refresh_head(self, place: RepositoryLayout, own: Root, shared: Root) -> None:
        assert self.config is not None
        if self.config.has_reftable:
            self.head = self._head_in_tables(place, own)
        else:
            self.head = self._read_head(place, own, shared)
        ref, oid = self.head
        self._write("packed-refs", f"{oid} {ref}\n" if ref is not None and oid is not None else "")
        self._write("HEAD", f"ref: {ref}\n" if ref is not None else f"{oid}\n")

    def _head_in_tables(self, place: RepositoryLayout, own: Root) -> Head:
        """HEAD of a repository with reftable. It takes two commands, so it is kept until the list of tables changes."""
        if place.own != place.shared:
            raise GitUnavailable("a linked worktree of a repository that keeps its refs as reftable cannot be read")
        assert self.config is not None
        state = _state(own, place.own.at(LIST))
        if self._tables_state is None or self._tables_state != state:
            ref, oid = head_in_tables(own, place.own, self.config, self.directory / "tables")
            if (ref is not None and not _is_ref(ref)) or (oid and not _is_oid(oid)) or (ref is None and not oid):
                raise GitUnavailable(_NO_COMMIT)
            self._tables_state, self._head_of_tables = state, Head(ref, oid or None)
        return self._head_of_tables

    def _read_head(self, place: RepositoryLayout, own: Root, shared: Root) -> Head:
        """Read HEAD, and the commit that its ref names. Raises GitUnavailable."""
        text = own.read(place.own.at("HEAD"), MAX_REF_BYTES)[0].decode("utf-8", "surrogateescape").strip()
        if _is_oid(text):
            return Head(None, text)
        if not text.startswith("ref:"):
            raise GitUnavailable("HEAD of the git directory names no branch and no commit")
        first = text.removeprefix("ref:").strip()
        said: str | None = text
        for _ in range(_SYMREFS):
            said = self._read_ref(place, shared, (said or "").removeprefix("ref:").strip())
            if said is None or _is_oid(said):
                return Head(first, said)
        raise GitUnavailable(_NO_COMMIT)

    def _read_ref(self, place: RepositoryLayout, shared: Root, ref: str) -> str | None:
        """The content of a ref: a commit, or `ref: ` and another ref; None if it does not exist yet."""
        if not _is_ref(ref):
            raise GitUnavailable(_NO_COMMIT)
        try:
            text = shared.read(place.shared.at(ref), MAX_REF_BYTES)[0].decode("utf-8", "surrogateescape").strip()
        except NotReadable as error:
            if str(error) not in ("missing", "not a regular file"):  # a folder may be left of a branch `a/b`
                raise GitUnavailable(f"the branch that is checked out cannot be read: {error}") from error
            return self._packed_ref(place, shared, ref)
        if not _is_oid(text) and not text.startswith("ref:"):
            raise GitUnavailable(_NO_COMMIT)
        return text

    def _packed_ref(self, place: RepositoryLayout, shared: Root, ref: str) -> str | None:
        path = place.shared.at("packed-refs")
        state = _state(shared, path)
        if self._packed[:2] != (ref, state):
            try:
                packed = b"" if state is None else shared.read(path, _MAX_PACKED_REFS_BYTES)[0]
            except NotReadable as error:
                raise GitUnavailable(f"packed-refs cannot be read: {error}") from error
            self._packed = (ref, state, _oid_in(packed, ref))
        return self._packed[2]

    def _copy_files(self, place: RepositoryLayout, own: Root, shared: Root) -> list[str]:
        """Copy the files that git reads in a git directory. Returns notes on optional files that it cannot read."""
        self._copy(own, place.own, "index")
        self._copy_shared_indexes(place, own)
        self._refresh_shallow(place, shared)
        notes = []
        for name in _COPIED:
            tree, root = (place.own, own) if name.endswith("checkout") else (place.shared, shared)
            try:
                self._copy(root, tree, name)
            except GitUnavailable as error:
                self._remove(name)
                notes.append(str(error))
        return notes

    def _copy_shared_indexes(self, place: RepositoryLayout, own: Root) -> None:
        """Copy the shared part of a split index. Few repositories have one."""
        if _state(own, place.own.at("index")) is None:
            return
        with os.scandir(place.own.path) as entries:
            names = [entry.name for entry in entries if entry.name.startswith("sharedindex.")]
        for name in names:
            self._copy(own, place.own, name)

    def _refresh_shallow(self, place: RepositoryLayout, shared: Root) -> None:
        try:
            text = shared.read(place.shared.at("shallow"), _MAX_PACKED_REFS_BYTES)[0].decode("ascii", "replace")
        except NotReadable:
            text = ""
        lines = [line for line in text.split("\n") if _is_oid(line)]
        if lines:
            self._write("shallow", "".join(f"{line}\n" for line in lines))
        else:
            self._remove("shallow")

    def _copy(self, root: Root, tree: GitDirectory, name: str) -> None:
        """Copy a file with its times: git judges by those of the index what may have changed since it was written."""
        try:
            file, stamp = root.opened(tree.at(name))
        except NotReadable as error:
            if str(error) != "missing":
                raise GitUnavailable(f"{name} of the git directory cannot be read: {error}") from error
            self._remove(name)
            return
        with file:
            if self._copied.get(name) == stamp:
                return
            new = self.directory / f"{name}.new"
            with _created(new) as copy:
                shutil.copyfileobj(file, copy, _READ_BYTES)
            os.utime(new, ns=(stamp.mtime_ns, stamp.mtime_ns))
            new.replace(self.directory / name)
        self._copied[name] = stamp

    def _write(self, name: str, text: str) -> None:
        if self._written.get(name) == text:
            return
        new = self.directory / f"{name}.new"
        with _created(new) as file:
            file.write(text.encode("utf-8", "surrogateescape"))
        new.replace(self.directory / name)
        self._written[name] = text

    def _remove(self, name: str) -> None:
        if self._copied.pop(name, None) is not None or self._written.pop(name, None) is not None:
            (self.directory / name).unlink(missing_ok=True)


def _created(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")


def _state(root: Root, path: str) -> Stamp | None:
    try:
        return root.stamp(path)
    except NotReadable:
        return None


def _oid_in(packed: bytes, ref: str) -> str | None:
    end = packed.find(b" " + ref.encode("utf-8", "surrogateescape") + b"\n")
    if end < 0:
        return None
    oid = packed[packed.rfind(b"\n", 0, end) + 1 : end].decode("ascii", "replace")
    return oid if _is_oid(oid) else None


def _is_oid(text: str) -> bool:
    return len(text) in (40, 64) and all(letter in "0123456789abcdef" for letter in text)


def _is_ref(ref: str) -> bool:
    parts = ref.split("/")
    return (
        parts[0] == "refs" and len(parts) > 1 and all(part not in ("", ".", "..") for part in parts) and _is_line(ref)
    )


def _is_line(text: str) -> bool:
    return all(letter > " " and letter != "\x7f" for letter in text)
