"""What fits: how a budget is shared between the sections, and which files go in. Counted in bytes as they are sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple, Protocol

from .audience import Audience
from .emit import Fragment, encode
from .facts import Unsent
from .rooted import Stamp
from .sections import Omission

_MIN_ENTRY_BYTES = 250  # names and numbers around a file's content


class Share(Enum):
    """A section that has a share of the budget; the files get what is left."""

    TREE = "tree"
    GIT = "git"
    METADATA = "metadata"
    EARLIER = "earlier"
    OMITTED = "omitted"


_PARTS = {Share.TREE: 0.08, Share.GIT: 0.06, Share.METADATA: 0.04, Share.EARLIER: 0.10, Share.OMITTED: 0.02}
_MOST = {
    Share.TREE: 1 << 20,
    Share.GIT: 256 << 10,
    Share.METADATA: 64 << 10,
    Share.EARLIER: 1 << 20,
    Share.OMITTED: 64 << 10,
}
_LEAST = {Share.TREE: 600, Share.GIT: 600, Share.METADATA: 2600, Share.EARLIER: 2, Share.OMITTED: 300}
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


class Wanted(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def named(self) -> bool: ...


class Files(Protocol):
    def fragment(self, path: str, *, named: bool = False) -> tuple[Fragment, Stamp] | Unsent: ...
    def start_of(self, path: str, max_bytes: int) -> tuple[Fragment, Stamp] | Unsent: ...


class Packed(NamedTuple):
    """files: entries of `relevant_files`, most relevant first. stamps: the state each was sent in."""

    files: list[bytes]
    stamps: list[tuple[str, Stamp]]
    omitted: list[Omission]
    truncated: bool
    strategy: str


def pack(chosen: Iterable[Wanted], files: Files, sizes: Mapping[str, int], *, max_bytes: int) -> Packed:
    """The first of the chosen files that fit; one that does not is passed over, not the end."""
    sent: list[bytes] = []
    stamps: list[tuple[str, Stamp]] = []
    left_out: list[Omission] = []
    room = max_bytes
    truncated = cut = False
    for wanted in chosen:
        size = sizes[wanted.path]
        if room < _MIN_ENTRY_BYTES + len(wanted.path):
            left_out.append(Omission(wanted.path, "over budget", size))
            truncated = True
            continue
        found = files.fragment(wanted.path, named=wanted.named)
        if isinstance(found, Unsent):
            left_out.append(Omission(wanted.path, found.reason, size))
            continue
        made, stamp = found
        entry = made.data + b',"score":' + encode(round(wanted.score, 3)) + b"}"
        if len(entry) + 1 > room:
            left_out.append(Omission(wanted.path, "over budget", size))
            truncated = True
            continue
        if not made.is_whole:
            left_out.append(Omission(wanted.path, "cut: over the size of a file", size))
            truncated = cut = True
        if made.redacted:
            left_out.append(Omission(wanted.path, f"redacted: {made.redacted}", size))
        sent.append(entry)
        stamps.append((wanted.path, stamp))
        room -= len(entry) + 1
    if not sent and left_out:
        _send_start_of_one(left_out, files, max_bytes, sent, stamps)
    strategy = "most_relevant_first" + ("+head_of_large_files" if cut else "")
    return Packed(sent, stamps, left_out, truncated, strategy)


def _send_start_of_one(
    left_out: list[Omission], files: Files, max_bytes: int, sent: list[bytes], stamps: list[tuple[str, Stamp]]
) -> None:
    """An agent that gets no file at all gives up: where none fits whole, the start of the best one goes."""
    for place, omission in enumerate(left_out):
        if omission.reason != "over budget":
            continue
        found = files.start_of(omission.path, max_bytes - 50)
        if not isinstance(found, Unsent):
            made, stamp = found
            sent.append(made.data + b"}")
            stamps.append((omission.path, stamp))
            left_out[place] = omission._replace(reason="cut: over budget")
            return
