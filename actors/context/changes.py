"""Parses git's output about commits, with the files they touched, and about uncommitted changes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from ...state.clock import utc_at_clamped
from .private_folders import Private

_MAX_DIGITS = 20  # of a date: 2^64 has so many

_MAX_MESSAGE_CHARS = 20_000  # that are sent, and enough more to see a secret at the cut; see secrets.py


class Commit(NamedTuple):
    """One commit. files: relative to the root, those outside it left out."""

    oid: str
    author: str
    committed_at: datetime
    message: str
    files: tuple[str, ...]


class FileChange(NamedTuple):
    """A file that differs from the last commit. added, removed: lines, None for binary files and where not counted."""

    path: str
    status: str
    added: int | None
    removed: int | None


def read_log(output: bytes, prefix: str, dates: Mapping[str, int] | None = None) -> tuple[Commit, ...]:
    """The commits of `History.log`, newest first.

    dates: seconds since 1970 of commits whose date git cannot read, by id; without one it is 1970.
    """
    commits = []
    for oid, parts in _records(output):
        author, seconds, message = _text(parts[1]), parts[2], _text(parts[3]).strip()[:_MAX_MESSAGE_CHARS]
        at = int(seconds) if _is_number(seconds) else (dates or {}).get(oid, 0)
        commits.append(Commit(oid, author, utc_at_clamped(at), message, _touched(parts[4:], prefix)))
    return tuple(commits)


def undated(output: bytes) -> list[str]:
    """The ids of commits in `History.log` whose date git could not read."""
    return [oid for oid, parts in _records(output) if not _is_number(parts[2])]


def read_dates(output: bytes) -> dict[str, int]:
    """Commit id -> seconds since 1970, of those that say one, from `History.headers`."""
    found: dict[str, int] = {}
    oid = ""
    for line in output.split(b"\n"):
        name, _, rest = line.partition(b" ")
        if name == b"commit":
            oid = rest.decode("ascii", "replace")
        elif name == b"committer" and oid not in found:
            words = rest.split()
            if len(words) >= 2 and _is_number(words[-2]):  # the last is the time zone
                found[oid] = int(words[-2])
    return found


def _records(output: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Each commit's id and the parts of its record; a message may itself hold the mark between records."""
    for record in output.split(b"\x01")[1:]:
        parts = record.split(b"\0")
        oid = parts[0].decode("ascii", "replace")
        if len(parts) >= 4 and len(oid) in (40, 64) and (not parts[2] or _is_number(parts[2])):
            yield oid, parts


def _is_number(text: bytes) -> bool:
    return text.removeprefix(b"-").isdigit() and len(text) <= _MAX_DIGITS


def _text(raw: bytes) -> str:
    """Git writes UTF-8; what it could not convert is most often Latin-1."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


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


class WorkingTreeStatus(NamedTuple):
    """changed: path -> status word. untracked, deleted: paths. All relative to the root, those outside it left out."""

    changed: dict[str, str]
    untracked: tuple[str, ...]
    deleted: tuple[str, ...]

    def without(self, private: Private) -> WorkingTreeStatus:
        """A copy without private files."""
        return WorkingTreeStatus(
            {path: word for path, word in self.changed.items() if not private.holds(path)},
            tuple(path for path in self.untracked if not private.holds(path)),
            tuple(path for path in self.deleted if not private.holds(path)),
        )


_WORDS = {"A": "added", "D": "deleted", "M": "modified", "T": "modified", "R": "renamed", "C": "added"}


def read_status(output: bytes, prefix: str) -> WorkingTreeStatus:
    """Parse the output of `git status --porcelain=v2 -z --no-renames`."""
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
            continue
        if not path.startswith(prefix) or not is_utf8(path):
            continue
        path = path.removeprefix(prefix)
        changed[path] = word
        if word == "untracked":
            untracked.append(path)
        elif word == "deleted":
            deleted.append(path)
    return WorkingTreeStatus(changed, tuple(untracked), tuple(deleted))


def read_untracked(output: bytes, prefix: str) -> WorkingTreeStatus:
    """Parse the output of `git ls-files --others -z`, which stands in where `status` fails."""
    names = [raw.decode("utf-8", "surrogateescape") for raw in output.split(b"\0") if raw]
    paths = tuple(path.removeprefix(prefix) for path in names if path.startswith(prefix) and is_utf8(path))
    return WorkingTreeStatus(dict.fromkeys(paths, "untracked"), paths, ())


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


def uncommitted(status: WorkingTreeStatus, counts: dict[str, tuple[int | None, int | None]]) -> tuple[FileChange, ...]:
    """Every file that differs from the last commit, by path."""
    return tuple(
        FileChange(path, word, *(counts.get(path, (None, None)))) for path, word in sorted(status.changed.items())
    )


def last_touched(commits: Iterable[Commit]) -> dict[str, int]:
    """path -> how many commits ago it was last touched, 0 for the newest."""
    found: dict[str, int] = {}
    for place, commit in enumerate(commits):
        for path in commit.files:
            found.setdefault(path, place)
    return found
