"""No program that a repository, its configuration or the sidecar's environment names is run when a context is built."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.context_world import Builds, commit, git, repository, write

FLIP = """
import os, pathlib, sys
config, good, bad = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
print("ready", flush=True)
while True:
    for text in (good, bad):
        new = config.with_suffix(".new")
        new.write_text(text)
        os.replace(new, config)
"""


class Trap(NamedTuple):
    """A program that leaves a mark when it runs. failing: the same, for what would wait for more from it."""

    program: Path
    failing: Path
    mark: Path

    def is_sprung(self) -> bool:
        return self.mark.exists()


class RepositoryLayout(NamedTuple):
    """A repository to arm. git_dir: where its configuration lies. root: the project."""

    root: Path
    git_dir: Path

    def config(self, *pairs: str, file: str = "config") -> None:
        """Names and values in turn."""
        for name, value in zip(pairs[::2], pairs[1::2], strict=True):
            git(self.root, "config", "--file", str(self.git_dir / file), "--add", name, value)

    def attributes(self, text: str) -> None:
        (self.root / ".gitattributes").write_text(text)


Arm = Callable[[RepositoryLayout, Trap, Path], None]


def filters(name: str) -> Arm:
    def arm(place: RepositoryLayout, trap: Trap, _: Path) -> None:
        place.config(f"filter.{name}.clean", f"{trap.program}", f"filter.{name}.required", "true")
        place.attributes(f"*.py filter={name}\n")

    return arm


def process_filter(place: RepositoryLayout, trap: Trap, _: Path) -> None:
    place.config("filter.a=b.process", str(trap.program))
    place.attributes("* filter=a=b\n")


def included(place: RepositoryLayout, trap: Trap, beside: Path) -> None:
    (beside / "more").write_text(f'[filter "x"]\n\tclean = {trap.program}\n')
    place.config("include.path", str(beside / "more"))
    place.attributes("* filter=x\n")


def included_for_the_folder(place: RepositoryLayout, trap: Trap, beside: Path) -> None:
    (beside / "more").write_text(f'[filter "x"]\n\tclean = {trap.program}\n')
    place.config("includeIf.gitdir:/**.path", str(beside / "more"))
    place.attributes("* filter=x\n")


def of_the_worktree(place: RepositoryLayout, trap: Trap, _: Path) -> None:
    place.config("core.repositoryformatversion", "1", "extensions.worktreeConfig", "true")
    place.config("filter.x.clean", str(trap.program), file="config.worktree")
    place.attributes("* filter=x\n")


def in_the_own_attributes(place: RepositoryLayout, trap: Trap, _: Path) -> None:
    place.config("filter.x.clean", str(trap.program))
    (place.git_dir / "info" / "attributes").write_text("* filter=x\n")


def in_named_attributes(place: RepositoryLayout, trap: Trap, beside: Path) -> None:
    (beside / "attributes").write_text("* filter=x\n")
    place.config("filter.x.clean", str(trap.program), "core.attributesFile", str(beside / "attributes"))


def monitor(place: RepositoryLayout, trap: Trap, _: Path) -> None:
    place.config("core.fsmonitor", str(trap.program))


def hook(place: RepositoryLayout, trap: Trap, beside: Path) -> None:
    (beside / "post-index-change").symlink_to(trap.program)
    place.config("core.hooksPath", str(beside))


def own_hook(place: RepositoryLayout, trap: Trap, _: Path) -> None:
    hooks = place.git_dir / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "post-index-change").symlink_to(trap.program)


def external_diff(place: RepositoryLayout, trap: Trap, _: Path) -> None:
    place.config("diff.external", str(trap.program))


def diff_driver(place: RepositoryLayout, trap: Trap, _: Path) -> None:
    place.config("diff.x.command", str(trap.program))
    place.attributes("* diff=x\n")


def text_converter(place: RepositoryLayout, trap: Trap, _: Path) -> None:
    place.config("diff.x.textconv", str(trap.program), "log.diffMerges", "on")
    place.attributes("* diff=x\n")


def signer(place: RepositoryLayout, trap: Trap, _: Path) -> None:
    place.config("log.showSignature", "true", "gpg.program", str(trap.program))
    key = "-----BEGIN PGP " + "SIGNATURE-----"
    header = f"gpgsig {key}\n \n AAAA\n -----END PGP " + "SIGNATURE-----\n"
    raw = git(place.root, "cat-file", "commit", "HEAD").split("\n\n", 1)
    signed = f"{raw[0]}\n{header}\n{raw[1]}"
    git(place.root, "update-ref", "HEAD", _stored(place.root, signed))


def missing_object(place: RepositoryLayout, trap: Trap, _: Path) -> None:
    """A partial clone that lacks an object of its last commit, and fetches it with a command of its own."""
    commit(place.root, {"lost/x.py": "x = 1\n"}, "Lose")
    tree = git(place.root, "rev-parse", "HEAD:lost").strip()
    (place.git_dir / "objects" / tree[:2] / tree[2:]).unlink()
    place.config(
        *("core.repositoryformatversion", "1", "extensions.partialClone", "origin"),
        *("remote.origin.url", "ssh://example.invalid/x", "remote.origin.promisor", "true"),
        *("remote.origin.fetch", "+refs/*:refs/*", "core.sshCommand", str(trap.failing)),
    )


def remote_helper(place: RepositoryLayout, trap: Trap, _: Path) -> None:
    missing_object(place, trap, _)
    place.config("remote.origin.url", f"ext::{trap.failing}", "protocol.ext.allow", "always")


def _stored(root: Path, text: str) -> str:
    ran = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin"], cwd=root, input=text, text=True, capture_output=True
    )
    return ran.stdout.strip()


STATUS, DIFF, LOG = ["status"], ["diff", "HEAD"], ["log", "-p"]
# How the trap is armed, and what a user would type to spring it.
WAYS: dict[str, tuple[Arm, list[str]]] = {
    "filter": (filters("x"), STATUS),
    "filter whose name has an equals sign": (filters("a=b"), STATUS),
    "filter whose name has a dot and a quote": (filters('a."b'), STATUS),
    "process filter": (process_filter, STATUS),
    "include": (included, STATUS),
    "conditional include": (included_for_the_folder, STATUS),
    "config.worktree": (of_the_worktree, STATUS),
    "info/attributes": (in_the_own_attributes, STATUS),
    "core.attributesFile": (in_named_attributes, STATUS),
    "fsmonitor": (monitor, STATUS),
    "core.hooksPath": (hook, STATUS),
    "hook": (own_hook, STATUS),
    "diff.external": (external_diff, DIFF),
    "diff driver": (diff_driver, DIFF),
    "textconv": (text_converter, DIFF),
    "signature": (signer, LOG),
    "missing object": (missing_object, LOG),
    "remote helper": (remote_helper, LOG),
}


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    made = Trap(tmp_path / "program", tmp_path / "failing", tmp_path / "sprung")
    made.program.write_text(f"#!/bin/sh\ntouch {made.mark}\ncat\n")
    made.failing.write_text(f"#!/bin/sh\ntouch {made.mark}\nexit 1\n")
    for program in (made.program, made.failing):
        program.chmod(0o755)
    return made


def _plain(tmp_path: Path) -> RepositoryLayout:
    root = repository(tmp_path / "project", {"a.py": "a = 1\n", "sub/b.py": "b = 1\n"})
    return RepositoryLayout(root, root / ".git")


def _linked_worktree(tmp_path: Path) -> RepositoryLayout:
    main = repository(tmp_path / "main", {"a.py": "a = 1\n", "sub/b.py": "b = 1\n"})
    git(main, "worktree", "add", "-q", "-b", "side", str(tmp_path / "project"))
    return RepositoryLayout(tmp_path / "project", main / ".git")


def _submodule(tmp_path: Path) -> RepositoryLayout:
    library = repository(tmp_path / "library", {"a.py": "a = 1\n", "sub/b.py": "b = 1\n"})
    main = repository(tmp_path / "main", {"c.py": "c = 1\n"})
    git(main, "submodule", "--quiet", "add", str(library), "vendor")
    return RepositoryLayout(main / "vendor", main / ".git" / "modules" / "vendor")


def _touch(root: Path) -> None:
    """Make git look into a file whose content it knows already."""
    os.utime(root / "a.py", ns=(1, 1))
    os.utime(root / "sub" / "b.py", ns=(1, 1))


def _is_told(context: dict[str, object]) -> bool:
    return "Begin" in str(context["git_context"])


@pytest.mark.parametrize("way", WAYS)
def test_no_program_of_a_repository_runs(tmp_path: Path, trap: Trap, way: str) -> None:
    place = _plain(tmp_path)
    arm, springs = WAYS[way]
    arm(place, trap, tmp_path)
    write(place.root, {"sub/b.py": "b = 2\n"})
    _touch(place.root)
    context = Builds(place.root).answer("chief-architect")["context"]
    assert not trap.is_sprung()
    assert _is_told(context)
    assert "b = 2" in str(context["relevant_files"])
    git(place.root, *springs, check=False)
    assert trap.is_sprung(), "the trap was never armed"


@pytest.mark.parametrize("place_of", [_linked_worktree, _submodule])
@pytest.mark.parametrize("way", ["filter", "filter whose name has an equals sign", "fsmonitor", "include"])
def test_no_program_runs_in_a_worktree_or_submodule_also_one_armed_later(
    tmp_path: Path, trap: Trap, way: str, place_of: Callable[[Path], RepositoryLayout]
) -> None:
    place = place_of(tmp_path)
    builds = Builds(place.root)
    assert _is_told(builds.answer("chief-architect")["context"])
    arm, springs = WAYS[way]
    arm(place, trap, tmp_path)
    for _ in range(2):
        _touch(place.root)
        assert _is_told(builds.answer("chief-architect")["context"])
    assert not trap.is_sprung()
    git(place.root, *springs, check=False)
    assert trap.is_sprung(), "the trap was never armed"


def test_no_program_runs_of_a_repository_above_the_project(tmp_path: Path, trap: Trap) -> None:
    place = _plain(tmp_path)
    filters("a=b")(place, trap, tmp_path)
    _touch(place.root)
    assert _is_told(Builds(place.root / "sub").answer("chief-architect")["context"])
    assert not trap.is_sprung()


def test_no_program_runs_while_the_configuration_is_swapped(tmp_path: Path, trap: Trap) -> None:
    place = _plain(tmp_path)
    good = (place.git_dir / "config").read_text()
    bad = good + f'[filter "x"]\n\tclean = {trap.program}\n[core]\n\tfsmonitor = {trap.program}\n'
    place.attributes("* filter=x\n")
    command = [sys.executable, "-c", FLIP, str(place.git_dir / "config"), good, bad]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as flipping:
        try:
            assert flipping.stdout is not None
            flipping.stdout.readline()
            builds = Builds(place.root)
            for _ in range(20):
                _touch(place.root)
                assert _is_told(builds.answer("chief-architect")["context"])
        finally:
            flipping.kill()
    assert not trap.is_sprung()


@pytest.mark.parametrize(
    "name", ["GIT_EXTERNAL_DIFF", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_TRACE", "GIT_CONFIG_COUNT"]
)
def test_no_program_runs_that_the_environment_names(
    tmp_path: Path, trap: Trap, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place = _plain(tmp_path)
    values = {"GIT_TRACE": str(trap.mark), "GIT_CONFIG_COUNT": "1"}
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(trap.program))
    monkeypatch.setenv(name, values.get(name, str(trap.program)))
    write(place.root, {"a.py": "a = 2\n"})
    assert _is_told(Builds(place.root).answer("chief-architect")["context"])
    assert not trap.is_sprung()


def test_no_program_of_the_users_configuration_runs(
    tmp_path: Path, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = _plain(tmp_path)
    text = f'[core]\n\tfsmonitor = {trap.program}\n[filter "x"]\n\tclean = {trap.program}\n'
    (tmp_path / ".gitconfig").write_text(text)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    place.attributes("* filter=x\n")
    _touch(place.root)
    assert _is_told(Builds(place.root).answer("chief-architect")["context"])
    assert not trap.is_sprung()


def test_a_git_that_lies_in_a_relative_folder_of_the_path_is_not_run(
    tmp_path: Path, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = _plain(tmp_path)
    (place.root / "git").symlink_to(trap.program)
    monkeypatch.chdir(place.root)
    monkeypatch.setenv("PATH", f".{os.pathsep}{os.environ['PATH']}")
    assert _is_told(Builds(place.root).answer("chief-architect")["context"])
    assert not trap.is_sprung()
