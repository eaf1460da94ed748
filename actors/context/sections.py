"""The sections around the files, each cut to its share of the budget: tree, git, metadata, omitted. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .changes import Commit, FileChange
from .emit import encode, joined, members, rfc3339, shortened
from .secrets.redaction import MARGIN_CHARS, are_clean, redact, redact_names, redact_start, without_credentials

_MAX_OMITTED = 500
_MAX_FOLDERS_CHARS = 16 << 20  # of folders' paths: one file in thousands of folders names each of them
_MAX_MESSAGE_CHARS = 2000
_MAX_AUTHOR_CHARS = 200
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


class ProjectTree(NamedTuple):
    """A project's files and folders, made once for many contexts.

    totals: the first members of the section; whole: the section with every file. by_depth: every path, nearest the
    root first; held: folder -> number of files in it and below.
    """

    totals: bytes
    whole: bytes
    by_depth: Sequence[str]
    held: Mapping[str, int]


def tree_of(name: str, paths: Sequence[str], total_bytes: int) -> ProjectTree:
    """name: of the project's folder. paths: of all files, sorted."""
    totals = members(
        (("root", encode(name)), ("total_files", encode(len(paths))), ("total_size_bytes", encode(total_bytes)))
    )
    held: Counter[str] = Counter()
    room = _MAX_FOLDERS_CHARS
    for folder, times in Counter(_folder_of(path) for path in paths).items():
        for part in _with_ancestors(folder):
            room -= len(part) if part not in held else 0
            held[part] += times
        if room < 0:  # no section has room for so many
            break
    whole = _with(totals, ((b"files", encode(paths)), (b"directories", encode(sorted(held)))))
    by_depth = [path for _, path in sorted([(path.count("/"), path) for path in paths])]
    return ProjectTree(totals, whole, by_depth, held)


def project_structure(tree: ProjectTree, chosen: Sequence[str], *, max_bytes: int) -> Section:
    """The tree, or the part of it that fits: what is near the chosen files, then what is near the root.

    Half of the room is for files, half for folders, each with how many files it holds. chosen: paths of files, best
    first.
    """
    if len(tree.whole) <= max_bytes:
        return Section(tree.whole, True)
    place_of = _places(chosen)
    room = max_bytes - len(tree.totals) - 100
    files, _ = fitting(map(encode, _near_first(tree.by_depth, place_of)), room // 2)
    room -= sum(map(len, files)) + len(files)
    folders = sorted(tree.held, key=lambda folder: (place_of.get(folder, len(chosen)), folder.count("/"), folder))
    counted = [(encode(folder), encode(tree.held[folder])) for folder in folders]
    # Each folder stands twice, in the list and with its count.
    kept, _ = fitting((folder + b":" + count + folder for folder, count in counted), room)
    counted = counted[: len(kept)]
    pairs = (
        (b"files", joined(sorted(files))),
        (b"directories", joined(sorted(folder for folder, _ in counted))),
        (b"files_in_directory", b"{" + b",".join(folder + b":" + count for folder, count in counted) + b"}"),
        (b"truncated", b"true"),
    )
    return Section(_with(tree.totals, pairs), False)


def _near_first(by_depth: Sequence[str], place_of: Mapping[str, int]) -> Iterator[str]:
    """The files in the folders of `place_of`, first place first, then all others."""
    near = [path for path in by_depth if _folder_of(path) in place_of]
    yield from sorted(near, key=lambda path: place_of[_folder_of(path)])
    yield from (path for path in by_depth if _folder_of(path) not in place_of)


def _places(chosen: Sequence[str]) -> dict[str, int]:
    """The folders of the chosen files, and all above them, with the place of the best file in each."""
    places: dict[str, int] = {}
    for place, path in enumerate(chosen):
        for folder in _with_ancestors(_folder_of(path)):
            places.setdefault(folder, place)
    return places


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def _with_ancestors(folder: str) -> Iterable[str]:
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]


def _with(start: bytes, pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    return start + b"".join(b',"' + name + b'":' + value for name, value in pairs) + b"}"


class GitFacts(NamedTuple):
    """The section about git. problems: parts that are missing or do not count, and why."""

    branch: str | None
    head: str | None
    commits: tuple[Commit, ...]
    changes: tuple[FileChange, ...]
    remote: str | None
    remote_url: str | None
    problems: tuple[str, ...]


def git_context(facts: GitFacts, *, max_commits: int, max_bytes: int) -> Section:
    """Branch, commits and uncommitted changes; messages have their secrets taken out."""
    start = encode(_about(facts, max_bytes))[:-1]
    room = max(0, max_bytes - len(start) - 80)
    changes, all_changes = fitting(map(encode, _changes(facts.changes)), room // 2)
    room -= sum(map(len, changes)) + len(changes)
    commits, all_commits = fitting((encode(_commit(commit)) for commit in facts.commits[:max_commits]), room)
    pairs = ((b"recent_commits", joined(commits)), (b"uncommitted_changes", joined(changes)))
    return Section(_with(start, pairs), all_changes and all_commits)


def _about(facts: GitFacts, max_bytes: int) -> dict[str, Any]:
    """Return the fields before commits and changes. Anyone who writes in the repository chooses these names."""
    url = without_credentials(facts.remote_url) if facts.remote_url else None
    about: dict[str, Any] = {
        "branch": _name(facts.branch, max_bytes // 5),
        "head": facts.head,
        "remote": _name(facts.remote, max_bytes // 10),
        "remote_url": shortened(url, max_bytes // 4) if url else None,
    }
    if facts.problems:
        about["problem"] = shortened(redact("; ".join(facts.problems))[0], max_bytes // 3)
    return about


def _name(name: str | None, max_bytes: int) -> str | None:
    return shortened(redact(name)[0], max_bytes) if name is not None else None


def _commit(commit: Commit) -> dict[str, Any]:
    message, author, files = commit.message, commit.author, list(commit.files[:_MAX_FILES_OF_COMMIT])
    if not are_clean((message[: _MAX_MESSAGE_CHARS + MARGIN_CHARS], author, *files)):
        message, _ = redact_start(message, _MAX_MESSAGE_CHARS)
        author, _ = redact_start(author, _MAX_AUTHOR_CHARS)
        files = redact_names(files)
    told: dict[str, Any] = {
        "hash": commit.oid,
        "message": message[:_MAX_MESSAGE_CHARS],
        "author": author[:_MAX_AUTHOR_CHARS],
        "timestamp": rfc3339(commit.committed_at),
        "files_changed": files,
    }
    if len(commit.files) > _MAX_FILES_OF_COMMIT:
        told["files_changed_total"] = len(commit.files)
    return told


def _changes(changes: Sequence[FileChange]) -> list[dict[str, Any]]:
    paths = redact_names([change.path for change in changes])
    return [{"path": path, **_change(change)} for path, change in zip(paths, changes, strict=True)]


def _change(change: FileChange) -> dict[str, Any]:
    counted = change.added is not None and change.removed is not None
    return {
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
