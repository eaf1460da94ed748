"""The user's own git says what is ignored and what is modified. Nothing else of it, and no GIT_ variable, counts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sidecar.actors.context.git.place import find_git
from sidecar.actors.context.git.repository import Repository, Shadows
from tests.context_world import Builds, git, repository, write


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home, with nothing of git's in it yet."""
    made = tmp_path / "home"
    made.mkdir()
    for name in [name for name in os.environ if name.startswith(("GIT_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(made))
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return repository(tmp_path / "work" / "project", {"a.py": "a = 1\n"})


def _sent(root: Path) -> list[str]:
    return sorted(Builds(root).files("chief-architect", files=("**",)))


def _changes(root: Path) -> list[str]:
    changes = Builds(root).answer()["context"]["git_context"]["uncommitted_changes"]
    return [one["path"] for one in changes]


IGNORE = "[core]\n\texcludesFile = ~/ignored\n"
# Files of the home folder, each of which lets git ignore local.py.
IGNORING = {
    "~/.gitconfig": {".gitconfig": IGNORE, "ignored": "local.py\n"},
    "XDG": {".config/git/config": IGNORE, "ignored": "local.py\n"},
    "the file's usual place": {".config/git/ignore": "local.py\n"},
    "include": {".gitconfig": "[include]\n\tpath = more\n", "more": IGNORE, "ignored": "local.py\n"},
    "include in an include": {
        ".gitconfig": "[include]\n\tpath = ~/sub/one\n",
        "sub/one": "[include]\n\tpath = two\n",
        "sub/two": IGNORE,
        "ignored": "local.py\n",
    },
    "include for the folder": {
        ".gitconfig": '[core]\n\texcludesFile = /none\n[includeIf "gitdir:**/work/"]\n\tpath = more\n',
        "more": IGNORE,
        "ignored": "local.py\n",
    },
}


@pytest.mark.parametrize("how", IGNORING)
def test_what_the_user_ignores_is_not_sent(home: Path, root: Path, how: str) -> None:
    write(root, {"local.py": "private = 1\n"})
    assert _sent(root) == ["a.py", "local.py"]
    write(home, IGNORING[how])
    ignored = git(root, "status", "--porcelain", HOME=str(home), GIT_CONFIG_GLOBAL=str(home / ".gitconfig"))
    assert _sent(root) == ["a.py"], ignored


def test_an_include_for_another_folder_does_not_count(home: Path, root: Path) -> None:
    write(home, {".gitconfig": '[includeIf "gitdir:~/elsewhere/"]\n\tpath = more\n', "more": IGNORE, "ignored": "*\n"})
    assert _sent(root) == ["a.py"]


def test_a_change_of_what_the_user_ignores_is_noticed(home: Path, root: Path) -> None:
    write(root, {"local.py": "private = 1\n"})
    builds = Builds(root)
    assert "local.py" in builds.files()
    write(home, {".gitconfig": IGNORE, "ignored": "other.py\n"})
    assert "local.py" in builds.files()
    write(home, {"ignored": "local.py\n"})
    assert "local.py" not in builds.files()


def test_a_git_directory_that_moves_brings_other_files_of_the_user(home: Path, root: Path) -> None:
    """Includes depend on the place of the git directory, so the files that are watched depend on it too."""
    config = '[core]\n\texcludesFile = ~/first\n[includeIf "gitdir:**/two.git/"]\n\tpath = more\n'
    write(
        home,
        {".gitconfig": config, "more": "[core]\n\texcludesFile = ~/second\n", "first": "*.git\n", "second": "*.git\n"},
    )
    write(root, {"local.py": "private = 1\n"})
    repository, place = None, root / ".git"
    for name in ("one.git", "two.git", "one.git"):
        place = place.rename(root / name)
        (root / ".git").write_text(f"gitdir: {name}\n")
        found = find_git(root)
        assert found is not None
        repository = repository or Repository(root, found, Shadows(home / "shadows"))
        repository.state()
        repository.refresh()
        before = repository.state()
    assert repository is not None
    assert repository.state() == before
    write(home, {"first": "local.py\n"})
    assert repository.state() != before
    repository.close()


def _committed_with(root: Path, setting: str) -> None:
    """Commit a file with CRLF under a setting of git's, and let git look into it."""
    write(root, {"b.txt": "x\r\ny\r\n"})
    git(root, "-c", setting, "add", "b.txt")
    git(root, "commit", "-q", "-m", "Lines")
    os.utime(root / "b.txt", (1, 1))


@pytest.mark.parametrize("value", ["true", "input"])
def test_line_ends_are_compared_as_the_user_says(home: Path, root: Path, value: str) -> None:
    _committed_with(root, f"core.autocrlf={value}")
    assert _changes(root) == ["b.txt"]
    write(home, {".gitconfig": f"[core]\n\tautocrlf = {value}\n"})
    assert _changes(root) == []


def test_the_repositorys_plain_values_go_before_the_users(home: Path, root: Path) -> None:
    write(home, {".gitconfig": "[core]\n\tfileMode = true\n"})
    git(root, "config", "core.fileMode", "false")
    (root / "a.py").chmod(0o755)
    assert _changes(root) == []
    git(root, "config", "core.fileMode", "yes")
    assert _changes(root) == ["a.py"]


def test_the_users_attributes_count(home: Path, root: Path) -> None:
    write(home, {"attributes": "*.txt text\n"})
    _committed_with(root, f"core.attributesFile={home}/attributes")
    assert _changes(root) == ["b.txt"]
    write(home, {".config/git/attributes": "*.txt text\n"})
    assert _changes(root) == []


def test_an_ignore_file_that_the_repository_names_does_not_count_and_is_told(home: Path, root: Path) -> None:
    write(root, {"local.py": "private = 1\n"})
    write(home, {"ignored": "local.py\n"})
    git(root, "config", "core.excludesFile", str(home / "ignored"))
    answer = Builds(root).answer()
    assert "local.py" in str(answer["context"]["relevant_files"])
    assert "core.excludesFile" in str(answer["warnings"])
    write(root, {".git/info/exclude": "local.py\n"})
    assert _sent(root) == ["a.py"]


def test_a_fault_in_the_users_configuration_is_told_and_takes_nothing_away(home: Path, root: Path) -> None:
    write(home, {".gitconfig": f"{IGNORE}[bad\n", "ignored": "local.py\n"})
    write(root, {"local.py": "private = 1\n"})
    answer = Builds(root).answer()
    assert [file["path"] for file in answer["context"]["relevant_files"]] == ["a.py"]
    assert "bad config line" in str(answer["warnings"])
    assert str(home) not in str(answer["warnings"])


def _gits_own(other: Path) -> dict[str, Any]:
    return {
        "GIT_DIR": f"{other}/.git",
        "GIT_INDEX_FILE": f"{other}/.git/index",
        "GIT_OBJECT_DIRECTORY": f"{other}/.git/objects",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": f"{other}/.git/objects",
        "GIT_COMMON_DIR": f"{other}/.git",
        "GIT_WORK_TREE": str(other),
        "GIT_NAMESPACE": "x",
        "GIT_CEILING_DIRECTORIES": str(other.parent),
        "GIT_GLOB_PATHSPECS": "1",
        "GIT_ICASE_PATHSPECS": "1",
        "GIT_NOGLOB_PATHSPECS": "1",
        "GIT_SHALLOW_FILE": f"{other}/.git/HEAD",
        "GIT_GRAFT_FILE": f"{other}/.git/HEAD",
        "GIT_REPLACE_REF_BASE": "refs/x",
        "GIT_CONFIG_PARAMETERS": "'core.bare'='true'",
        "GIT_EXEC_PATH": "/nowhere",
        "GIT_DEFAULT_HASH": "sha256",
        "GIT_ATTR_SOURCE": "HEAD",
        "GIT_PREFIX": "sub/",
        "GIT_QUARANTINE_PATH": str(other),
        "GIT_FLUSH": "x",
        "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1",
        "GIT_PYTHON_GIT_EXECUTABLE": "/nowhere",
    }


@pytest.mark.parametrize("name", _gits_own(Path()))
def test_a_git_variable_of_whoever_started_the_sidecar_misleads_nobody(
    home: Path, root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    other = repository(home / "other", {"other.py": "o = 1\n"}, "Another")
    write(root, {"a.py": "a = 2\n", "new.py": "n = 1\n"})
    before = Builds(root).answer("chief-architect")
    monkeypatch.setenv(name, _gits_own(other)[name])
    after = Builds(root).answer("chief-architect")
    assert (after["context"], after["warnings"]) == (before["context"], before["warnings"])
    assert after["context"]["git_context"]["recent_commits"][0]["message"] == "Begin"
