"""Cutting a file where its definitions begin, so that the part a task needs can be sent without the rest. Pure.

See docs/context.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log
from typing import NamedTuple

from .definitions import definitions_of
from .emit import encode
from .file_text import lines_of
from .words import QueryTerms

_MIN_LINES = 6  # shorter pieces are joined with the next: a header line costs as much as they do
_MAX_LINES = 30  # longer ones are cut again, at blank lines where there are any
_LEADING = re.compile(r"^[ \t]*(?:@|#|//|/\*|\*|///|--|\"\"\"|\[|<!--)")
_SATURATION = 1.2
_NEIGHBOUR = 0.3  # of the fit of the better neighbour: what is changed is often next to what is named


class TextBlock(NamedTuple):
    """Lines `start` to `end` (from 0, end excluded) of a file. size: its bytes as JSON. score: its fit to the query."""

    start: int
    end: int
    size: int
    score: float


def blocks_of(
    text: str, language: str, weights: Mapping[str, float], asked: QueryTerms | None = None
) -> tuple[TextBlock, ...]:
    """The whole text as blocks, in order, each with how well it fits.

    weights: term -> what it is worth. asked: those terms, where several texts are cut.
    """
    asked = asked or QueryTerms(weights)
    lines = lines_of(text)
    spans = _spans(lines, [at.line for at in definitions_of(text, language)])
    pieces = ["".join(lines[start:end]) for start, end in spans]
    fits = _fits([asked.count(piece) for piece in pieces], weights)
    return tuple(
        TextBlock(start, end, len(encode(piece)) - 2, fit + _NEIGHBOUR * neighbour)
        for (start, end), piece, fit, neighbour in zip(spans, pieces, fits, _better_neighbours(fits), strict=True)
    )


def _fits(counts: Sequence[Mapping[str, int]], weights: Mapping[str, float]) -> list[float]:
    """How well each block of a file fits. A term that stands in most of them tells little about where to look."""
    weights = {term: weight * _tells(sum(term in of for of in counts), len(counts)) for term, weight in weights.items()}
    return [
        sum(
            weights[term] * times / (times + _SATURATION) for term, times in sorted(of.items())
        )  # sorted: see `Lexicon`
        for of in counts
    ]


def _tells(spread: int, blocks: int) -> float:
    """The same rule that weighs terms between files; of one or two blocks there is nothing to tell apart."""
    return log(1 + (blocks - spread + 0.5) / (spread + 0.5)) if blocks > 2 else 1.0


def _better_neighbours(fits: Sequence[float]) -> list[float]:
    around = [0.0, *fits, 0.0]
    return [max(before, after) for before, after in zip(around, around[2:], strict=False)]


def _spans(lines: list[str], starts: list[int]) -> list[tuple[int, int]]:
    """Where to cut: before each definition with its comments and decorators, never too short, never too long."""
    cuts = [0]
    for start in starts:
        while start > cuts[-1] and _LEADING.match(lines[start - 1]):
            start -= 1
        if start - cuts[-1] >= _MIN_LINES:
            cuts.append(start)
    cuts.append(len(lines))
    spans = []
    for start, end in pairwise(cuts):
        while end - start > _MAX_LINES:
            middle = _blank_before(lines, start + _MIN_LINES, start + _MAX_LINES)
            spans.append((start, middle))
            start = middle
        if end > start:
            spans.append((start, end))
    return spans


def _blank_before(lines: list[str], least: int, most: int) -> int:
    for line in range(most, least, -1):
        if not lines[line - 1].strip():
            return line
    return most


def joined_spans(blocks: list[TextBlock]) -> list[tuple[int, int]]:
    """The lines of some blocks of one file, in order, neighbours joined."""
    spans: list[tuple[int, int]] = []
    for block in sorted(blocks):
        if spans and spans[-1][1] == block.start:
            spans[-1] = (spans[-1][0], block.end)
        else:
            spans.append((block.start, block.end))
    return spans
