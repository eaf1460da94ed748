"""Texts that make an expression or a scanner look again at what it has seen, and a fit of how its time grows."""

from __future__ import annotations

import math
import re._constants as codes  # what Python's own compiler works on
import re._parser as parser
import statistics
import time
from collections.abc import Callable
from typing import Any

STEEPEST = 1.5  # the exponent; linear is 1, quadratic 2
QUICK_SIZE = 16 << 10
QUICK_S = 0.002  # less for a text of QUICK_SIZE is not quadratic; more is looked at
LARGEST = 1 << 20
SURE_S = 0.3  # what takes as long is measured well
TAILS = ("", "\0")
MOST_WORDS = 24
_SAMPLES = {
    codes.CATEGORY_DIGIT: "7", codes.CATEGORY_WORD: "w", codes.CATEGORY_SPACE: " ",
    codes.CATEGORY_NOT_DIGIT: "d", codes.CATEGORY_NOT_WORD: "-", codes.CATEGORY_NOT_SPACE: "s",
}  # fmt: skip


def words_of(expression: str, flags: int = 0) -> tuple[str, ...]:
    """What texts against the expression are made of: its literals, its classes, and an example of each part and all."""
    found: dict[str, None] = {}
    tree = parser.parse(expression, flags & ~parser.SRE_FLAG_LOCALE)
    found[_example(tree, found)] = None
    words = [word for word in found if word]
    # Two by two, the short ones: an overlap of neighbours is what makes an expression try again.
    pairs = [a + b for a in words[:4] for b in words[:4] if a != b]
    return tuple(dict.fromkeys([*words[: MOST_WORDS - len(pairs)], *pairs]))


def made(word: str, tail: str, size: int) -> str:
    """A word over and over, and a tail that may keep the whole from matching."""
    return word * max(1, size // len(word)) + tail


def _example(tree: Any, found: dict[str, None]) -> str:
    parts: list[str] = []
    literal = ""
    for code, value in tree:
        if code is codes.LITERAL:
            literal += chr(value)
        elif literal:
            found[literal] = None
            literal = ""
        parts.append(_one(code, value, found))
    if literal:
        found[literal] = None
    return "".join(parts)


def _one(code: Any, value: Any, found: dict[str, None]) -> str:
    """Text that one part of an expression matches; its own parts are noted in `found`."""
    if code is codes.LITERAL:
        return chr(value)
    if code is codes.NOT_LITERAL:
        return "x" if value != ord("x") else "y"
    if code is codes.ANY:
        return "x"
    if code is codes.IN:
        return _of_class(value, found)
    if code is codes.BRANCH:
        return next(iter([_example(branch, found) for branch in value[1]]))
    if code is codes.SUBPATTERN:
        return _example(value[3], found)
    if code is codes.ATOMIC_GROUP:
        return _example(value, found)
    if code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
        least, most, inner = value
        one = _example(inner, found)
        found[one] = None
        return one * min(max(least, 1 if most else 0), 20)
    if code in (codes.ASSERT, codes.ASSERT_NOT):
        _example(value[1], found)
    return ""


def _of_class(items: Any, found: dict[str, None]) -> str:
    is_negated = items[0][0] is codes.NEGATE
    inside: list[str] = []
    for code, value in items:
        if code is codes.LITERAL:
            inside.append(chr(value))
        elif code is codes.RANGE:
            inside += [chr(value[0]), chr(value[1])]
        elif code is codes.CATEGORY:
            inside.append(_SAMPLES[value])
    for char in inside[:4]:
        found[char] = None
    if is_negated:
        return next(char for char in "xyzXZ#~ 1q" if char not in inside)
    return inside[0]


def seconds(act: Callable[[], object], times: int = 1) -> float:
    """Processor time of this thread, the median of several runs."""
    took = []
    for _ in range(times):
        began = time.thread_time()
        act()
        took.append(time.thread_time() - began)
    return statistics.median(took)


def steepness(act: Callable[[int], Callable[[], object]], size: int = QUICK_SIZE // 4, step: int = 4) -> float:
    """The exponent with which the time grows. act: makes the text of a size, and gives what runs over it.

    What looks steep is measured again with larger texts, which a busy machine disturbs less; the least counts.
    """
    least = math.inf
    while size * step <= LARGEST:
        small, large = act(size), act(size * step)
        took = seconds(small, 3)
        if took > 1e-5:
            took_large = seconds(large)
            least = min(least, math.log(took_large / took, step))
            if least < STEEPEST or took_large > SURE_S:
                return least
        size *= 2
    return least if least < math.inf else 0.0


def is_quick(act: Callable[[int], Callable[[], object]]) -> bool:
    """Whether one look tells that it is not steep: by its time over a text of QUICK_SIZE, or over a quarter of that."""
    took = seconds(act(QUICK_SIZE))
    return took < QUICK_S or took < seconds(act(QUICK_SIZE // 4)) * 4**STEEPEST
