"""Cutting a file where its definitions begin, so that the part a task needs can be sent without the rest. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from .definitions import definitions_of
from .emit import encode
from .facts import lines_of
from .words import count_some

_MIN_LINES = 8  # shorter pieces are joined with the next: a header line costs as much as they do
_MAX_LINES = 48  # longer ones are cut again, at blank lines where there are any
_LEADING = re.compile(r"^[ \t]*(?:@|#|//|/\*|\*|///|--|\"\"\"|\[|<!--)")
_SATURATION = 1.2


class Block(NamedTuple):
    """Lines `start` to `end` (from 0, end excluded) of a file. size: its bytes as JSON. score: its fit to the query."""

    start: int
    end: int
    size: int
    score: float


def blocks_of(text: str, language: str, weights: Mapping[str, float]) -> tuple[Block, ...]:
    """The whole text as blocks, in order, each with how well it fits. weights: term -> what it is worth."""
    lines = lines_of(text)
    found = []
    wanted: dict[str, tuple[str, ...]] = {}
    for start, end in _spans(lines, [at.line for at in definitions_of(text, language)]):
        piece = "".join(lines[start:end])
        counts = count_some(piece, wanted, weights)
        score = sum(
            weight * times / (times + _SATURATION) for term, weight in weights.items() if (times := counts.get(term, 0))
        )
        found.append(Block(start, end, len(encode(piece)) - 2, score))
    return tuple(found)


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


def joined_spans(blocks: list[Block]) -> list[tuple[int, int]]:
    """The lines of some blocks of one file, in order, neighbours joined."""
    spans: list[tuple[int, int]] = []
    for block in sorted(blocks):
        if spans and spans[-1][1] == block.start:
            spans[-1] = (spans[-1][0], block.end)
        else:
            spans.append((block.start, block.end))
    return spans
