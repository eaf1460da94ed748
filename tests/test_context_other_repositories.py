"""Nothing of another repository is told, however a project's git directory leads to it; all of its own is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.context_world import Builds, commit, context_of, git, repository, sent_of

MESSAGE, NAME = "A message of another repository", "name_of_another.py"

Plant = Callable[[Path, Path], object]


def _gitfile(root: Path, other: Path) -> None:
    shutil.rmtree(root / ".git")
    (root / ".git").write_text(f"gitdir: {other}/.git\n")


def _link(*names: str) -> Plant:
    """Each of these of `.git` becomes a link to the other repository's."""

    def plant(root: Path, other: Path) -> None:
        for name in names:
            mine = root / ".git" / name if name else root / ".git"
            if mine.is_dir():
                shutil.rmtree(mine)
            else:
                mine.unlink(missing_ok=True)
            mine.symlink_to(other / ".git" / name)

    return plant


def _known_head(root: Path, other: Path) -> None:
    (root / ".git" / "HEAD").write_text(git(other, "rev-parse", "HEAD"))


def _both(*plants: Plant) -> Plant:
    def plant(root: Path, other: Path) -> None:
        for one in plants:
            one(root, other)

    return plant


def _commondir(root: Path, other: Path) -> None:
    (root / ".git" / "commondir").write_text(f"{other}/.git\n")


def _false_worktree(root: Path, other: Path) -> None:
    """An admin folder that the project's owner made, with the other repository as what it shares."""
    admin = root.parent / "admin"
    admin.mkdir()
    (admin / "HEAD").write_text("ref: refs/heads/main\n")
    (admin / "commondir").write_text(f"{other}/.git\n")
    (admin / "gitdir").write_text(f"{root}/.git\n")
    shutil.rmtree(root / ".git")
    (root / ".git").write_text(f"gitdir: {admin}\n")


def _others_worktree(root: Path, other: Path) -> None:
    """The `.git` file of a true worktree of the other repository, as a link and as a copy."""
    git(other, "worktree", "add", "-q", "-b", "side", str(other.parent / "side"))
    shutil.rmtree(root / ".git")
    (root / ".git").symlink_to(other.parent / "side" / ".git")


def _copied_gitfile(root: Path, other: Path) -> None:
    _others_worktree(root, other)
    (root / ".git").unlink()
    shutil.copy(other.parent / "side" / ".git", root / ".git")


def _alternates(root: Path, other: Path) -> None:
    (root / ".git" / "objects" / "info" / "alternates").write_text(f"{other}/.git/objects\n")


def _alternates_of_alternates(root: Path, other: Path) -> None:
    between = root / "between" / "objects" / "info"
    between.mkdir(parents=True)
    (between / "alternates").write_text(f"{other}/.git/objects\n")
    (root / ".git" / "objects" / "info" / "alternates").write_text(f"{root}/between/objects\n")


def _linked_fanout(root: Path, other: Path) -> None:
    for folder in (other / ".git" / "objects").iterdir():
        mine = root / ".git" / "objects" / folder.name
        if len(folder.name) == 2:
            shutil.rmtree(mine, ignore_errors=True)
            mine.symlink_to(folder)


def _linked_objects(root: Path, other: Path) -> None:
    for file in (other / ".git" / "objects").glob("??/*"):
        mine = root / ".git" / "objects" / file.parent.name / file.name
        mine.parent.mkdir(exist_ok=True)
        if not mine.exists():
            mine.symlink_to(file)


def _linked_pack(root: Path, other: Path) -> None:
    git(other, "repack", "-q", "-a", "-d")
    for file in (other / ".git" / "objects" / "pack").iterdir():
        (root / ".git" / "objects" / "pack" / file.name).symlink_to(file)


def _linked_branch(root: Path, other: Path) -> None:
    _link("objects", "refs/heads/main")(root, other)


def _worktree_setting(root: Path, other: Path) -> None:
    git(root, "config", "core.worktree", str(other))


PLANTS: dict[str, Plant] = {
    ".git file": _gitfile,
    ".git link": _link(""),
    "every link": _link("objects", "refs", "HEAD", "index"),
    "link of the index": _link("index"),
    "objects and branch": _linked_branch,
    "objects and HEAD": _both(_link("objects"), _known_head),
    "objects and packed refs": _both(
        lambda root, other: git(other, "pack-refs", "--all"),
        lambda root, other: (root / ".git" / "refs" / "heads" / "main").unlink(),
        _link("objects", "packed-refs"),
    ),
    "commondir": _commondir,
    "worktree that is none": _false_worktree,
    "link to another's worktree": _others_worktree,
    "copy of another's worktree": _copied_gitfile,
    "alternates": _both(_alternates, _known_head),
    "alternates of alternates": _both(_alternates_of_alternates, _known_head),
    "links among the objects' folders": _both(_linked_fanout, _known_head),
    "links among the objects": _both(_linked_objects, _known_head),
    "links among the packs": _both(_linked_pack, _known_head),
    "core.worktree": _worktree_setting,
}


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return repository(tmp_path / "other", {NAME: "PRIVATE = 1\n"}, MESSAGE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return repository(tmp_path / "project", {"a.py": "a = 1\n"}, "Begin")


@pytest.mark.parametrize("is_warm", [False, True], ids=["at first", "later"])
@pytest.mark.parametrize("plant", PLANTS)
def test_nothing_of_another_repository_is_told(root: Path, other: Path, plant: str, is_warm: bool) -> None:
    builds = Builds(root)
    if is_warm:
        builds.answer("chief-architect")
    PLANTS[plant](root, other)
    answer = builds.answer("chief-architect", files=("**",))
    text = json.dumps(answer)
    for private in (MESSAGE, NAME, "PRIVATE", git(other, "rev-parse", "HEAD^{tree}").strip()):
        assert private not in text
    assert "a = 1" in text
    if plant != "core.worktree":
        assert any(warning.startswith("git: ") for warning in answer["warnings"])
        assert str(root.parent) not in json.dumps(answer["warnings"])


def test_the_plants_would_lead_git_there(root: Path, other: Path) -> None:
    """So that the test above does not pass because of a mistake in it."""
    _both(_linked_objects, _known_head)(root, other)
    assert MESSAGE in git(root, "log")
    shutil.rmtree(root / ".git")
    git(root, "init", "-q", "-b", "main")
    _both(_alternates_of_alternates, _known_head)(root, other)
    assert MESSAGE in git(root, "log")


def test_a_worktree_and_its_main_repository_are_both_told(tmp_path: Path, root: Path) -> None:
    git(root, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    commit(tmp_path / "side", {"b.py": "b = 1\n"}, "On the side")
    for place, message in ((tmp_path / "side", "On the side"), (root, "Begin")):
        answer = Builds(place).answer()
        assert answer["warnings"] == []
        assert answer["context"]["git_context"]["recent_commits"][0]["message"] == message


def test_a_worktree_that_was_moved_by_hand_says_what_mends_it(tmp_path: Path, root: Path) -> None:
    git(root, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    (tmp_path / "side").rename(tmp_path / "moved")
    answer = Builds(tmp_path / "moved").answer()
    assert "git worktree repair" in str(answer["warnings"])
    assert [file["path"] for file in answer["context"]["relevant_files"]] == ["a.py"]
    git(root, "worktree", "repair", str(tmp_path / "moved"))
    answer = Builds(tmp_path / "moved").answer()
    assert (answer["warnings"], answer["context"]["git_context"]["branch"]) == ([], "side")


def test_a_worktree_of_a_bare_repository_is_told(tmp_path: Path, root: Path) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(root), str(tmp_path / "bare.git"))
    git(tmp_path / "bare.git", "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    answer = Builds(tmp_path / "side").answer()
    assert (answer["warnings"], answer["context"]["git_context"]["branch"]) == ([], "side")


def test_a_worktree_of_a_submodule_is_told(tmp_path: Path, root: Path, other: Path) -> None:
    git(root, "submodule", "--quiet", "add", str(other), "vendor")
    git(root / "vendor", "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    answer = Builds(tmp_path / "side").answer()
    assert (answer["warnings"], answer["context"]["git_context"]["branch"]) == ([], "side")


@pytest.mark.parametrize("names_the_project", [True, False])
def test_a_separate_git_directory_outside_counts_where_it_names_the_project(
    tmp_path: Path, names_the_project: bool
) -> None:
    root = tmp_path / "project"
    git(tmp_path, "init", "-q", "-b", "main", f"--separate-git-dir={tmp_path / 'apart'}", str(root))
    commit(root, {"a.py": "a = 1\n"}, "Begin")
    if names_the_project:
        git(root, "config", "core.worktree", str(root))
    answer = Builds(root).answer()
    assert (answer["context"]["git_context"]["branch"] == "main") is names_the_project
    assert ("core.worktree" in str(answer["warnings"])) is not names_the_project
    assert [file["path"] for file in answer["context"]["relevant_files"]] == ["a.py"]


def test_alternates_inside_the_project_count(root: Path) -> None:
    nested = root / "store"
    shutil.copytree(root / ".git" / "objects", nested / "objects")
    shutil.rmtree(root / ".git" / "objects")
    (root / ".git" / "objects" / "info").mkdir(parents=True)
    (root / ".git" / "objects" / "info" / "alternates").write_text(f"{nested}/objects\n")
    (root / ".git" / "info" / "exclude").write_text("store\n")
    assert context_of(root)["git_context"]["recent_commits"][0]["message"] == "Begin"


def test_a_repository_that_borrows_objects_from_outside_keeps_its_files_and_branch(tmp_path: Path, root: Path) -> None:
    git(tmp_path, "clone", "-q", "--shared", str(root), str(tmp_path / "clone"))
    (tmp_path / "clone" / ".gitignore").write_text("secret.py\n")
    (tmp_path / "clone" / "secret.py").write_text("s = 1\n")
    answer = Builds(tmp_path / "clone").answer()
    assert answer["context"]["project_structure"]["files"] == [".gitignore", "a.py"]
    assert answer["context"]["git_context"]["branch"] == "main"
    assert "git repack -a -d" in str(answer["warnings"])
    git(tmp_path / "clone", "repack", "-q", "-a", "-d")
    (tmp_path / "clone" / ".git" / "objects" / "info" / "alternates").unlink()
    answer = Builds(tmp_path / "clone").answer()
    assert (answer["warnings"], len(answer["context"]["git_context"]["recent_commits"])) == ([], 1)


def test_a_bare_root_has_commits_and_no_files(tmp_path: Path, root: Path) -> None:
    git(tmp_path, "clone", "-q", "--mirror", str(root), str(tmp_path / "mirror"))
    context = context_of(tmp_path / "mirror", "chief-architect", files=("**",))
    assert (context["project_structure"]["files"], context["relevant_files"]) == ([], [])
    assert context["git_context"]["recent_commits"][0]["message"] == "Begin"
    assert sent_of(tmp_path / "mirror" / "hooks") == []


def test_the_shadow_is_kept_true_while_branches_and_the_index_change(root: Path) -> None:
    builds = Builds(root)
    for number in range(3):
        git(root, "checkout", "-q", "-b", f"work/{number}")
        commit(root, {f"n{number}.py": "n = 1\n"}, f"Number {number}")
        if number == 1:
            git(root, "pack-refs", "--all")
            git(root, "gc", "-q")
        told = builds.answer("chief-architect")["context"]["git_context"]
        assert (told["branch"], told["recent_commits"][0]["message"]) == (f"work/{number}", f"Number {number}")
        assert told["uncommitted_changes"] == []
    git(root, "rm", "-q", "--cached", "a.py")
    changes = builds.answer("chief-architect")["context"]["git_context"]["uncommitted_changes"]
    assert [(one["path"], one["status"]) for one in changes] == [("a.py", "untracked")]


@pytest.mark.parametrize(
    "setup",
    [
        (("init", "-q", "-b", "main", "--object-format=sha256"),),
        (("init", "-q", "-b", "main"), ("update-index", "--index-version=4"), ("config", "index.version", "4")),
        (("init", "-q", "-b", "main"), ("config", "core.splitIndex", "true")),
    ],
    ids=["SHA-256", "index version 4", "split index"],
)
def test_other_kinds_of_repositories_are_read(tmp_path: Path, setup: tuple[tuple[str, ...], ...]) -> None:
    root = tmp_path / "project"
    root.mkdir()
    for words in setup:
        git(root, *words)
    commit(root, {"a.py": "a = 1\n", "b.py": "b = 1\n"}, "Begin")
    (root / "a.py").write_text("a = 2\n")
    git(root, "add", "a.py")
    answer = Builds(root).answer()
    told = answer["context"]["git_context"]
    assert (answer["warnings"], told["recent_commits"][0]["message"]) == ([], "Begin")
    assert [(one["path"], one["diff"]) for one in told["uncommitted_changes"]] == [("a.py", "+1 -1")]


def test_a_shallow_clone_is_read(tmp_path: Path, root: Path) -> None:
    commit(root, {"b.py": "b = 1\n"}, "Go on")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{root}", str(tmp_path / "clone"))
    answer = Builds(tmp_path / "clone").answer()
    commits = answer["context"]["git_context"]["recent_commits"]
    assert (answer["warnings"], [one["message"] for one in commits]) == ([], ["Go on"])


def test_a_sparse_checkout_has_no_deleted_files(root: Path) -> None:
    commit(root, {"in/a.py": "a = 1\n", "out/b.py": "b = 1\n"}, "Folders")
    git(root, "sparse-checkout", "set", "--cone", "--sparse-index", "in")
    answer = Builds(root).answer()
    assert (answer["warnings"], answer["context"]["git_context"]["uncommitted_changes"]) == ([], [])
    assert "in/a.py" in [file["path"] for file in answer["context"]["relevant_files"]]


def test_refs_as_tables_are_said_to_be_unknown_and_the_files_are_there(root: Path) -> None:
    git(root, "config", "core.repositoryformatversion", "1")
    git(root, "config", "extensions.refStorage", "reftable")
    answer = Builds(root).answer()
    assert "reftable" in str(answer["warnings"])
    assert [file["path"] for file in answer["context"]["relevant_files"]] == ["a.py"]


@pytest.mark.parametrize("name", ["fancy", "objectFormat"])
def test_a_format_that_is_not_known_is_named(root: Path, name: str) -> None:
    git(root, "config", "core.repositoryformatversion", "1")
    git(root, "config", f"extensions.{name}", "odd")
    answer = Builds(root).answer()
    assert f"{name.lower()} = odd" in str(answer["warnings"])
    assert [file["path"] for file in answer["context"]["relevant_files"]] == ["a.py"]
