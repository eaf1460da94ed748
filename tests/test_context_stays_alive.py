"""Nothing that a repository or a request holds keeps a context from being built, in time and within its budget."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.actors.context.definitions import definitions_of, names_defined
from sidecar.actors.context.emit import encode, head_that_fits, shortened
from sidecar.actors.context.globs import MAX_PATTERNS
from sidecar.actors.context.metadata import dependencies
from sidecar.actors.context.sections import tree_of
from tests.context_world import Builds, git, repository, write

_SMALLEST = 8192  # the least budget that a request may name
_LONG = "/".join("n" * 200 for _ in range(15))


@given(st.text(), st.integers(min_value=-300, max_value=300))
@settings(deadline=None)
def test_a_text_is_cut_to_any_room_there_is(text: str, room: int) -> None:
    kept = head_that_fits(text, room)
    assert text.startswith(kept)
    assert not kept or len(encode(kept)) <= room


@given(st.text(), st.integers(min_value=5, max_value=300))
@settings(deadline=None)
def test_a_shortened_text_fits(text: str, room: int) -> None:
    assert len(encode(shortened(text, room))) <= room


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return repository(tmp_path / "project", {"a.py": "a = 1\n" * 3000})


def _size_of(root: Path, **changes: object) -> int:
    return len(Builds(root).raw("chief-architect", max_bytes=_SMALLEST, **changes))


def test_patterns_that_match_nothing_leave_the_budget_whole(root: Path) -> None:
    patterns = tuple("\N{GRINNING FACE}" * 100 + str(number) for number in range(25))
    assert _size_of(root, files=patterns, query="\x01" * 300) <= _SMALLEST


def test_a_long_remote_leaves_the_budget_whole(root: Path) -> None:
    git(root, "config", "remote.origin.url", "https://host.example/" + "a" * 100_000)
    assert _size_of(root) <= _SMALLEST


def test_a_long_branch_leaves_the_budget_whole(root: Path) -> None:
    git(root, "checkout", "-q", "-b", _LONG)
    assert _size_of(root) <= _SMALLEST


def test_manifests_with_long_paths_leave_the_budget_whole(root: Path) -> None:
    repository(
        root,
        {f"{_LONG}/{number}/package.json": "[" for number in range(6)}
        | {f"{_LONG}/coverage.xml": "<a line-rate='1'/>"},
    )
    assert _size_of(root) <= _SMALLEST


def test_a_secret_in_the_name_of_a_branch_or_remote_is_not_told(root: Path) -> None:
    token = "gh" + "p_" + "a1B2c3D4" * 4 + "abcd"
    git(root, "checkout", "-q", "-b", f"fix/{token}")
    git(root, "config", f"remote.{token}.url", "https://host.example/x.git")
    told = Builds(root).answer()["context"]["git_context"]
    assert told["branch"] == "fix/[REDACTED:github-token]"
    assert token not in json.dumps(told)


def test_a_pipe_for_a_head_is_not_waited_for(root: Path) -> None:
    (root / ".git" / "HEAD").unlink()
    os.mkfifo(root / ".git" / "HEAD")
    answer = Builds(root).answer()
    assert [file["path"] for file in answer["context"]["relevant_files"]] == ["a.py"]
    assert "HEAD cannot be read: not a regular file" in str(answer["warnings"])


def test_a_link_for_a_head_is_not_read(root: Path) -> None:
    (root / ".git" / "HEAD").unlink()
    (root / ".git" / "HEAD").symlink_to("/dev/zero")
    assert "HEAD cannot be read: symlink" in str(Builds(root).answer()["warnings"])


# Parts of what the expressions look for, each of which may stand any number of times.
_PARTS = (
    " ",
    "a ",
    "a(",
    "(",
    "[",
    "[a",
    "for ",
    " for (",
    "public ",
    "extern ",
    "pub(",
    "a",
    "<",
    ",",
    "=",
    "#",
    "'",
    "\\",
)
_STARTS = ("", "a f(", "impl", "impl<", "def", "[", "class (", "export", "pub(", "extern", "# ", "a\n=")


@pytest.mark.parametrize("language", ["python", "c", "markdown", "yaml"])
def test_definitions_are_found_in_linear_time(language: str) -> None:
    """Each text took from seconds to hours where time grew with the square or the cube of a line."""
    began = time.monotonic()
    for start in _STARTS:
        for part in _PARTS:
            text = f"{start}{part * (20_000 // len(part))};"
            names_defined(text, language)
            definitions_of(text, language)
    assert time.monotonic() - began < 10


def _in_folders(place: Path, depth: int) -> None:
    """Write a file that many folders deep; no path may be as long as that, so each is made from the one above."""
    here = os.open(place, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("deep.py", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)


@pytest.mark.parametrize("with_git", [True, False])
def test_a_file_a_thousand_folders_deep_takes_no_other_away(tmp_path: Path, with_git: bool) -> None:
    root = tmp_path / "project"
    if with_git:
        repository(root, {"a.py": "a = 1\n"})
    else:
        write(root, {"a.py": "a = 1\n"})
    try:
        _in_folders(root, 1100)
        builds = Builds(root)
        assert "a.py" in builds.files(query="deep")
        assert "a.py" in builds.files(query="deep", issue_id="issue-2")
    finally:
        subprocess.run(["rm", "-rf", str(root)], check=True)  # `shutil.rmtree` and pytest go too deep


def test_folders_of_an_index_take_little_memory() -> None:
    paths = ["/".join(f"{file}-{number}" for number in range(500)) for file in range(100)]
    tree = tree_of("project", [f"{path}/a.py" for path in paths], 1)
    assert sum(map(len, tree.held)) < 32 << 20


def test_many_patterns_of_a_gitignore_count_without_git(tmp_path: Path) -> None:
    root = tmp_path / "project"
    patterns = [f"*{number:x}?[a-f]{number:x}*{'x' * (number % 50)}" for number in range(990)]
    write(root, {".gitignore": "\n".join(["one.py", *patterns, "!two.py", "three.py"]), "a.py": "a"})
    write(root, dict.fromkeys(("one.py", "two.py", "three.py"), "ignored = 1"))
    assert set(Builds(root).files()) == {"a.py", "two.py"}


def test_a_folder_with_too_many_patterns_is_left_out_without_git(tmp_path: Path) -> None:
    root = tmp_path / "project"
    lines = "".join(f"file-{number}\n" for number in range(MAX_PATTERNS + 1))
    write(root, {"a.py": "a", "b/.gitignore": lines + "ignored.py\n", "b/ignored.py": "secret = 1"})
    answer = Builds(root).answer()
    assert [file["path"] for file in answer["context"]["relevant_files"]] == ["a.py"]
    assert "the project has more files than are listed" in answer["warnings"]


@pytest.mark.parametrize("start", ["", "'\"'.", '"\\"".', "[h.h.h.h.h.h.h.h]\nx."])
def test_a_key_of_many_parts_is_not_parsed(start: str) -> None:
    began = time.monotonic()
    found, warnings = dependencies({"Cargo.toml": start + ".".join(["a"] * 50_000) + " = 1"})
    assert (found, len(warnings)) == ((), 1)
    assert time.monotonic() - began < 2


def test_tables_of_many_keys_are_parsed_in_a_few_seconds() -> None:
    header = ".".join("h" * 9)
    keys = "".join(f"k{number}.{'.'.join('a' * 8)} = 1\n" for number in range(9000))
    began = time.monotonic()
    dependencies({"Cargo.toml": f"[{header}]\n{keys}"[: 256 << 10]})
    assert time.monotonic() - began < 10
