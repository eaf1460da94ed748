"""What was written before a request is known to it: new, changed and moved files, folders and whole projects."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sidecar.actors.context.watch import Watcher
from sidecar.state.projects import Projects

from .context_world import contexts, repository

FOLDERS = st.sampled_from(("a", "b", "a/c", "a/c/d", "b/c"))
FILES = st.sampled_from(("one", "two"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return repository(tmp_path / "project", {"src/main.py": "def alpha(): pass\n"})


@pytest.fixture
def watcher(root: Path) -> Iterator[Watcher]:
    watcher = Watcher(root)
    assert watcher.wait_until_watching(10.0)
    assert watcher.take() is None  # what changed before it watched is not known
    yield watcher
    watcher.stop()


def test_a_change_is_known_as_soon_as_the_call_that_made_it_returns(root: Path, watcher: Watcher) -> None:
    for turn in range(200):
        (root / "src" / f"new_{turn}.py").write_text("n = 1\n")
        assert watcher.take() == {f"src/new_{turn}.py"}
    assert watcher.take() == frozenset()


def test_reads_are_no_changes(root: Path, watcher: Watcher) -> None:
    (root / "src" / "main.py").read_text()
    assert watcher.take() == frozenset()


def test_what_happens_in_the_git_directory_is_no_change_of_a_file(root: Path, watcher: Watcher) -> None:
    (root / ".git" / "noise").touch()
    assert watcher.take() == frozenset()


def test_files_in_a_new_folder_are_known_at_any_depth(root: Path, watcher: Watcher) -> None:
    (root / "x" / "y").mkdir(parents=True)
    (root / "x" / "y" / "deep.py").touch()
    assert "x/y/deep.py" in (watcher.take() or ())
    (root / "x" / "y" / "deep.py").write_text("1")
    assert watcher.take() == {"x/y/deep.py"}


def test_a_moved_folder_is_watched_under_its_new_name(root: Path, watcher: Watcher) -> None:
    (root / "src").rename(root / "lib")
    assert {"src", "lib/main.py"} <= (watcher.take() or frozenset())
    (root / "lib" / "main.py").write_text("1")
    assert watcher.take() == {"lib/main.py"}


def test_more_changes_than_the_queue_holds_mean_that_anything_may_have_changed(root: Path, watcher: Watcher) -> None:
    room = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if room > 200_000:
        pytest.skip(f"the queue of this system holds {room} changes")
    files = [os.open(root / name, os.O_CREAT | os.O_WRONLY) for name in ("one", "two")]
    for turn in range(room + 2):  # by turns, since the kernel folds a change into an equal one before it
        os.write(files[turn % 2], b"x")
    for file in files:
        os.close(file)
    assert watcher.take() is None
    assert watcher.wait_until_watching(10.0)
    assert watcher.take() is None
    (root / "later.py").touch()
    assert watcher.take() == {"later.py"}


@pytest.mark.parametrize("how", ["moved", "removed"])
def test_a_root_that_is_replaced_is_watched_again(root: Path, watcher: Watcher, how: str) -> None:
    copy = shutil.copytree(root, root.with_name("copy"))
    if how == "moved":
        root.rename(root.with_name("old"))
    else:
        shutil.rmtree(root)
    assert watcher.take() is None
    assert not watcher.wait_until_watching(10.0)
    copy.rename(root)
    assert watcher.take() is None
    assert watcher.wait_until_watching(10.0)
    assert watcher.take() is None
    (root / "new.py").touch()
    assert watcher.take() == {"new.py"}


def test_a_context_knows_a_file_that_was_made_just_before_it_was_asked_for(root: Path) -> None:
    with contexts(Projects(root)) as builder:
        for turn in range(30):
            name = f"feature_{turn}.py"
            (root / name).write_text(f"def feature_{turn}(): pass\n")
            context = builder.answer(query=f"feature_{turn}")["context"]
            assert name in [file["path"] for file in context["relevant_files"]]
            assert name in [change["path"] for change in context["git_context"]["uncommitted_changes"]]
            (root / name).unlink()
            context = builder.answer(query=f"feature_{turn}")["context"]
            assert name not in [file["path"] for file in context["relevant_files"]]


def test_a_worktree_that_is_removed_and_added_again_is_followed(tmp_path: Path) -> None:
    main = repository(tmp_path / "main", {"a.py": "def alpha(): pass\n"})
    root = tmp_path / "tree"
    git = ("git", "-C", str(main), "worktree")
    subprocess.run((*git, "add", "-q", "-b", "one", str(root)), check=True)
    with contexts(Projects(root)) as builder:
        builder.answer(query="alpha")
        subprocess.run((*git, "remove", "--force", str(root)), check=True)
        subprocess.run((*git, "add", "-q", "-b", "two", str(root)), check=True)
        assert builder.answer(query="alpha")["context"]["git_context"]["branch"] == "two"
        (root / "new.py").write_text("def beta(): pass\n")
        assert "new.py" in [file["path"] for file in builder.answer(query="beta")["context"]["relevant_files"]]


def test_a_root_that_is_a_link_is_followed_when_it_is_turned(tmp_path: Path) -> None:
    for name in ("one", "two"):
        repository(tmp_path / name, {f"{name}.py": "def alpha(): pass\n"})
    root = tmp_path / "current"
    root.symlink_to("one")
    with contexts(Projects(root)) as builder:
        for name in ("one", "two", "one"):
            turned = tmp_path / "turned"
            turned.symlink_to(name)
            turned.rename(root)
            context = builder.answer(query="alpha")["context"]
            assert [file["path"] for file in context["relevant_files"]] == [f"{name}.py"]


class TheWatcherMissesNothing(RuleBasedStateMachine):
    """Whatever is done to a tree, each file that differs is among the changes, unless anything may have changed."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.root = Path(tempfile.mkdtemp())
        self.watcher = Watcher(self.root)
        assert self.watcher.wait_until_watching(10.0)
        self.watcher.take()
        self.seen = self.files()

    def files(self) -> dict[str, tuple[int, int, int]]:
        found = {}
        for path in self.root.rglob("*"):
            if path.is_file():
                stat = path.stat()
                found[str(path.relative_to(self.root))] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        return found

    @rule(folder=FOLDERS)
    def make_a_folder(self, folder: str) -> None:
        (self.root / folder).mkdir(parents=True, exist_ok=True)

    @rule(folder=FOLDERS, name=FILES, size=st.integers(0, 9))
    def write(self, folder: str, name: str, size: int) -> None:
        if (self.root / folder).is_dir():
            (self.root / folder / name).write_text("x" * size)

    @rule(folder=FOLDERS, name=FILES)
    def remove(self, folder: str, name: str) -> None:
        (self.root / folder / name).unlink(missing_ok=True)

    @rule(folder=FOLDERS)
    def remove_a_folder(self, folder: str) -> None:
        shutil.rmtree(self.root / folder, ignore_errors=True)

    @rule(source=FOLDERS, destination=FOLDERS)
    def move_a_folder(self, source: str, destination: str) -> None:
        taken, free = self.root / source, self.root / destination
        if taken.is_dir() and not free.exists() and free.parent.is_dir() and taken not in free.parents:
            taken.rename(free)

    @rule()
    def take(self) -> None:
        changed, now = self.watcher.take(), self.files()
        if changed is not None:
            differ = {path for path in now if self.seen.get(path) != now[path]}
            gone = {path for path in self.seen if path not in now}
            assert differ <= changed
            assert all(any(path == one or path.startswith(one + "/") for one in changed) for path in gone)
        self.seen = now

    @invariant()
    def goes_on_watching(self) -> None:
        assert self.watcher.is_watching

    def teardown(self) -> None:
        self.watcher.stop()
        shutil.rmtree(self.root, ignore_errors=True)


TestTheWatcherMissesNothing = TheWatcherMissesNothing.TestCase
TestTheWatcherMissesNothing.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
