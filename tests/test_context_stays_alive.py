"""Nothing that a repository or a request holds keeps a context from being built, in time and within its budget."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.actors.context.definitions import definitions_of, names_defined
from sidecar.actors.context.emit import encode, head_that_fits, shortened
from tests.context_world import Builds, git, repository

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
