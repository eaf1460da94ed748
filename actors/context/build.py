"""One context from start to end: list, rank, pack, emit. Runs in a thread of the builder's pool; owns nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...state.errors import ContextFailed
from ...state.identity import AgentClass
from . import coverage, metadata
from .audience import Audience, audience_of
from .earlier import Earlier
from .emit import TAIL_BYTES, encode, etag_of, joined, members
from .facts import Unsent
from .packing import Packed, Share, pack, shares_of
from .project import HISTORY_COMMITS, SHOWN_COMMITS, Project, Reader, Snapshot
from .ranking import by_path, ordered
from .requirements import FilePatterns, roles_of
from .rooted import Stamp
from .sections import Omission, Section, fitting, git_context, omitted, project_structure


class Order(NamedTuple):
    """A context to build, with all that the rest of the sidecar knows about it."""

    issue_id: str
    agent_type: str
    agent_class: AgentClass
    requirements: frozenset[str]
    patterns: FilePatterns
    query: str
    query_from: str
    max_bytes: int
    earlier: Earlier
    last_build_status: str | None
    warnings: tuple[str, ...]

    @property
    def version(self) -> str:
        """The same for orders that, of an unchanged project, give the same context."""
        told = (*self[:4], sorted(self.requirements), self.patterns.patterns, *self[5:])
        return hashlib.blake2b(repr(told).encode("utf-8", "replace"), digest_size=16).hexdigest()


class Built(NamedTuple):
    """A context that is true as long as project and order keep their versions and the files their stamps.

    core: the answer without its last members (see `emit.finished`).
    """

    core: bytes
    etag: str
    project_version: str
    order_version: str
    stamps: tuple[tuple[str, Stamp], ...]


def is_still_true(built: Built, order: Order, snapshot: Snapshot, reader: Reader) -> bool:
    """Whether nothing has changed since; every file that was sent is looked at."""
    if built.project_version != snapshot.version or built.order_version != order.version:
        return False
    return all(reader.stamp(path) == stamp for path, stamp in built.stamps)


def build(order: Order, project: Project, kept: Built | None) -> tuple[Built, bool]:
    """The context of an order, and whether `kept` was still good. Raises ContextFailed."""
    try:
        snapshot = project.snapshot()
        with project.reading() as reader:
            if kept is not None and is_still_true(kept, order, snapshot, reader):
                return kept, True
            return _build(order, snapshot, reader, project.root.name), False
    except OSError as error:
        raise ContextFailed(f"the project's folder cannot be read: {error.strerror}") from error


def _build(order: Order, snapshot: Snapshot, reader: Reader, name: str) -> Built:
    audience = audience_of(order.agent_type, order.agent_class, snapshot.languages, roles_of(order.requirements))
    shares = shares_of(audience, order.requirements, order.max_bytes)
    paths = snapshot.listing.paths
    sizes = _sizes(snapshot, reader)
    left_out: list[Omission] = []
    about, stamps = _metadata(order, snapshot, reader, shares)
    tree = project_structure(name, paths, sum(sizes.values()), max_bytes=shares[Share.TREE])
    many = "git_history" in order.requirements or audience.kind == "architect"
    git = git_context(snapshot.git, max_commits=HISTORY_COMMITS if many else SHOWN_COMMITS, max_bytes=shares[Share.GIT])
    outputs, all_outputs = fitting(map(encode, order.earlier.outputs), shares[Share.EARLIER])
    if not all_outputs:
        left_out += [Omission("previous_agent_outputs", "over budget", None)]
    if order.earlier.redacted:
        left_out += [Omission("previous_agent_outputs", f"redacted: {order.earlier.redacted}", None)]

    head = members((("issue_id", encode(order.issue_id)), ("agent_type", encode(order.agent_type)))) + b',"context":'
    front = members(
        (
            ("project_structure", tree.data),
            ("metadata", about),
            ("git_context", git.data),
            ("previous_agent_outputs", joined(outputs)),
        )
    )
    room = order.max_bytes - len(head) - len(front) - shares[Share.OMITTED] - TAIL_BYTES - _ENVELOPE_BYTES
    chosen = _ranked(order, snapshot, audience, sizes)
    packed = pack(chosen, reader, sizes, max_bytes=room)
    if not packed.files:  # nothing of the agent's own kind can be sent
        packed = pack(_anything(snapshot, sizes), reader, sizes, max_bytes=room)
    left_out += packed.omitted
    left_out += [Omission(path, reason, None) for path, reason in snapshot.listing.unread.items()]
    rest = omitted(left_out, max_bytes=shares[Share.OMITTED])
    whole = tree.is_whole and git.is_whole and all_outputs and not packed.truncated
    core = _core(order, snapshot, head, front, packed, rest, truncated=not whole)
    return Built(core, etag_of(core), snapshot.version, order.version, (*packed.stamps, *stamps))


_ENVELOPE_BYTES = 4096  # the members after `context`: names, numbers, at most 20 warnings


def _core(
    order: Order, snapshot: Snapshot, head: bytes, front: bytes, packed: Packed, rest: Section, *, truncated: bool
) -> bytes:
    context = front + b',"relevant_files":' + joined(packed.files) + b"," + rest.data + b"}"
    warnings = [warning[:150] for warning in _warnings(order, snapshot)][:20]
    after = members(
        (
            ("truncated", encode(truncated)),
            ("truncation_strategy", encode(packed.strategy if truncated else "none")),
            ("total_size_bytes", encode(len(context))),
            ("file_count", encode(len(packed.files))),
            ("max_bytes", encode(order.max_bytes)),
            ("index", encode("none")),
            ("query", encode({"from": order.query_from, "text": order.query[:500]})),
            ("warnings", encode(warnings)),
        )
    )
    return head + context + b"," + after[1:]


def _warnings(order: Order, snapshot: Snapshot) -> tuple[str, ...]:
    found = list(order.warnings)
    if snapshot.git.problem is not None:
        found.append(f"git: {snapshot.git.problem}")
    if snapshot.listing.cut:
        found.append("the project has more files than are listed")
    if snapshot.listing.undecodable:
        found.append(f"{snapshot.listing.undecodable} file names are not UTF-8 and are left out")
    found += [f"files: nothing matches {pattern!r}" for pattern in order.patterns.unmatched(snapshot.listing.paths)]
    return tuple(found)


def _sizes(snapshot: Snapshot, reader: Reader) -> dict[str, int]:
    sizes = {}
    for path in snapshot.listing.paths:
        if path not in snapshot.listing.unread:
            stamp = reader.stamp(path)
            if not isinstance(stamp, Unsent):
                sizes[path] = stamp.size
    return sizes


class Chosen(NamedTuple):
    """A file to send if there is room. named: asked for by name, goes first and whole."""

    path: str
    score: float
    named: bool


def _ranked(order: Order, snapshot: Snapshot, audience: Audience, sizes: Mapping[str, int]) -> Sequence[Any]:
    named = order.patterns.matched(path for path in snapshot.listing.paths if path in sizes)
    dirty = [change.path for change in snapshot.git.changes]
    scores = by_path(sizes, order.query, touched=snapshot.touched, dirty=dirty, seeds=order.earlier.seeds)
    best = max(scores.values(), default=0.0)
    weighted = {}
    for path, score in scores.items():
        if audience.belongs(path) or (score > 0.5 and score >= best * _POINTED_AT):
            weighted[path] = (score + 0.05) * audience.prior(path)
    if not weighted:
        weighted = {path: score * audience.prior(path) for path, score in scores.items()}
    front = frozenset(named)
    chosen = [Chosen(path, 1.0, True) for path in named]
    return chosen + [Chosen(path, weighted[path], False) for path in ordered(weighted) if path not in front]


def _anything(snapshot: Snapshot, sizes: Mapping[str, int]) -> list[Chosen]:
    scores = by_path(sizes, "", touched=snapshot.touched, dirty=(), seeds=())
    return [Chosen(path, scores[path], False) for path in ordered(scores)]


_POINTED_AT = 0.4  # of the best score: then the task points at the file, whatever kind it is


def _metadata(
    order: Order, snapshot: Snapshot, reader: Reader, shares: Mapping[Share, int]
) -> tuple[bytes, tuple[tuple[str, Stamp], ...]]:
    """The metadata section, and the files it was read from."""
    paths = snapshot.listing.paths
    texts = {}
    stamps: list[tuple[str, Stamp]] = []
    for path in metadata.manifests(paths):
        stamp, text = reader.stamp(path), reader.text(path)
        if not isinstance(text, Unsent) and not isinstance(stamp, Unsent):
            texts[path] = text.text
            stamps.append((path, stamp))
    depends_on, warnings = metadata.dependencies(texts)
    report, covered = _coverage(snapshot, reader, stamps)
    types = metadata.project_types(paths)
    kept, _ = fitting(map(encode, depends_on), shares[Share.METADATA] - 2048)
    pairs: tuple[tuple[str, bytes], ...] = (
        ("project_type", encode(types[0] if types else "unknown")),
        ("project_types", encode(types)),
        ("languages", encode(snapshot.languages[:10])),
        ("dependencies", joined(kept)),
        ("manifests", encode(list(texts)[:20])),
        ("test_coverage", encode(covered)),
        ("coverage_report", encode(report)),
        ("last_build_status", encode(order.last_build_status)),
        ("problems", encode(warnings[:10])),
    )
    return members(pairs) + b"}", tuple(stamps)


def _coverage(
    snapshot: Snapshot, reader: Reader, stamps: list[tuple[str, Stamp]]
) -> tuple[dict[str, Any] | None, float | None]:
    """The first report that can be read: where it is, whether it is older than HEAD, and its per cent."""
    for path in coverage.candidates(snapshot.listing.paths):
        stamp = reader.stamp(path)
        if isinstance(stamp, Unsent):
            continue
        text = reader.text(path, named=True)
        if isinstance(text, Unsent):
            continue
        stamps.append((path, stamp))
        covered = coverage.percent(path, text.text)
        if covered is not None:
            newest = snapshot.git.commits[0].committed_at.timestamp() if snapshot.git.commits else 0.0
            return {"path": path, "stale": stamp.mtime_ns / 1e9 < newest}, covered
    return None, None
