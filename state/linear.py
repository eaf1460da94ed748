"""Expressions over text that others write: the one door to RE2, which matches in linear time.

Python's `re` backtracks and holds the interpreter meanwhile: a page of chosen text kept the whole process busy for
minutes. RE2 has no look-around and no back-references, and lets other threads run while it searches. It is imported
with the first search, because a start needs none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

S = TypeVar("S", str, bytes)

_MEMORY_BYTES = 64 << 20  # of the states of one expression that RE2 may keep; it needs a few KiB


def _engine() -> Any:
    """RE2's module. Importing it takes 10 ms: the first text waits for it, not the start."""
    import re2

    return re2


class LinearMatch(NamedTuple, Generic[S]):
    """One match. groups: the whole match, then each group; `start`, `end`: of the whole, in the text's own units."""

    groups: tuple[S, ...]
    start: int
    end: int


class Linear(Generic[S]):
    """An expression in RE2's syntax, compiled when it is first used.

    Of `str` it matches characters, of `bytes` bytes. `(?i)`, `(?m)` and `(?s)` at its start are its flags.
    A lone surrogate in a text counts as `?`. groups: whether anybody asks for them; to look for none is faster.
    """

    def __init__(self, expression: S, *, groups: bool = True) -> None:
        self.expression: S = expression
        self._groups = groups

    @cached_property
    def _compiled(self) -> Any:
        re2 = _engine()
        options = re2.Options()
        options.max_mem = _MEMORY_BYTES
        options.log_errors = False
        options.never_capture = not self._groups
        if isinstance(self.expression, bytes):
            options.encoding = re2.Options.Encoding.LATIN1
        return re2.compile(self.expression, options)

    @property
    def is_valid(self) -> bool:
        """Whether it is an expression in RE2's syntax; its other methods raise an error if not."""
        re2 = _engine()
        try:
            return self._compiled is not None
        except re2.error:
            return False

    def is_in(self, text: S) -> bool:
        """Whether the expression matches anywhere."""
        return self._compiled.search(searchable(text)) is not None

    def first_in(self, text: S, start: int = 0) -> tuple[int, int] | None:
        """Start and end of the first match that begins at `start` or after it."""
        match = self._compiled.search(searchable(text), start)
        return None if match is None else match.span()

    def fits(self, text: S) -> bool:
        """Whether the expression matches the whole text."""
        return self._compiled.fullmatch(searchable(text)) is not None

    def all_in(self, text: S) -> Iterator[LinearMatch[S]]:
        """Every match that overlaps no earlier one, in order. A group that took no part is empty."""
        found: Any
        for found in self._compiled.finditer(searchable(text)):
            yield LinearMatch((found.group(), *found.groups(type(text)())), found.start(), found.end())

    def without(self, text: S) -> S:
        """The text with every match taken out."""
        return self._compiled.sub(type(text)(), searchable(text))  # type: ignore[no-any-return]

    def spans_in(self, text: S, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
        r"""Start and end of the first group of each match; of the whole match where that took no part or is none.

        start, end: look only there. What lies around still counts for `^`, `$` and `\\b`.
        """
        spans = []
        for match in self._compiled.finditer(searchable(text), start, end):
            span = match.span(1) if match.re.groups else (-1, -1)
            spans.append(match.span() if span[0] < 0 else span)
        return spans

    def end_from(self, text: S, start: int) -> int:
        """Where a match that begins at `start` ends; `start` where there is none."""
        match = self._compiled.match(searchable(text), start)
        return start if match is None else int(match.end())


class LinearSet:
    """Several expressions over text, looked for in one pass."""

    def __init__(self, expressions: Sequence[str]) -> None:
        self.expressions = tuple(expressions)

    @cached_property
    def _compiled(self) -> Any:
        re2 = _engine()
        options = re2.Options()
        options.max_mem = _MEMORY_BYTES
        options.never_capture = True
        options.log_errors = False
        made = re2.Set.SearchSet(options)
        for expression in self.expressions:
            if made.Add(expression) < 0:
                raise ValueError(f"{expression!r} is not an expression in RE2's syntax")
        made.Compile()
        return made

    def found_in(self, text: str) -> list[int]:
        """The places, in the order they were given, of the expressions that match."""
        return list(self._compiled.Match(searchable(text)) or ())


def searchable(text: S) -> S:
    """The text as RE2 takes it: a lone surrogate, as in a name that is no UTF-8, becomes `?`. Offsets stay."""
    if isinstance(text, bytes):
        return text
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
