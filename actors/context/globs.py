"""Patterns in the syntax of `.gitignore`, matched in linear time: the one door to pathspec.

pathspec makes expressions of patterns and has RE2 match them all in one pass; with Python's `re` a pattern of some
stars kept the process busy for minutes over one long name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ...state.linear import Linear, LinearSet, searchable

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

MAX_CHARS = 1024  # of a pattern
MAX_STARS = 20  # of a pattern; each may be where any character of a name belongs
_MAX_LINES = 5000  # of one file of patterns


class IgnoreRules:
    """Patterns of a `.gitignore`, or of a setting like it. A line that is no pattern is skipped, as git does."""

    def __init__(self, lines: Iterable[str]) -> None:
        from pathspec import GitIgnoreSpec  # the routes import this module, and a start waits for that

        kept = [line for line in lines if expression_of(line) is not None][:_MAX_LINES]
        self._spec: GitIgnoreSpec = GitIgnoreSpec.from_lines(kept, backend="re2")

    def __bool__(self) -> bool:
        return bool(self._spec)

    def verdict(self, path: str) -> bool | None:
        """Whether the path is ignored; None: no pattern says anything of it."""
        return self._spec.check_file(searchable(path)).include

    def ignored(self, paths: Iterable[str]) -> list[str]:
        """The ignored ones of these paths, in their order."""
        return [path for path in paths if self.verdict(path)]


class PathSet:
    """Patterns without exceptions (`!`), each of which is asked whether it matches a path."""

    def __init__(self, patterns: Sequence[str]) -> None:
        expressions = [(place, found) for place, found in enumerate(map(expression_of, patterns)) if found]
        self._places = [place for place, _ in expressions]
        self._expressions = LinearSet([found for _, found in expressions])

    def matching(self, path: str) -> list[int]:
        """The places of the patterns that match."""
        return [self._places[number] for number in self._expressions.found_in(path)] if self._places else []


def expression_of(line: str) -> str | None:
    """The expression of a pattern, in RE2's syntax; empty for a comment, None for an invalid or too costly pattern."""
    import re

    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    if len(line) > MAX_CHARS or line.count("*") > MAX_STARS:
        return None
    try:
        made = GitIgnoreSpecPattern(line).regex
    except (ValueError, re.error):
        return None
    if made is None:
        return ""
    expression = made.pattern
    return expression if isinstance(expression, str) and Linear(expression).is_valid else None
