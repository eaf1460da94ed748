"""Patterns in the syntax of `.gitignore`, matched in linear time: the one door to pathspec.

pathspec makes expressions of patterns and has RE2 match them all in one pass; with Python's `re` a pattern of some
stars kept the process busy for minutes over one long name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ...state.linear import Linear, LinearSet, searchable

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

MAX_CHARS = 1024  # of a pattern
MAX_STARS = 20  # of a pattern; each may be where any character of a name belongs
MAX_PATTERNS = 2000  # of one project without git, and of a setting; each takes 2 ms to be made
_PART_LINES = 200


class IgnoreRules:
    """Patterns of a `.gitignore`, or of a setting like it. A line that is no pattern is skipped, as git does.

    is_cut: there are more lines than count.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        from pathspec import GitIgnoreSpec  # the routes import this module, and a start waits for that

        said = [line for line in lines if line.strip() and not line.startswith("#")]
        self.is_cut = len(said) > MAX_PATTERNS
        kept = [line for line in said[:MAX_PATTERNS] if expression_of(line) is not None]
        self._length = len(kept)
        # In parts, the last first: one set of thousands of patterns does not fit what RE2 may keep, and to make it
        # would hold up all other threads.
        self._specs: list[GitIgnoreSpec] = [
            GitIgnoreSpec.from_lines(kept[start : start + _PART_LINES], backend="re2")
            for start in reversed(range(0, len(kept), _PART_LINES))
        ]

    def __len__(self) -> int:
        return self._length

    def verdict(self, path: str) -> bool | None:
        """Whether the path is ignored; None: no pattern says anything of it. The last pattern that does decides."""
        found = (spec.check_file(searchable(path)).include for spec in self._specs)
        return next((verdict for verdict in found if verdict is not None), None)

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
