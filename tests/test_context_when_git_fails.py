"""One thing that git cannot tell takes nothing else away, and git's own words say what it was."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest

from sidecar.actors.context.git import git as git_door
from tests.context_world import Builds, commit, git, repository, write


def _asked(root: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The context, what it says of git, and its warnings."""
    answer = Builds(root).answer("chief-architect")
    return answer["context"], answer["context"]["git_context"], str(answer["warnings"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = repository(tmp_path / "project", {"a.py": "a = 1\n"})
    return commit(root, {"b.py": "b = 1\n", ".gitignore": "x.py\n"}, "Go on")


def test_a_clone_without_trees_has_commits_branch_and_changes(tmp_path: Path, root: Path) -> None:
    git(root, "config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--filter=tree:0", f"file://{root}", str(clone))
    write(clone, {"a.py": "a = 2\n", "new.py": "n = 1\n"})
    context, told, warnings = _asked(clone)
    assert (told["branch"], [one["message"] for one in told["recent_commits"]]) == ("main", ["Go on", "Begin"])
    assert [one["path"] for one in told["uncommitted_changes"]] == ["a.py", "new.py"]
    assert context["project_structure"]["files"] == [".gitignore", "a.py", "b.py", "new.py"]
    assert "unable to read tree" in warnings
    assert "unable to read tree" in told["problem"]


def test_a_broken_index_leaves_branch_commits_and_files(root: Path) -> None:
    (root / ".git" / "index").write_bytes(b"nonsense" * 10)
    write(root, {"x.py": "ignored = 1\n"})
    context, told, warnings = _asked(root)
    assert (told["branch"], len(told["recent_commits"])) == ("main", 2)
    assert context["project_structure"]["files"] == [".gitignore", "a.py", "b.py"]
    assert "bad signature" in warnings or "index file corrupt" in warnings


def test_a_missing_tree_leaves_branch_and_files(root: Path) -> None:
    tree = git(root, "rev-parse", "HEAD^{tree}").strip()
    (root / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    write(root, {"x.py": "ignored = 1\n", "new.py": "n = 1\n"})
    context, told, warnings = _asked(root)
    assert (told["branch"], told["head"]) == ("main", git(root, "rev-parse", "HEAD").strip())
    assert context["project_structure"]["files"] == [".gitignore", "a.py", "b.py", "new.py"]
    assert [one["message"] for one in told["recent_commits"]] == ["Go on", "Begin"]
    assert tree[:10] in warnings


def test_a_missing_file_in_a_commit_takes_only_the_count_of_lines(root: Path) -> None:
    blob = git(root, "rev-parse", "HEAD:a.py").strip()
    (root / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    write(root, {"a.py": "a = 2\n"})
    _, told, warnings = _asked(root)
    assert [(one["path"], one["diff"]) for one in told["uncommitted_changes"]] == [("a.py", None)]
    assert (len(told["recent_commits"]), "git diff" in warnings) == (2, True)


@pytest.mark.parametrize(
    "text",
    ["[diff]\n\torderFile = /none\n", "[core]\n\tfileMode = maybe\n[diff]\n\trenames = 7x\n[color]\n\tui = odd\n"],
)
def test_a_value_that_git_refuses_does_not_count(root: Path, text: str) -> None:
    with (root / ".git" / "config").open("a") as config:
        config.write(text)
    _, told, warnings = _asked(root)
    assert (told["branch"], len(told["recent_commits"]), warnings) == ("main", 2, "[]")


def test_a_line_that_is_no_configuration_is_told_with_its_number(root: Path) -> None:
    config = root / ".git" / "config"
    config.write_text(config.read_text() + "[bad\n")
    line = len(config.read_text().splitlines()) + 1
    _, told, warnings = _asked(root)
    assert (told["branch"], len(told["recent_commits"])) == ("main", 2)
    assert f"bad config line {line}" in warnings or f"bad config line {line - 1}" in warnings
    assert ".git/config" in warnings


def test_a_pipe_that_stops_git_stops_one_context_and_not_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = repository(tmp_path / "project", {"a.py": "a = 1\n"})
    os.mkfifo(root / ".gitignore")
    monkeypatch.setattr(git_door, "TIMEOUT_S", 1.0)
    builds = Builds(root)
    for _ in range(5):
        began = time.monotonic()
        answer = builds.answer("chief-architect")
        took = time.monotonic() - began
        assert answer["context"]["git_context"]["branch"] == "main"
        assert "git status" in str(answer["warnings"])
        assert [file["path"] for file in answer["context"]["relevant_files"]] == ["a.py"]
    assert took < 1.0


def test_each_problem_is_logged_once_and_names_no_path_to_agents(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / ".git" / "index").write_bytes(b"nonsense" * 10)
    builds = Builds(root)
    with caplog.at_level(logging.WARNING):
        answers = [builds.answer("chief-architect") for _ in range(3)]
    logged = [record.message for record in caplog.records if "git is not fully known" in record.message]
    assert len(logged) == len(set(logged)) > 0
    assert str(root.parent) not in str([answer["warnings"] for answer in answers])


def test_a_project_that_a_repository_above_ignores_is_listed_as_without_git(tmp_path: Path) -> None:
    above = repository(tmp_path / "home", {".gitignore": "*\n", "dots": ""})
    write(above, {"work/x/a.py": "a = 1\n", "work/x/b.log": "b\n", "work/x/.gitignore": "*.log\n"})
    context, _, warnings = _asked(above / "work" / "x")
    assert context["project_structure"]["files"] == [".gitignore", "a.py"]
    assert "ignores it" in warnings


def test_a_new_folder_of_a_repository_is_not_taken_for_an_ignored_one(tmp_path: Path) -> None:
    above = repository(tmp_path / "home", {".gitignore": "*.log\n"})
    write(above, {"new/a.py": "a = 1\n"})
    context, _, warnings = _asked(above / "new")
    assert (context["project_structure"]["files"], warnings) == (["a.py"], "[]")


def test_a_project_of_which_everything_is_ignored_says_so(tmp_path: Path) -> None:
    root = repository(tmp_path / "project", {})
    write(root, {".gitignore": "*\n", "a.py": "a = 1\n"})
    context, _, warnings = _asked(root)
    assert context["project_structure"]["files"] == []
    assert "ignores every file" in warnings


@pytest.mark.parametrize("name", ["i18n.commitEncoding", "i18n.logOutputEncoding"])
def test_messages_are_read_whatever_encoding_the_repository_names(root: Path, tmp_path: Path, name: str) -> None:
    git(root, "config", name, "ISO-8859-1")
    (tmp_path / "message").write_bytes("Größe geändert".encode("latin-1"))
    git(root, "-c", "i18n.commitEncoding=ISO-8859-1", "commit", "-q", "--allow-empty", "-F", str(tmp_path / "message"))
    _, told, _ = _asked(root)
    assert told["recent_commits"][0]["message"] == "Größe geändert"


def test_a_message_in_latin_1_that_does_not_say_so_is_read(root: Path, tmp_path: Path) -> None:
    (tmp_path / "message").write_bytes("Größe geändert".encode("latin-1"))
    git(root, "commit", "-q", "--allow-empty", "-F", str(tmp_path / "message"))
    _, told, _ = _asked(root)
    assert told["recent_commits"][0]["message"] == "Größe geändert"


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("-300000 +0000", "1969-12-28T12:40:00Z"),
        ("-1 -0500", "1969-12-31T23:59:59Z"),
        ("nonsense", "1970-01-01T00:00:00Z"),
        ("99999999999999999999 +0000", "9999-12-31T23:59:59Z"),
        ("-99999999999999999 +0000", "0001-01-01T00:00:00Z"),
    ],
)
def test_a_commit_of_any_date_is_told(root: Path, tmp_path: Path, date: str, expected: str) -> None:
    who = f"Ada <ada@example.org> {date}"
    tree, parent = git(root, "rev-parse", "HEAD^{tree}").strip(), git(root, "rev-parse", "HEAD").strip()
    raw = tmp_path / "commit"
    raw.write_text(f"tree {tree}\nparent {parent}\nauthor {who}\ncommitter {who}\n\nOld times\n")
    oid = git(root, "hash-object", "-t", "commit", "-w", "--literally", str(raw)).strip()
    git(root, "update-ref", "refs/heads/main", oid)
    _, told, _ = _asked(root)
    commits = [(one["message"], one["timestamp"]) for one in told["recent_commits"]]
    assert commits[0] == ("Old times", expected)
    assert [message for message, _ in commits] == ["Old times", "Go on", "Begin"]


def test_a_command_that_prints_without_end_is_ended(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages compress a thousandfold, so a small repository can have git print gigabytes."""
    monkeypatch.setattr(git_door, "MAX_OUTPUT", 1 << 20)
    (root / "message").write_text("large " * 500_000)
    git(root, "commit", "-q", "--allow-empty", "-F", "message")
    (root / "message").unlink()
    context, told, warnings = _asked(root)
    assert "git log: it printed more than 1 MiB" in warnings
    assert told["recent_commits"][0]["message"].startswith("large large")
    assert context["project_structure"]["files"] == [".gitignore", "a.py", "b.py"]


def test_many_words_about_failures_stop_no_command(root: Path) -> None:
    output = git_door.run_git(
        *("-c", "alias.talk=!head -c 300000 /dev/zero >&2; echo done", "talk"), at=root, environment={}
    )
    assert output == b"done\n"


def test_what_git_would_ignore_is_left_out_when_it_fails(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    write(tmp_path / "config" / "git", {"ignore": "users.py\nkept.py\n"})
    write(root / ".git" / "info", {"exclude": "/sub/own.py\n!kept.py\n"})
    write(root, dict.fromkeys(("users.py", "kept.py", "sub/own.py", "sub/users.py", "own.py", "x.py"), "n = 1\n"))
    wanted = [".gitignore", "a.py", "b.py", "kept.py", "own.py"]
    assert _asked(root)[0]["project_structure"]["files"] == wanted
    (root / ".git" / "index").write_bytes(b"nonsense" * 10)
    assert _asked(root)[0]["project_structure"]["files"] == wanted
    assert _asked(root / "sub")[0]["project_structure"]["files"] == []
    (root / ".git" / "HEAD").write_bytes(b"nonsense")
    assert _asked(root)[0]["project_structure"]["files"] == wanted


def test_git_gets_so_much_memory_and_no_more(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_door, "MAX_MEMORY", 24 << 20)
    commit(root, {"big.txt": b"a" * (48 << 20)}, "Add what is small in the repository and large in memory")
    environment = {"GIT_DIR": str(root / ".git")}
    with pytest.raises(git_door.GitUnavailable, match="git diff-tree: it needs more than 24 MiB of memory"):
        git_door.run_git("diff-tree", "--numstat", "HEAD~1", "HEAD", at=root, environment=environment)
    names = git_door.run_git("diff-tree", "--name-only", "HEAD~1", "HEAD", at=root, environment=environment)
    assert names == b"big.txt\n"
