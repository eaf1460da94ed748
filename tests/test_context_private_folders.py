"""Git directories and the storage of a sidecar are never files of a project, whatever their names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sidecar.actors.context.private_folders import Private
from sidecar.http.cli.doctor import examine
from sidecar.http.config import Flags, load
from sidecar.http.serve import running
from tests.context_world import Builds, commit, git, repository, write

CREDENTIAL = "AUTHORIZATION: " + "basic c2VjcmV0"


def _told(root: Path, storage: Path | None = None) -> str:
    """All that an architect is told, who asks for everything."""
    return json.dumps(Builds(root, storage=storage).answer("chief-architect", files=("**",)))


def _with_credential(root: Path, *git_dir: str) -> None:
    git(root, *git_dir, "config", "http.extraheader", CREDENTIAL)


@pytest.fixture(params=[True, False], ids=["with git", "without git"])
def root(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    root = tmp_path / "project"
    write(root, {"a.py": "a = 1\n", "docs/config": "PLAIN = 1\n"})
    return repository(root, {}) if request.param else root


@pytest.mark.parametrize("how", [("--bare",), ("--mirror",)], ids=["bare", "mirror"])
@pytest.mark.parametrize("name", ["library.git", "deep/down/.bare", "HEAD"])
def test_a_repository_in_the_tree_is_not_listed(tmp_path: Path, root: Path, name: str, how: tuple[str]) -> None:
    library = repository(tmp_path / "library", {"lib.py": "lib = 1\n"}, "Of the library")
    git(tmp_path, "clone", "-q", *how, str(library), str(root / name))
    _with_credential(root / name)
    told = _told(root)
    assert CREDENTIAL not in told
    assert f"{name}/" not in told
    assert "a = 1" in told
    assert "PLAIN = 1" in told


def test_a_git_directory_that_was_committed_is_not_listed(tmp_path: Path) -> None:
    root = repository(tmp_path / "project", {"a.py": "a = 1\n"})
    git(tmp_path, "clone", "-q", "--bare", str(root), str(root / "fixture"))
    _with_credential(root / "fixture")
    commit(root, {}, "With a fixture")
    told = json.loads(_told(root))["context"]
    assert told["project_structure"]["files"] == ["a.py"]
    assert CREDENTIAL not in json.dumps(told)


def test_a_separate_git_directory_in_the_project_is_not_listed(tmp_path: Path) -> None:
    root = tmp_path / "project"
    git(tmp_path, "init", "-q", "-b", "main", f"--separate-git-dir={root / 'meta'}", str(root))
    commit(root, {"a.py": "a = 1\n", ".gitignore": "meta\n"}, "Begin")
    (root / ".gitignore").unlink()
    _with_credential(root)
    told = json.loads(_told(root))["context"]
    assert told["git_context"]["branch"] == "main"
    assert told["project_structure"]["files"] == ["a.py"]


def test_a_bare_repository_with_its_worktrees_in_one_folder(tmp_path: Path) -> None:
    library = repository(tmp_path / "library", {"lib.py": "lib = 1\n"}, "Of the library")
    root = tmp_path / "project"
    root.mkdir()
    git(root, "clone", "-q", "--bare", str(library), str(root / ".bare"))
    (root / ".git").write_text("gitdir: ./.bare\n")
    git(root, "worktree", "add", "-q", "-b", "side", str(root / "side"))
    _with_credential(root)
    told = json.loads(_told(root))
    assert told["context"]["project_structure"]["files"] == ["side/lib.py"]
    assert "Of the library" in json.dumps(told["context"]["git_context"])
    assert CREDENTIAL not in json.dumps(told)
    assert _told(root / "side").count("side/") == 0
    shutil.move(root / ".bare" / "worktrees" / "side", root / "admin")  # what is left of a worktree's own folder
    assert "admin/" not in _told(root)


def test_a_git_directory_as_the_root_has_no_files(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", str(tmp_path / "bare"))
    _with_credential(tmp_path / "bare")
    for folder in (tmp_path / "bare", tmp_path / "bare" / "hooks"):
        told = json.loads(_told(folder))
        assert told["context"]["project_structure"]["files"] == []
        assert "git directory" in str(told["warnings"])
        assert CREDENTIAL not in json.dumps(told)


@pytest.mark.parametrize("place", [".sidecar", "var/state/x", "storage"])
def test_the_storage_of_a_sidecar_is_not_listed(root: Path, place: str) -> None:
    storage = root / place
    with running(load(Flags(port=0, storage=storage, project_root=root), {}, working_dir=root)):
        secret = (storage / "secret").read_text().strip()
        for known in (storage, None):  # the sidecar's own, and another's in the same project
            told = _told(root, known)
            assert secret not in told
            assert f"{place}/" not in told
            assert "a = 1" in told
    config = load(Flags(port=0, storage=storage, project_root=root), {}, working_dir=root)
    assert any("lies in the project" in one.found for one in examine(config, holder=None))


def test_a_storage_that_is_the_root_keeps_its_own_files_back(root: Path) -> None:
    write(root, {"secretary.py": "s = 1\n", "login/a.py": "l = 1\n"})
    with running(load(Flags(port=0, storage=root, project_root=root), {}, working_dir=root)):
        told = json.loads(_told(root, root))["context"]
    listed = told["project_structure"]["files"]
    assert [path for path in listed if "/" not in path] == ["a.py", "secretary.py"]
    assert {path.split("/")[0] for path in listed if "/" in path} == {"docs", "login"}


def test_what_is_private_is_a_folder_and_not_what_only_begins_alike() -> None:
    private = Private(("a/b/",), frozenset(("secret",)))
    assert [path for path in ("a/b/c", "a/bc", "a/b", "secret", "secret/x", "secrets") if private.holds(path)] == [
        "a/b/c",
        "secret",
    ]
