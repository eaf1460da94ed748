"""Fits a context into its budget: shares of the sections, and the files that go in. Counted in bytes as sent.

The ladder: whole files; where the budget is small, the parts of files that fit the task best, cut where definitions
begin; the start of one file where nothing else fits; the path alone, in `omitted`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from .audience import Audience
from .emit import OVER_SIZE, Fragment, encode
from .excerpts import TextBlock, joined_spans
from .file_text import Unsent
from .index.messages import FileBlocks
from .safe_root import Stamp
from .sections import Omission

_MIN_ENTRY_BYTES = 250  # names and numbers around a file's content
_SCORE_BYTES = 50  # a file's score and the names around it and around `why`
_EXCERPT_ENTRY_BYTES = 275  # the same where excerpts go, without path and reason
_SPAN_BYTES = 68  # the line above an excerpt and its numbers in `excerpts`
_OVER, _RANKED = "over budget", "most_relevant_first"  # reason and rung of what is left out for size
EXCERPT_BELOW = 512 * 1024  # with more room than that whole files show as much of what matters, and read better
# A block is worth its file's score to this power, times what the file alone is worth and its own fit (half compared
# with all blocks, half with those of its file), a little less for its length. Found on the commits of docs/context.md.
_FILE_POWER, _FILE_ALONE, _SIZE_POWER = 1.5, 0.4, 0.2
_FILE_START = 0.2  # more for a file's first block: imports and what the file is about change with the rest
_NEARLY_WHOLE = 0.8  # a file of which that much would go is sent whole


class Share(Enum):
    """A section that has a share of the budget; the files get what is left."""

    TREE = "tree"
    GIT = "git"
    METADATA = "metadata"
    EARLIER = "earlier"
    OMITTED = "omitted"


_PARTS = {Share.TREE: 0.03, Share.GIT: 0.025, Share.METADATA: 0.02, Share.EARLIER: 0.10, Share.OMITTED: 0.01}
_MOST = {
    Share.TREE: 1024 * 1024,
    Share.GIT: 256 * 1024,
    Share.METADATA: 64 * 1024,
    Share.EARLIER: 1024 * 1024,
    Share.OMITTED: 64 * 1024,
}
_LEAST = {Share.TREE: 600, Share.GIT: 600, Share.METADATA: 900, Share.EARLIER: 2, Share.OMITTED: 300}
_ASKED = {
    "project_structure": Share.TREE,
    "git_history": Share.GIT,
    "previous_decisions": Share.EARLIER,
    "code_reviews": Share.EARLIER,
    "dependencies": Share.METADATA,
}


def shares_of(audience: Audience, requirements: frozenset[str], max_bytes: int) -> Mapping[Share, int]:
    """At most so many bytes for each section. What was asked for by name gets twice its share."""
    doubled = {_ASKED[name] for name in requirements if name in _ASKED}
    if audience.kind == "architect":
        doubled |= {Share.TREE, Share.GIT}
    return {
        share: max(_LEAST[share], min(int(max_bytes * part) * (2 if share in doubled else 1), _MOST[share]))
        for share, part in _PARTS.items()
    }


class Chosen(NamedTuple):
    """A file to send if there is room. named: asked for by name, goes first and whole. why: what speaks for it."""

    path: str
    score: float
    named: bool
    why: str


class Files(Protocol):
    """Where the pieces come from; see `reader.Reader`."""

    @property
    def max_file_bytes(self) -> int: ...
    def fragment(self, path: str, *, named: bool = False) -> tuple[Fragment, Stamp] | Unsent: ...
    def excerpt(self, path: str, spans: list[tuple[int, int]], cut_at: Stamp) -> tuple[Fragment, Stamp] | Unsent: ...
    def start_of(self, path: str, max_bytes: int) -> tuple[Fragment, Stamp] | Unsent: ...


class Packed:
    """Entries of `relevant_files`, most relevant first, in at most `max_bytes`.

    parts: the array of them, to be joined; tags: what changes when they do; stamps: the state each was sent in;
    omitted: what was left out, cut or redacted, and why.
    """

    def __init__(self, files: Files, sizes: Mapping[str, int], max_bytes: int) -> None:
        self._from = files
        self._sizes = sizes
        self._max_bytes = self.room = max_bytes
        self.parts: list[bytes] = []
        self.tags: list[bytes] = []
        self.stamps: list[tuple[str, Stamp]] = []
        self._missing: list[Omission] = []
        self._cut: list[Omission] = []
        self._ladder: dict[str, None] = {}

    @property
    def omitted(self) -> list[Omission]:
        """Missing files first, cut files after them: a file that was cut says so itself."""
        return self._missing + self._cut

    @property
    def file_count(self) -> int:
        return len(self.stamps)

    @property
    def truncated(self) -> bool:
        return bool(self._ladder)

    @property
    def strategy(self) -> str:
        """The rungs of the ladder that were needed, `none` if every file went whole."""
        return "+".join(self._ladder) or "none"

    def send(self, wanted: Chosen, found: tuple[Fragment, Stamp] | Unsent) -> bool:
        """Add a file if it fits; False if it does not."""
        if isinstance(found, Unsent):
            self.leave_out(wanted.path, found.reason)
            return True
        made, stamp = found
        end = b',"score":' + encode(round(wanted.score, 3)) + b',"why":' + encode(wanted.why) + b"}"
        size = len(made.data) + len(end) + 1
        if size > self.room:
            return False
        if made.redacted:
            self.leave_out(wanted.path, f"redacted: {made.redacted}")
        self.parts += (b"," if self.parts else b"[", made.data, end)
        self.tags += (made.tag, end)
        self.stamps.append((wanted.path, stamp))
        self.room -= size
        return True

    @property
    def has_room(self) -> bool:
        return self.room >= _MIN_ENTRY_BYTES

    def send_whole(self, wanted: Chosen) -> bool:
        """Add a whole file (or as much of it as a file may have) if it fits; False if it does not."""
        # As JSON a text is hardly ever shorter than its file. To read five thousand to find that none fits took longer
        # than all the rest of an answer.
        least = min(self._sizes[wanted.path], self._from.max_file_bytes)
        if _MIN_ENTRY_BYTES + len(wanted.path) + (0 if wanted.named else least) > self.room:
            return False
        found = self._from.fragment(wanted.path, named=wanted.named)
        sent = self.send(wanted, found)
        if sent and not isinstance(found, Unsent) and (why := found[0].cut):
            rung = "head_of_large_files" if why == OVER_SIZE else None
            self.leave_out(wanted.path, f"cut: {why}", rung=rung)
        return sent

    def send_excerpt(self, wanted: Chosen, spans: list[tuple[int, int]], cut_at: Stamp) -> bool:
        sent = self.send(wanted, self._from.excerpt(wanted.path, spans, cut_at))
        if sent:
            self.leave_out(wanted.path, "cut: excerpts", rung="excerpts")
        return sent

    def send_start_of_one(self, wanted: Iterable[Chosen]) -> None:
        """An agent that gets no file at all gives up: where none fits, the start of the best one goes."""
        if not self.has_room:
            return
        for one in wanted:
            found = self._from.start_of(one.path, self.room - _SCORE_BYTES - len(encode(one.why)))
            if not isinstance(found, Unsent) and self.send(one, found):
                self._missing = [omission for omission in self._missing if omission.path != one.path]
                self.leave_out(one.path, "cut: over budget", rung="head_of_one_file")
                return

    def leave_out(self, path: str, reason: str, *, rung: str | None = None) -> None:
        (self._cut if reason.startswith("cut") else self._missing).append(Omission(path, reason, self._sizes.get(path)))
        if rung is not None:
            self._ladder[rung] = None


def pack(chosen: Sequence[Chosen], files: Files, sizes: Mapping[str, int], *, max_bytes: int) -> Packed:
    """The first of the chosen files that fit whole; one that does not is passed over, not the end."""
    packed = Packed(files, sizes, max_bytes)
    _send_whole(packed, chosen)
    if not packed.file_count:
        packed.send_start_of_one(chosen)
    return packed


def _send_whole(packed: Packed, chosen: Iterable[Chosen]) -> None:
    rest = iter(chosen)
    for wanted in rest:
        if not packed.send_whole(wanted):
            packed.leave_out(wanted.path, _OVER, rung=_RANKED)
        if not packed.has_room:
            break
    for wanted in rest:
        packed.leave_out(wanted.path, _OVER, rung=_RANKED)


def pack_excerpts(
    chosen: Sequence[Chosen],
    cut: Mapping[str, FileBlocks],
    files: Files,
    sizes: Mapping[str, int],
    *,
    max_bytes: int,
) -> Packed:
    """The parts of the chosen files that are worth most; named files whole before that. cut: path -> its blocks."""
    packed = Packed(files, sizes, max_bytes)
    named = [wanted for wanted in chosen if wanted.named]
    _send_whole(packed, named)
    others = [wanted for wanted in chosen if not wanted.named]
    parts = _worthiest(others, cut, packed.room)
    for wanted in others:
        blocks = parts.get(wanted.path)
        if blocks is None or not _send_part(packed, wanted, blocks, cut[wanted.path]):
            packed.leave_out(wanted.path, _OVER, rung=_RANKED)
    if not packed.file_count:
        packed.send_start_of_one(chosen)
    return packed


def _worthiest(chosen: Sequence[Chosen], cut: Mapping[str, FileBlocks], room: int) -> dict[str, list[TextBlock]]:
    """The blocks worth most that fit in `room`, by file."""
    scores = {wanted.path: wanted.score for wanted in chosen if wanted.path in cut}
    best = max(scores.values(), default=0.0) or 1.0
    fit = max((block.score for path in scores for block in cut[path].blocks), default=0.0) or 1.0
    offers = []
    for place, wanted in enumerate(wanted for wanted in chosen if wanted.path in cut):
        blocks = cut[wanted.path].blocks
        fit_here = max((block.score for block in blocks), default=0.0) or 1.0
        of_file = (max(wanted.score, 0.0) / best) ** _FILE_POWER
        for block in blocks:
            alone = _FILE_ALONE if block.start else _FILE_ALONE + _FILE_START
            worth = of_file * (alone + block.score / fit / 2 + block.score / fit_here / 2)
            offers.append((-worth / max(block.size, 300) ** _SIZE_POWER, place, block.start, wanted, block))
    taken: dict[str, list[TextBlock]] = defaultdict(list)
    ends: set[tuple[str, int]] = set()
    for _, _, _, wanted, block in sorted(offers, key=lambda offer: offer[:3]):
        path = wanted.path
        is_joined = (path, block.start) in ends or (path, block.end) in ends
        cost = block.size + (0 if is_joined else _SPAN_BYTES)
        if path not in taken:
            cost += _EXCERPT_ENTRY_BYTES + len(path) + len(wanted.why)
        if cost <= room:
            room -= cost
            taken[path].append(block)
            ends.update(((path, block.start), (path, block.end)))
    return taken


def _send_part(packed: Packed, wanted: Chosen, blocks: list[TextBlock], cut: FileBlocks) -> bool:
    whole = sum(block.size for block in cut.blocks)
    if sum(block.size for block in blocks) >= _NEARLY_WHOLE * whole and packed.send_whole(wanted):
        return True
    return packed.send_excerpt(wanted, joined_spans(blocks), cut.stamp)
