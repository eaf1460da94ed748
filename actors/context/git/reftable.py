"""Reads HEAD of a repository that keeps its refs in tables (reftable). Git reads them, in a directory of our own.

See docs/security.md, "Git".
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..safe_root import NotReadable, Root
from .config import RepositoryConfig, as_config
from .git import NO_CONFIGURATION, GitUnavailable, run_git
from .place import GitDirectory

LIST = "reftable/tables.list"
_MAX_LIST_BYTES = 64 << 10
_MAX_TABLES = 256  # git keeps a handful, and merges them
_MAX_BYTES = 64 << 20
_REMEDY = "git 2.45 or newer can, and `git refs migrate --ref-format=files` turns them into files"


def head_in_tables(root: Root, tree: GitDirectory, config: RepositoryConfig, directory: Path) -> tuple[str | None, str]:
    """The full name of the branch that is checked out (None when detached), and its commit, empty before the first.

    directory: created by us; it holds copies of the tables and nothing else of the repository. Raises GitUnavailable.
    """
    try:
        _copy_tables(root, tree, config, directory)
        environment = NO_CONFIGURATION | {"GIT_DIR": str(directory)}
        ref = _said("symbolic-ref", "--quiet", "HEAD", at=directory, environment=environment)
        return ref or None, _said("rev-parse", "--quiet", "--verify", "HEAD", at=directory, environment=environment)
    except NotReadable as error:
        raise GitUnavailable(f"the refs, kept as reftable, cannot be read: {error}") from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _copy_tables(root: Root, tree: GitDirectory, config: RepositoryConfig, directory: Path) -> None:
    listed, _ = root.read(tree.at(LIST), _MAX_LIST_BYTES)
    names = listed.decode("utf-8", "replace").split()
    if len(names) > _MAX_TABLES or not all(name.endswith(".ref") and "/" not in name for name in names):
        raise GitUnavailable("the list of the tables of refs names other files, or too many")
    shutil.rmtree(directory, ignore_errors=True)
    for name in ("objects", "refs", "reftable"):
        (directory / name).mkdir(mode=0o700, parents=True)
    room = _MAX_BYTES
    for name in names:
        data, _ = root.read(tree.at(f"reftable/{name}"), room + 1)
        room -= len(data)
        if room < 0:
            raise GitUnavailable(f"the tables of refs take more than {_MAX_BYTES >> 20} MiB")
        (directory / "reftable" / name).write_bytes(data)
    (directory / LIST).write_bytes(listed)
    (directory / "HEAD").write_text("ref: refs/heads/.invalid\n")
    values = {
        "core.repositoryformatversion": "1",
        "core.hookspath": os.devnull,
        "extensions.objectformat": config.object_format,
        "extensions.refstorage": "reftable",
    }
    (directory / "config").write_text(as_config(values))


def _said(*words: str, at: Path, environment: dict[str, str]) -> str:
    """What a command says; nothing where it only says no."""
    try:
        return run_git(*words, at=at, environment=environment).decode("utf-8", "replace").strip()
    except GitUnavailable as error:
        if str(error).endswith("exit code 1"):
            return ""
        if "refstorage" in str(error):
            raise GitUnavailable(f"this git cannot read refs that are kept as reftable: {_REMEDY}") from error
        raise
