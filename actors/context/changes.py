"""What git knows beyond the list of files: commits with the files they touched, and what is not committed yet. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from ...state.clock import dated


class Commit(NamedTuple):
    """One commit. files: relative to the root, those outside it left out."""

    oid: str
    author: str
    committed_at: datetime
    message: str
    files: tuple[str, ...]


class Change(NamedTuple):
    """A file that differs from the last commit. added, removed: lines, None for binary files and where not counted."""

    path: str
    status: str
    added: int | None
    removed: int | None


def read_log(output: bytes, prefix: str) -> tuple[Commit, ...]:
    """The commits of `GitDoor.log`, newest first."""
    commits = []
    for record in output.split(b"\x01")[1:]:
        parts = record.split(b"\0")
        if len(parts) < 4:
            continue
        oid, author, seconds, message = (part.decode("utf-8", "replace") for part in parts[:4])
        if len(oid) not in (40, 64) or not seconds.isdigit():
            continue  # a message that itself holds the mark: the rest of it is no commit
        commits.append(Commit(oid, author, dated(int(seconds)), message.strip(), _touched(parts[4:], prefix)))
    return tuple(commits)


def _touched(parts: list[bytes], prefix: str) -> tuple[str, ...]:
    files = []
    is_path = False
    for part in parts:
        if is_path:
            path = part.decode("utf-8", "replace")
            if path.startswith(prefix):
                files.append(path.removeprefix(prefix))
            is_path = False
        else:
            is_path = part.lstrip(b"\n").startswith(b":")
    return tuple(files)


class Status(NamedTuple):
    """changed: path -> status word. untracked, deleted: paths. All relative to the root, those outside it left out.

    head: the commit that is checked out, None before the first. branch: None when HEAD is detached.
    """

    head: str | None
    branch: str | None
    changed: dict[str, str]
    untracked: tuple[str, ...]
    deleted: tuple[str, ...]


_WORDS = {"A": "added", "D": "deleted", "M": "modified", "T": "modified", "R": "renamed", "C": "added"}


def read_status(output: bytes, prefix: str) -> Status:
    """What `git status --porcelain=v2 --branch -z --no-renames` says."""
    about: dict[str, str] = {}
    changed: dict[str, str] = {}
    untracked: list[str] = []
    deleted: list[str] = []
    for entry in output.split(b"\0"):
        text = entry.decode("utf-8", "surrogateescape")
        kind = text[:1]
        if kind == "1":
            marks, path = text[2:4], text.split(" ", 8)[8]
            word = "deleted" if marks[1] == "D" or marks == "D." else _word(marks)
        elif kind == "u":
            path, word = text.split(" ", 10)[10], "conflicted"
        elif kind == "?":
            path, word = text[2:], "untracked"
        else:
            if kind == "#":
                _, name, value = text.split(" ", 2)
                about[name] = value
            continue
        if not path.startswith(prefix) or not is_utf8(path):
            continue
        path = path.removeprefix(prefix)
        changed[path] = word
        if word == "untracked":
            untracked.append(path)
        elif word == "deleted":
            deleted.append(path)
    head, branch = about.get("branch.oid", "(initial)"), about.get("branch.head", "(detached)")
    return Status(
        None if head == "(initial)" else head,
        None if branch == "(detached)" else branch,
        changed,
        tuple(untracked),
        tuple(deleted),
    )


def _word(marks: str) -> str:
    return _WORDS.get(marks[0]) or _WORDS.get(marks[1]) or "modified"


def is_utf8(path: str) -> bool:
    """Whether a name that git or the disk told can be written as JSON."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def read_numstat(output: bytes, prefix: str) -> dict[str, tuple[int | None, int | None]]:
    """path -> lines added and removed, None for binary files; from `git diff --numstat -z --no-renames`."""
    counts: dict[str, tuple[int | None, int | None]] = {}
    for entry in output.split(b"\0"):
        fields = entry.split(b"\t", 2)
        if len(fields) != 3:
            continue
        path = fields[2].decode("utf-8", "replace")
        if path.startswith(prefix):
            added, removed = (None if field == b"-" else int(field) for field in fields[:2])
            counts[path.removeprefix(prefix)] = (added, removed)
    return counts


def uncommitted(status: Status, counts: dict[str, tuple[int | None, int | None]]) -> tuple[Change, ...]:
    """Every file that differs from the last commit, by path."""
    return tuple(Change(path, word, *(counts.get(path, (None, None)))) for path, word in sorted(status.changed.items()))


def last_touched(commits: Iterable[Commit]) -> dict[str, int]:
    """path -> how many commits ago it was last touched, 0 for the newest."""
    found: dict[str, int] = {}
    for place, commit in enumerate(commits):
        for path in commit.files:
            found.setdefault(path, place)
    return found
