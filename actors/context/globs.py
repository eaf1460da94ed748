"""Patterns in the syntax of `.gitignore`, matched in linear time: the one door to pathspec.

pathspec translates patterns into regular expressions, and RE2 matches all of them in one pass. With Python's `re`, a
pattern with several stars kept the process busy for minutes over one long name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ...state.linear import Linear, LinearSet, searchable

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

MAX_CHARS = 1024  # of a pattern
MAX_STARS = 20  # of a pattern; each makes every match slower
MAX_PATTERNS = 2000  # of one project without git, and of a setting; each takes 2 ms to compile
_PART_LINES = 200


class IgnoreRules:
    """The patterns of a `.gitignore`, or of a similar setting. Lines that are not patterns are skipped, as git does.

    is_cut: there were more than MAX_PATTERNS patterns; the others do not count.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        said = [line for line in lines if line.strip() and not line.startswith("#")]
        self.is_cut = len(said) > MAX_PATTERNS
        kept = [line for line in said[:MAX_PATTERNS] if expression_of(line) is not None]
        self._length = len(kept)
        self._specs: list[GitIgnoreSpec] = []
        if not kept:
            return
        # Here: the routes import this module when the sidecar starts, and most projects have no such patterns.
        from pathspec import GitIgnoreSpec

        # In parts, the last part first: thousands of patterns in one set need more memory than RE2 may use, and
        # compiling them at once would hold up all other threads.
        self._specs = [
            GitIgnoreSpec.from_lines(kept[start : start + _PART_LINES], backend="re2")
            for start in reversed(range(0, len(kept), _PART_LINES))
        ]

    def __len__(self) -> int:
        return self._length

    def verdict(self, path: str) -> bool | None:
        """Whether the path is ignored; None: no pattern matches it. The last pattern that matches decides."""
        found = (spec.check_file(searchable(path)).include for spec in self._specs)
        return next((verdict for verdict in found if verdict is not None), None)

    def ignored(self, paths: Iterable[str]) -> list[str]:
        """Those of the paths that are ignored, in the same order."""
        return [path for path in paths if self.verdict(path)] if self._specs else []


class PathSet:
    """Patterns without exceptions (`!`); says which of them match a path."""

    def __init__(self, patterns: Sequence[str]) -> None:
        expressions = [(place, found) for place, found in enumerate(map(expression_of, patterns)) if found]
        self._places = [place for place, _ in expressions]
        self._expressions = LinearSet([found for _, found in expressions])

    def matching(self, path: str) -> list[int]:
        """The indexes of the patterns that match."""
        return [self._places[number] for number in self._expressions.found_in(path)] if self._places else []


def expression_of(line: str) -> str | None:
    """The regular expression of a pattern, for RE2; empty for a comment, None for an invalid or too costly pattern."""
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
