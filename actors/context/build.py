"""One context from start to end: list, rank, pack, emit. Runs in a thread of the builder's pool; owns nothing."""

from __future__ import annotations

from operator import eq
from typing import Any, NamedTuple

from ...state.errors import ContextFailed
from ...state.os_text import shown
from . import coverage, metadata
from .audience import audience_of
from .build_request import BuildRequest
from .emit import TAIL_BYTES, encode, etag_of, joined, members
from .file_text import Unsent
from .index.client import Index
from .index.messages import Know
from .packing import EXCERPT_BELOW, Chosen, Packed, Share, pack, pack_excerpts, shares_of
from .project import HISTORY_COMMITS, SHOWN_COMMITS, Project, Snapshot
from .reader import FileReader
from .requirements import roles_of
from .safe_root import Stamp
from .secrets.redaction import redact_names, redact_start
from .sections import Omission, Section, fitting, git_context, omitted, project_structure, tree_of
from .selection import FileSelection, anything, choose

JOINTS_BYTES = 256  # names and commas between the parts, and numbers that are longer than the 0 they are measured as
RANK_S = 2.0
MAX_GIT_WORDS = 320
TREE_NEAR = 20  # a tree that is cut shows the neighbours of this many of the best files
_SHOWN_OF_QUERY = 300  # characters
_MAX_WARNINGS, _WARNINGS_PART = 20, 8  # at most this many warnings, in this part of the budget
CUT_FILES, CUT_LEAST, CUT_ROOMS = 80, 12, 4  # excerpts come from the best files: so many, so many times the budget


class Built(NamedTuple):
    """A context that is true as long as project and order keep their versions and the files their stamps.

    core: the answer without its last members (see `emit.finished`). index_state: ready, warming or unavailable.
    file_count, strategy: as in the answer, so that callers need not parse it again.
    """

    core: bytes
    etag: str
    project_version: str
    order_version: str
    index_state: str
    stamps: tuple[tuple[str, Stamp], ...]
    file_count: int
    strategy: str


def build(order: BuildRequest, project: Project, index: Index, kept: Built | None) -> tuple[Built, bool]:
    """The context of an order, and whether `kept` was still good. Raises ContextFailed."""
    try:
        snapshot = project.snapshot(fresh=order.refresh)
        with project.reading() as reader:
            if kept is not None and _is_still_true(kept, order, snapshot, reader):
                return kept, True
            found = project.near_index(snapshot) or index
            if is_known := found.knows(str(project.root)):
                _tell(found, project, snapshot)
            built = _Build(order, project, snapshot, reader, found).built()
            if not is_known:  # the first answer waits for no index, nor for a process to start
                _tell(found, project, snapshot)
            return built, False
    except OSError as error:
        raise ContextFailed(f"the project's folder cannot be read: {error.strerror}") from error


def _is_still_true(kept: Built, order: BuildRequest, snapshot: Snapshot, reader: FileReader) -> bool:
    """Whether nothing has changed since; every file that was sent is looked at."""
    if kept.index_state != "ready" or kept.project_version != snapshot.version or kept.order_version != order.version:
        return False
    return all(map(eq, reader.states(path for path, _ in kept.stamps), (stamp for _, stamp in kept.stamps)))


def _tell(index: Index, project: Project, snapshot: Snapshot) -> None:
    """Keep the index up to date with what the snapshot has seen."""
    root = str(project.root)
    changed = project.take_changed()
    listed = list(snapshot.sizes)
    if index.needs(root, snapshot.files_version):
        index.know(
            Know(root, listed, snapshot.git.head, project.max_file_bytes, project.history), snapshot.files_version
        )
    elif changed is None:
        index.look(root, listed)
    if changed:
        index.look(root, sorted(changed))


def _worth_cutting(chosen: list[Chosen], sizes: dict[str, int], room: int) -> list[str]:
    """The best files that were not asked for whole: enough to choose from, few enough to be read at once."""
    paths = [one.path for one in chosen if not one.named][:CUT_FILES]
    total = 0
    for place, path in enumerate(paths):
        total += sizes[path]
        if place >= CUT_LEAST and total > room * CUT_ROOMS:
            return paths[:place]
    return paths


class _Build:
    """The state that the stages of one build share."""

    def __init__(
        self, order: BuildRequest, project: Project, snapshot: Snapshot, reader: FileReader, index: Index
    ) -> None:
        self._order = order
        self._name = shown(project.root.name)
        self._root = str(project.root)
        self._snapshot = snapshot
        self._reader = reader
        self._index = index
        self._stamps: list[tuple[str, Stamp]] = []
        roles = roles_of(order.requirements)
        self._audience = audience_of(order.agent_type, order.agent_class, snapshot.languages, roles)
        self._shares = shares_of(self._audience, order.requirements, order.max_bytes)

    def built(self) -> Built:
        order, snapshot = self._order, self._snapshot
        left_out: list[Omission] = []
        selection = choose(order, self._root, snapshot, self._audience, self._index)
        head = members((("issue_id", encode(order.issue_id)), ("agent_type", encode(order.agent_type))))
        sections, sections_whole = self._sections([one.path for one in selection.files[:TREE_NEAR]], left_out)
        around = self._after(0, 0, "none", selection.index_state)
        taken = len(head) + len(sections) + len(around) + self._shares[Share.OMITTED] + TAIL_BYTES + JOINTS_BYTES
        packed = self._packed(selection, max(0, order.max_bytes - taken))
        left_out += packed.omitted
        left_out += [Omission(path, reason, None) for path, reason in sorted(snapshot.listing.unread.items())]
        rest = omitted(left_out, max_bytes=self._shares[Share.OMITTED])
        # The files come first and the tree last: a client that cuts an answer short cuts its end.
        files = (b'{"relevant_files":', *(packed.parts or (b"[",)), b"],")
        strategy = packed.strategy if packed.truncated else "none" if sections_whole else "sections_only"
        size = sum(map(len, files)) + len(rest.data) + len(sections) + 1
        after = self._after(size, packed.file_count, strategy, selection.index_state)
        # One join: every copy of ten megabytes costs as much as to read a hundred files.
        core = b"".join((head, b',"context":', *files, rest.data, b",", sections[1:], b"},", after[1:]))
        etag = etag_of((head, sections, *packed.tags, rest.data, after))
        stamps = sorted((*packed.stamps, *self._stamps))  # by path, so that each folder is opened once
        return Built(
            core,
            etag,
            snapshot.version,
            order.version,
            selection.index_state,
            tuple(stamps),
            packed.file_count,
            strategy,
        )

    def _sections(self, chosen: list[str], left_out: list[Omission]) -> tuple[bytes, bool]:
        """All sections except the files, and whether they are whole. chosen: the best files' paths."""
        order, snapshot, shares = self._order, self._snapshot, self._shares
        tree = self._tree(chosen)
        full = "git_history" in order.requirements or self._audience.kind == "architect"
        shown = HISTORY_COMMITS if full else SHOWN_COMMITS
        git = git_context(snapshot.git, max_commits=shown, max_bytes=shares[Share.GIT])
        outputs, all_outputs = fitting(map(encode, order.earlier.outputs), shares[Share.EARLIER])
        if not all_outputs:
            left_out.append(Omission("previous_agent_outputs", "over budget", None))
        if order.earlier.redacted:
            left_out.append(Omission("previous_agent_outputs", f"redacted: {order.earlier.redacted}", None))
        sections = (
            ("previous_agent_outputs", joined(outputs)),
            ("git_context", git.data),
            ("metadata", self._metadata()),
            ("project_structure", tree.data),
        )
        return members(sections), tree.is_whole and git.is_whole and all_outputs

    def _tree(self, chosen: list[str]) -> Section:
        """The project's tree: whole if it fits its share, else the part near the chosen files and the root."""
        snapshot, room = self._snapshot, self._shares[Share.TREE]
        paths, total = snapshot.listing.paths, sum(snapshot.sizes.values())
        tree = snapshot.once("tree", lambda: tree_of(self._name, paths, total))
        return project_structure(tree, chosen, max_bytes=room)

    def _after(self, context_bytes: int, files: int, strategy: str, index_state: str) -> bytes:
        """The members after `context`."""
        order = self._order
        return members(
            (
                ("truncated", encode(strategy != "none")),
                ("truncation_strategy", encode(strategy)),
                ("total_size_bytes", encode(context_bytes)),
                ("estimated_tokens", encode(context_bytes // 4)),
                ("file_count", encode(files)),
                ("max_bytes", encode(order.max_bytes)),
                ("index", encode(index_state)),
                ("query", encode({"from": order.query_from, "text": self._shown_query()})),
                ("warnings", joined(self._shown_warnings())),
            )
        )

    def _shown_query(self) -> str:
        return redact_start(self._order.query, _SHOWN_OF_QUERY)[0][:_SHOWN_OF_QUERY]

    def _shown_warnings(self) -> list[bytes]:
        warnings = redact_names(self._warnings()[:_MAX_WARNINGS])
        return fitting(map(encode, warnings), self._order.max_bytes // _WARNINGS_PART)[0]

    def _warnings(self) -> list[str]:
        order, snapshot = self._order, self._snapshot
        found = [warning[:120] for warning in order.warnings]
        found += [f"git: {problem}"[:MAX_GIT_WORDS] for problem in snapshot.git.problems]
        if snapshot.listing.cut:
            found.append("the project has more files than are listed")
        if snapshot.listing.undecodable:
            found.append(f"{snapshot.listing.undecodable} file names are not UTF-8 and are left out")
        if snapshot.listing.withheld:
            found.append(f"{snapshot.listing.withheld} file names hold a secret and are left out")
        return found + [
            f"files: nothing matches {pattern!r}"[:120] for pattern in order.patterns.unmatched(snapshot.listing.paths)
        ]

    def _packed(self, selection: FileSelection, room: int) -> Packed:
        sizes = self._snapshot.sizes
        chosen = selection.files
        cut = {}
        # An index that is still being made would have to stop for it.
        if selection.index_state == "ready" and room < EXCERPT_BELOW and sum(sizes[one.path] for one in chosen) > room:
            best = _worth_cutting(chosen, sizes, room)
            blocks = self._index.cut(self._root, self._order.query, best, timeout_s=RANK_S)
            cut = {found.path: found for found in blocks.files} if blocks is not None else {}
        if cut:
            packed = pack_excerpts(chosen, cut, self._reader, sizes, max_bytes=room)
        else:
            packed = pack(chosen, self._reader, sizes, max_bytes=room)
        if not packed.file_count:  # nothing of the agent's own kind can be sent
            packed = pack(anything(self._snapshot), self._reader, sizes, max_bytes=room)
        return packed

    def _metadata(self) -> bytes:
        paths = self._snapshot.listing.paths
        texts = {}
        for path in self._snapshot.once("manifests", lambda: metadata.manifests(paths)):
            found = self._reader.text(path)
            if not isinstance(found, Unsent):
                texts[path] = found[0].text
                self._stamps.append((path, found[1]))
        depends_on, warnings = metadata.dependencies(texts)
        report, covered = self._coverage()
        types = self._snapshot.once("types", lambda: metadata.project_types(paths, self._snapshot.languages))
        share = self._shares[Share.METADATA]
        named, _ = fitting(map(encode, list(texts)[:5]), share // 4)  # paths may be as long as the system allows
        problems, _ = fitting(map(encode, warnings[:3]), share // 4)
        pairs: list[tuple[str, bytes]] = [
            ("project_type", encode(types[0] if types else "unknown")),
            ("project_types", encode(types[:10])),
            ("languages", encode(self._snapshot.languages[:10])),
            ("manifests", joined(named)),
            ("test_coverage", encode(covered)),
            ("coverage_report", encode(report)),
            ("last_build_status", encode(self._order.last_build_status)),
            ("problems", joined(problems)),
        ]
        room = share - sum(len(name) + len(value) + 4 for name, value in pairs)
        kept, _ = fitting(map(encode, depends_on), room)
        pairs.insert(3, ("dependencies", joined(kept)))
        pairs.insert(4, ("dependency_count", encode(len(depends_on))))
        return members(pairs) + b"}"

    def _coverage(self) -> tuple[dict[str, Any] | None, float | None]:
        """The first report that can be read: where it is, whether it is older than HEAD, and its per cent."""
        commits = self._snapshot.git.commits
        paths = self._snapshot.listing.paths
        for path in self._snapshot.once("reports", lambda: coverage.candidates(paths)):
            found = self._reader.text(path, named=True)
            if isinstance(found, Unsent):
                continue
            text, stamp = found
            self._stamps.append((path, stamp))
            covered = coverage.percent(path, text.text)
            if covered is not None:
                stale = bool(commits) and stamp.mtime_ns / 1e9 < commits[0].committed_at.timestamp()
                return {"path": path, "stale": stale}, covered
        return None, None
