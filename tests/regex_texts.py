"""Texts that an expression matches, made up at random: for expressions that a slower generator takes minutes over."""

from __future__ import annotations

import random
import re._constants as c  # type: ignore[import-not-found] # the standard library parses expressions for itself alone
import re._parser as parser  # type: ignore[import-not-found]
from typing import Any

_CHARS = [chr(code) for code in range(9, 127)]  # `\s` is what RE2 takes for it


def text_like(expression: str, chance: random.Random) -> str:
    """A text that nearly always matches, its repeats as short as they may be or a little longer."""
    tree = parser.parse(expression)
    return _made(tree, chance, ignores_case=bool(tree.state.flags & 2))


def _made(tree: Any, chance: random.Random, *, ignores_case: bool) -> str:
    def inner(tree: Any) -> str:
        return "".join(one(op, argument) for op, argument in tree)

    def one(op: Any, argument: Any) -> str:
        if op is c.LITERAL:
            char = chr(argument)
            return chance.choice((char.lower(), char.upper())) if ignores_case else char
        if op is c.IN:
            return chance.choice([char for char in _CHARS if _is_among(char, argument)])
        if op is c.BRANCH:
            return inner(chance.choice(argument[1]))
        if op is c.SUBPATTERN:
            return inner(argument[-1])
        if op in (c.MAX_REPEAT, c.MIN_REPEAT):
            least, most, repeated = argument
            times = chance.choice((least, least, min(most, least + 1), min(most, least + 5)))
            return "".join(inner(repeated) for _ in range(times))
        if op is c.AT:
            return ""
        raise ValueError(f"{op} is not known here; add it")

    return inner(tree)


def _is_among(char: str, items: Any) -> bool:
    is_not = items[0][0] is c.NEGATE
    for op, argument in items:
        if op is c.LITERAL and ord(char) == argument:
            return not is_not
        if op is c.RANGE and argument[0] <= ord(char) <= argument[1]:
            return not is_not
        if op is c.CATEGORY and (argument is c.CATEGORY_SPACE) == (char in " \t\n\f\r"):
            return not is_not
    return bool(is_not)
