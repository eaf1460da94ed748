"""What a context says of git is true, whatever state or configuration the repository is in."""

from __future__ import annotations

import os
import subprocess
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.actors.context.emit import rfc3339
from sidecar.actors.context.git import git as git_door
from sidecar.state.clock import utc_at_clamped
from tests.context_world import Builds, commit, context_of, git, omitted_of, repository, sent_of, write


def test_uncommitted_changes_are_told_with_their_lines(tmp_path: Path) -> None:
    root = repository(tmp_path, {"a.py": "1\n2\n3\n", "b.py": "b\n", "c.py": "c\n", "blob.bin": b"\0\1"})
    write(root, {"a.py": "1\n2\nthree\nfour\n", "new.py": "x\ny\n", "blob.bin": b"\0\2"})
    (root / "b.py").unlink()
    git(root, "mv", "c.py", "moved.py")
    changes = {
        one["path"]: (one["status"], one["diff"]) for one in context_of(root)["git_context"]["uncommitted_changes"]
    }
    assert changes == {
        "a.py": ("modified", "+2 -1"),
        "b.py": ("deleted", "+0 -1"),
        "blob.bin": ("modified", None),
        "c.py": ("deleted", "+0 -1"),
        "moved.py": ("added", "+1 -0"),
        "new.py": ("untracked", "+2 -0"),
    }


@given(st.integers(-(2**63), 2**63))
@example(253_402_300_800)
@example(-62_135_596_801)
def test_files_and_commits_may_be_dated_at_any_time(seconds: int) -> None:
    told = rfc3339(utc_at_clamped(seconds))
    assert len(told) == len("2026-01-01T00:00:00Z")
    if abs(seconds) < 60_000_000_000:
        assert datetime.fromisoformat(told).timestamp() == seconds


def test_commits_come_newest_first_with_their_files(tmp_path: Path) -> None:
    root = repository(tmp_path, {"a.py": "1\n"}, "Begin\n\nWith a body: ünïcode")
    commit(root, {"src/b é.py": "2\n", "a.py": "2\n"}, "Go on")
    git_context = context_of(root)["git_context"]
    newest, oldest = git_context["recent_commits"]
    assert (newest["message"], newest["author"]) == ("Go on", "Ada")
    assert newest["files_changed"] == ["a.py", "src/b é.py"]
    assert oldest["message"] == "Begin\n\nWith a body: ünïcode"
    assert newest["hash"] == git(root, "rev-parse", "HEAD").strip() == git_context["head"]
    assert newest["timestamp"].endswith("Z")


def test_a_commit_from_beyond_the_last_year_is_a_commit(tmp_path: Path) -> None:
    root = repository(tmp_path, {"a.py": "1\n"}, "Begin")
    at = "@253402300800 +0000"
    (root / "a.py").write_text("2\n")
    git(root, "commit", "--all", "-m", "From the future", GIT_AUTHOR_DATE=at, GIT_COMMITTER_DATE=at)
    newest, oldest = context_of(root)["git_context"]["recent_commits"]
    assert (newest["message"], newest["timestamp"]) == ("From the future", "9999-12-31T23:59:59Z")
    assert oldest["message"] == "Begin"


def test_a_repository_without_a_commit_has_a_context(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    write(tmp_path, {"a.py": "a = 1\n"})
    context = context_of(tmp_path)
    assert (context["git_context"]["branch"], context["git_context"]["recent_commits"]) == ("main", [])
    assert [file["path"] for file in context["relevant_files"]] == ["a.py"]


def test_a_detached_head_has_no_branch(tmp_path: Path) -> None:
    root = repository(tmp_path, {"a.py": "a = 1\n"})
    git(root, "checkout", "-q", "--detach")
    assert context_of(root)["git_context"]["branch"] is None


def test_a_project_inside_a_repository_sees_its_own_part_only(tmp_path: Path) -> None:
    root = repository(tmp_path, {"shop/a.py": "a = 1\n", "bank/b.py": "b = 1\n", "c.py": "c = 1\n"})
    commit(root, {"bank/b.py": "b = 2\n"}, "Bank only")
    commit(root, {"shop/a.py": "a = 2\n", "bank/b.py": "b = 3\n"}, "Both")
    write(root, {"bank/b.py": "b = 4\n", "shop/new.py": "n = 1\n"})
    context = context_of(root / "shop")
    assert context["project_structure"]["files"] == ["a.py", "new.py"]
    assert [(one["message"], one["files_changed"]) for one in context["git_context"]["recent_commits"]] == [
        ("Both", ["a.py"]),
        ("Begin", ["a.py"]),
    ]
    assert [one["path"] for one in context["git_context"]["uncommitted_changes"]] == ["new.py"]


def test_a_linked_worktree_is_a_project_of_its_own(tmp_path: Path) -> None:
    root = repository(tmp_path / "main", {"a.py": "a = 1\n"})
    git(root, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    commit(tmp_path / "side", {"b.py": "b = 1\n"}, "On the side")
    context = context_of(tmp_path / "side")
    assert context["git_context"]["branch"] == "side"
    assert [file["path"] for file in context["relevant_files"]] == ["b.py", "a.py"]
    assert sent_of(root) == ["a.py"]


def test_a_submodule_is_told_but_not_entered_and_can_be_a_project_itself(tmp_path: Path) -> None:
    library = repository(tmp_path / "library", {"lib.py": "lib = 1\n"})
    root = repository(tmp_path / "project", {"a.py": "a = 1\n"})
    git(root, "submodule", "--quiet", "add", str(library), "vendor/library")
    commit(root, {}, "Add the library")
    context = context_of(root)
    assert "lib = 1" not in str(context["relevant_files"])
    assert omitted_of(context)["vendor/library"] == "submodule"
    assert sent_of(root / "vendor" / "library") == ["lib.py"]


def test_a_repository_inside_the_tree_is_not_entered(tmp_path: Path) -> None:
    root = repository(tmp_path / "project", {"a.py": "a = 1\n"})
    repository(root / "nested", {"inner.py": "inner = 1\n"})
    assert sent_of(root) == ["a.py"]


def test_a_merge_conflict_is_a_status(tmp_path: Path) -> None:
    root = repository(tmp_path, {"a.py": "a = 1\n"})
    git(root, "checkout", "-q", "-b", "side")
    commit(root, {"a.py": "a = 2\n"}, "Two")
    git(root, "checkout", "-q", "main")
    commit(root, {"a.py": "a = 3\n"}, "Three")
    with pytest.raises(Exception, match="merge"):
        git(root, "merge", "side")
    (change,) = context_of(root)["git_context"]["uncommitted_changes"]
    assert (change["path"], change["status"]) == ("a.py", "conflicted")


@pytest.mark.parametrize("subfolder", ["", "sub"])
def test_no_program_of_the_repositorys_configuration_runs(tmp_path: Path, subfolder: str) -> None:
    root = repository(
        tmp_path / "project", {"a.py": "a = 1\n", "sub/b.py": "b = 1\n", ".gitattributes": "* filter=evil diff=evil\n"}
    )
    trap = tmp_path / "sprung"
    program = tmp_path / "evil.sh"
    program.write_text(f"#!/bin/sh\ntouch {trap}\ncat\n")
    program.chmod(0o755)
    included = tmp_path / "included"
    included.write_text(f'[filter "hidden"]\n\tclean = {program}\n\trequired = true\n')
    (root / ".gitattributes").write_text("*.py filter=hidden diff=evil\n* filter=evil\n")
    for key, value in {
        "core.fsmonitor": str(program),
        "core.pager": str(program),
        "core.hooksPath": str(tmp_path),
        "diff.external": str(program),
        "diff.evil.textconv": str(program),
        "diff.evil.command": str(program),
        "filter.evil.clean": str(program),
        "filter.evil.process": str(program),
        "filter.evil.required": "true",
        "include.path": str(included),
        "log.showSignature": "true",
        "gpg.program": str(program),
        "core.worktree": "/etc",
        "core.sshCommand": str(program),
        "remote.origin.url": f"ext::{program}",
        "remote.origin.promisor": "true",
        "extensions.partialClone": "origin",
    }.items():
        git(root, "config", key, value, GIT_CONFIG_GLOBAL=os.devnull)
    write(root, {"a.py": "a = 2\n", "sub/b.py": "b = 2\n"})
    context = context_of(root / subfolder, "chief-architect")
    assert not trap.exists()
    assert context["git_context"]["recent_commits"]
    assert "passwd" not in str(context)
    assert "b = 2" in str(context["relevant_files"])


def test_the_index_is_never_written_nor_locked(tmp_path: Path) -> None:
    root = repository(tmp_path, {"a.py": "a = 1\n"})
    os.utime(root / "a.py", (1, 1))  # git would refresh the index entry
    before = (root / ".git" / "index").stat()
    (root / ".git" / "index.lock").touch()  # an agent's git is at work
    assert context_of(root)["git_context"]["branch"] == "main"
    after = (root / ".git" / "index").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)


def test_without_a_git_binary_the_files_are_still_there_and_the_answer_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = repository(tmp_path, {"a.py": "a = 1\n", ".gitignore": "b.py\n"})
    write(root, {"b.py": "b = 1\n"})
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    answer = Builds(root).answer()
    assert [file["path"] for file in answer["context"]["relevant_files"]] == ["a.py"]
    assert answer["context"]["git_context"]["recent_commits"] == []
    assert answer["context"]["git_context"]["problem"] == "git was not found on the sidecar's PATH: install it"
    assert answer["warnings"] == ["git: git was not found on the sidecar's PATH: install it"]


def test_a_broken_repository_degrades_to_its_files(tmp_path: Path) -> None:
    root = repository(tmp_path, {"a.py": "a = 1\n"})
    (root / ".git" / "HEAD").write_text("nonsense\n")
    answer = Builds(root).answer()
    assert [file["path"] for file in answer["context"]["relevant_files"]] == ["a.py"]
    assert answer["warnings"]


def test_a_message_that_holds_the_marks_of_the_log_makes_no_commits(tmp_path: Path) -> None:
    root = repository(tmp_path, {"a.py": "a = 1\n"})
    commit(root, {"b.py": "b\n"}, "evil \x01" + "a" * 40 + " not a commit")
    commits = context_of(root)["git_context"]["recent_commits"]
    assert [one["author"] for one in commits] == ["Ada", "Ada"]


def test_names_that_are_not_utf8_are_counted_not_sent(tmp_path: Path) -> None:
    root = repository(tmp_path, {"a.py": "a = 1\n"})
    (Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.py"))).write_text("x = 1\n")
    commit(root, {}, "Latin")
    answer = Builds(root).answer()
    assert [file["path"] for file in answer["context"]["relevant_files"]] == ["a.py"]
    assert "1 file names are not UTF-8 and are left out" in answer["warnings"]


def test_a_first_context_asks_git_four_times_and_once_more_for_what_is_not_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a project that another process indexes; a small one is indexed here, and asks for its past commits."""
    root = repository(tmp_path, {f"part_{n}.py": "a = 1\n" for n in range(160)})
    asked: list[str] = []
    real = git_door.Git.execute

    def noted(git: git_door.Git, command: list[str], **options: object) -> object:
        asked.append(next(word for word in command if word in ("config", "status", "log", "ls-files", "diff")))
        return real(git, command, **options)

    monkeypatch.setattr(git_door.Git, "execute", noted)
    for files, expected in (
        ({}, ["config", "log", "ls-files", "status"]),
        ({"part_1.py": "a = 2\n", "new.py": "new = 1\n"}, ["config", "diff", "log", "ls-files", "status"]),
    ):
        asked.clear()
        write(root, files)
        builds = Builds(root)
        with closing(builds.index):
            builds.answer()
        assert sorted(asked) == expected


def test_lines_are_counted_however_many_files_differ(tmp_path: Path) -> None:
    names = [f"part {n}.py" for n in range(130)]  # more than are named on a command line
    root = repository(tmp_path, dict.fromkeys(names, "1\n"))
    for count in (3, 130):
        write(root, dict.fromkeys(names[:count], "1\n2\n"))
        changes = context_of(root, "chief-architect")["git_context"]["uncommitted_changes"]
        assert [(one["path"], one["diff"]) for one in changes] == [(name, "+1 -0") for name in sorted(names[:count])]


def test_sizes_are_those_of_now(tmp_path: Path) -> None:
    root = repository(tmp_path, {"a.py": "a = 1\n", "b.py": "b = 1\n"})
    builds = Builds(root)

    def total() -> int:
        return int(builds.answer()["context"]["project_structure"]["total_size_bytes"])

    assert total() == 12
    write(root, {"a.py": "a = 1\n" * 10, "new.py": "1\n"})
    assert total() == 60 + 6 + 2
    (root / "b.py").unlink()
    assert total() == 60 + 2


def _has_reftable() -> bool:
    version = subprocess.run(["git", "version"], capture_output=True, text=True, check=True).stdout.split()[2]
    return tuple(map(int, version.split(".")[:2])) >= (2, 45)


@pytest.mark.skipif(not _has_reftable(), reason="reads refs that are kept as tables: git 2.45 or newer can make them")
@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_refs_that_are_kept_as_tables_are_read(tmp_path: Path, object_format: str) -> None:
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "-q", "-b", "main", "--ref-format=reftable", f"--object-format={object_format}")
    builds = Builds(root)
    said = builds.answer("chief-architect")["context"]["git_context"]
    assert (said["branch"], said["head"], said["recent_commits"]) == ("main", None, [])
    commit(root, {"a.py": "a = 1\n"}, "Begin")
    commit(root, {"b.py": "b = 1\n"}, "Go on")
    write(root, {"c.py": "c = 1\n"})
    said = builds.answer("chief-architect")["context"]["git_context"]
    assert [one["message"] for one in said["recent_commits"]] == ["Go on", "Begin"]
    assert [one["path"] for one in said["uncommitted_changes"]] == ["c.py"]
    git(root, "checkout", "-q", "--detach", "HEAD~1")
    said = builds.answer("chief-architect")["context"]["git_context"]
    assert (said["branch"], said["head"]) == (None, git(root, "rev-parse", "HEAD").strip())
