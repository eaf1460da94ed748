"""The sections around the files, each cut to its share of the budget: tree, git, metadata, omitted. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .changes import Change, Commit
from .emit import encode, joined, members, rfc3339
from .inventory import directories_of
from .secrets import redact, without_credentials

_MAX_OMITTED = 500
_MAX_MESSAGE_CHARS = 2000
_MAX_FILES_OF_COMMIT = 50


class Section(NamedTuple):
    """JSON of a section; is_whole: nothing of it was left out for size."""

    data: bytes
    is_whole: bool


def fitting(parts: Iterable[bytes], max_bytes: int) -> tuple[list[bytes], bool]:
    """The first of `parts` that take at most `max_bytes` in a JSON array, and whether those were all."""
    kept: list[bytes] = []
    size = 2
    for part in parts:
        size += len(part) + 1
        if size > max_bytes:
            return kept, False
        kept.append(part)
    return kept, True


def project_structure(name: str, paths: Sequence[str], total_bytes: int, *, max_bytes: int) -> Section:
    """The tree. Where it does not fit, what is nearest the root stays, and folders tell how many files they hold."""
    totals = members(
        (("root", encode(name)), ("total_files", encode(len(paths))), ("total_size_bytes", encode(total_bytes)))
    )
    folders = directories_of(paths)
    pairs = ((b"files", encode(paths)), (b"directories", encode(folders)))
    if len(totals) + sum(len(value) for _, value in pairs) + 80 <= max_bytes:
        return Section(_with(totals, pairs), True)
    return _collapsed(totals, paths, folders, max_bytes)


def _collapsed(totals: bytes, paths: Sequence[str], folders: Sequence[str], max_bytes: int) -> Section:
    held: Counter[str] = Counter()
    for folder, times in Counter(path.rpartition("/")[0] for path in paths).items():
        for part in _with_ancestors(folder):
            held[part] += times
    near, near_folders = _nearest_first(paths), _nearest_first(folders)
    room = max_bytes - len(totals) - 100
    files, _ = fitting(map(encode, near), room // 2)
    room -= sum(map(len, files)) + len(files)
    counted = [(folder, encode(folder), encode(held[folder])) for folder in near_folders]
    # Each folder stands twice, in the list and with its count.
    kept, _ = fitting((name + b":" + count + name for _, name, count in counted), room)
    names = [name for _, name, _ in counted[: len(kept)]]
    counts = b"{" + b",".join(name + b":" + count for _, name, count in counted[: len(kept)]) + b"}"
    pairs = (
        (b"files", joined(sorted(files))),
        (b"directories", joined(sorted(names))),
        (b"files_in_directory", counts),
        (b"truncated", b"true"),
    )
    return Section(_with(totals, pairs), False)


def _nearest_first(paths: Iterable[str]) -> list[str]:
    return [path for _, path in sorted([(path.count("/"), path) for path in paths])]


def _with_ancestors(folder: str) -> Iterable[str]:
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]


def _with(start: bytes, pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    return start + b"".join(b',"' + name + b'":' + value for name, value in pairs) + b"}"


class GitFacts(NamedTuple):
    """What is told of git. problem: why there is nothing to tell, or None."""

    branch: str | None
    head: str | None
    commits: tuple[Commit, ...]
    changes: tuple[Change, ...]
    remote: str | None
    remote_url: str | None
    problem: str | None


def git_context(facts: GitFacts, *, max_commits: int, max_bytes: int) -> Section:
    """Branch, commits and uncommitted changes; messages have their secrets taken out."""
    url = without_credentials(facts.remote_url) if facts.remote_url else None
    about: dict[str, Any] = {"branch": facts.branch, "head": facts.head, "remote": facts.remote, "remote_url": url}
    if facts.problem is not None:
        about["problem"] = facts.problem
    start = encode(about)[:-1]
    room = max(0, max_bytes - len(start) - 80)
    changes, all_changes = fitting((encode(_change(change)) for change in facts.changes), room // 2)
    room -= sum(map(len, changes)) + len(changes)
    commits, all_commits = fitting((encode(_commit(commit)) for commit in facts.commits[:max_commits]), room)
    pairs = ((b"recent_commits", joined(commits)), (b"uncommitted_changes", joined(changes)))
    return Section(_with(start, pairs), all_changes and all_commits)


def _commit(commit: Commit) -> dict[str, Any]:
    message = redact(commit.message)[0]
    told: dict[str, Any] = {
        "hash": commit.oid,
        "message": message[:_MAX_MESSAGE_CHARS],
        "author": commit.author,
        "timestamp": rfc3339(commit.committed_at),
        "files_changed": list(commit.files[:_MAX_FILES_OF_COMMIT]),
    }
    if len(commit.files) > _MAX_FILES_OF_COMMIT:
        told["files_changed_total"] = len(commit.files)
    return told


def _change(change: Change) -> dict[str, Any]:
    counted = change.added is not None and change.removed is not None
    return {
        "path": change.path,
        "status": change.status,
        "diff": f"+{change.added} -{change.removed}" if counted else None,
    }


class Omission(NamedTuple):
    """Something that was left out, cut or redacted."""

    path: str
    reason: str
    size: int | None


def omitted(found: Sequence[Omission], *, max_bytes: int) -> Section:
    """`omitted` and, with it, `omitted_counts` by reason, as members of the context object without braces."""
    counts = Counter(omission.reason.partition(":")[0] for omission in found)
    told = (encode({"path": one.path, "reason": one.reason, "size": one.size}) for one in found[:_MAX_OMITTED])
    counted = encode(dict(sorted(counts.items())))
    kept, _ = fitting(told, max_bytes - len(counted) - 40)
    return Section(b'"omitted":' + joined(kept) + b',"omitted_counts":' + counted, len(kept) == len(found))
