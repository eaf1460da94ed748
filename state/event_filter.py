"""Event filters: `issue_id:issue-123,status:success` becomes a predicate over events.

    filter      = term *("," term)                  all must hold
    term        = ["!"] alternative *("|" alternative)   one must hold; "!" turns the whole term round
    alternative = [field ":"] value                 without a field: that of the alternative before
    value       = quoted | comparison | glob | literal

Source: the protocol, "Filters". A faulty filter is refused with the position of the fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NoReturn

import msgspec

from .errors import InvalidFilter
from .models import Event

MAX_LENGTH = 4096  # characters; what fits in a URL
MAX_TERMS = 64

_FIELD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_COMPARISON = re.compile(r"(>=|<=|>|<)(.*)", re.DOTALL)
_NEEDS_QUOTES = re.compile(r'[,|:*"]|^[<>!]|^\s|\s$|^$')

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
}

_MISSING = object()


class EventFilter(msgspec.Struct, frozen=True):
    """A compiled filter. Two filters that mean the same term by term have the same `canonical` text."""

    canonical: str
    terms: tuple[_Term, ...]

    def matches(self, event: Event) -> bool:
        """Whether every term holds for the event. The empty filter matches everything."""
        return not self.terms or self.matches_data(event, msgspec.json.decode(event.data))

    def matches_data(self, event: Event, data: Any) -> bool:
        """The same, with `event.data` already decoded: one decoding serves many filters."""
        return all(term.holds(event, data) for term in self.terms)


class _Term(msgspec.Struct, frozen=True):
    negated: bool
    alternatives: tuple[_Alternative, ...]

    def holds(self, event: Event, data: Any) -> bool:
        return any(alternative.holds(event, data) for alternative in self.alternatives) is not self.negated


class _Alternative(msgspec.Struct, frozen=True):
    field: str
    value: _Literal | _Glob | _Comparison

    def holds(self, event: Event, data: Any) -> bool:
        found = _look_up(data, self.field)
        if found is _MISSING:
            found = _of_event(event, self.field)
        if found is _MISSING:
            return False
        if isinstance(found, list):
            return any(self.value.accepts(item) for item in found)
        return self.value.accepts(found)


class _Literal(msgspec.Struct, frozen=True, tag=True):
    """The value as text; numbers, booleans and null are compared as JSON writes them."""

    text: str

    def accepts(self, found: Any) -> bool:
        if isinstance(found, str):
            return found == self.text
        if isinstance(found, bool) or found is None:
            return self.text == {True: "true", False: "false", None: "null"}[found]
        if isinstance(found, int | float):
            number = _number(self.text)
            return number is not None and number == found
        return False

    def __str__(self) -> str:
        if _NEEDS_QUOTES.search(self.text):
            return '"' + self.text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return self.text


class _Glob(msgspec.Struct, frozen=True, tag=True):
    """Parts between the stars, in order: matched in time linear in the text, whatever the pattern."""

    parts: tuple[str, ...]

    def accepts(self, found: Any) -> bool:
        if isinstance(found, bool) or not isinstance(found, str | int | float):
            return False
        text = str(found)
        first, *middle, last = self.parts
        if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
            return False
        at, end = len(first), len(text) - len(last)
        for part in middle:
            at = text.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True

    def __str__(self) -> str:
        return "*".join(self.parts)


_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_LONGEST_INT = 300  # digits; beyond it is no number of anybody's, and Python reads it slowly


class _Comparison(msgspec.Struct, frozen=True, tag=True):
    operator: str
    bound: int | float

    def accepts(self, found: Any) -> bool:
        if isinstance(found, bool) or not isinstance(found, int | float):  # true is 1 to Python, not to JSON
            return False
        return _COMPARE[self.operator](found, self.bound)

    def __str__(self) -> str:
        return f"{self.operator}{self.bound!r}".removesuffix(".0")


def _number(text: str) -> int | float | None:
    """The number that JSON would read, or None; "nan" and "inf" are words, not numbers.

    A whole one stays whole: above 2**53 a float is its neighbour's, too.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    return int(text) if match.lastindex is None and len(text) <= _LONGEST_INT else float(text)


def _look_up(data: Any, field: str) -> Any:
    """`a.b` is the key "a.b", else the key "b" of the object under "a"."""
    if not isinstance(data, dict):
        return _MISSING
    if field in data:
        return data[field]
    found: Any = data
    for key in field.split("."):
        if not isinstance(found, dict) or key not in found:
            return _MISSING
        found = found[key]
    return found


_EVENT_FIELDS = frozenset(
    {"event_id", "project_id", "event_type", "publisher", "publisher_type", "topic", "correlation_id", "priority"}
)


def _of_event(event: Event, field: str) -> Any:
    return getattr(event, field) if field in _EVENT_FIELDS else _MISSING


@lru_cache(maxsize=1024)
def compile_filter(text: str) -> EventFilter:
    """The filter that `text` stands for; "" matches everything.

    Raises InvalidFilter with `position`, the 0-based offset of the fault, and what was expected there.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidFilter(
            f"the filter has {len(text)} characters", position=MAX_LENGTH, expected=f"at most {MAX_LENGTH}"
        )
    if not text.strip():
        return EventFilter("", ())
    terms = _Parser(text).terms()
    texts = {_canonical(term): term for term in terms}
    canonical = ",".join(sorted(texts))
    return EventFilter(canonical, tuple(texts[key] for key in sorted(texts)))


def _canonical(term: _Term) -> str:
    alternatives = sorted({f"{a.field}:{a.value}" for a in term.alternatives})
    return ("!" if term.negated else "") + "|".join(alternatives)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def terms(self) -> list[_Term]:
        terms = [self._term()]
        while self._take(","):
            terms.append(self._term())
            if len(terms) > MAX_TERMS:
                self._fail(f"at most {MAX_TERMS} terms")
        if self._at < len(self._text):
            self._fail('"," or "|" before the next term')
        return terms

    def _term(self) -> _Term:
        self._skip_spaces()
        negated = self._take("!")
        alternatives = [self._alternative(None)]
        while self._take("|"):
            alternatives.append(self._alternative(alternatives[-1].field))
        return _Term(negated, tuple(alternatives))

    def _alternative(self, field: str | None) -> _Alternative:
        self._skip_spaces()
        named = _FIELD.match(self._text, self._at)
        if named and self._text.startswith(":", named.end()):
            field = named.group()
            self._at = named.end() + 1
        if field is None:
            self._fail("a field name and a colon, as in status:success")
        self._skip_spaces()
        value = _Literal(self._quoted()) if self._text.startswith('"', self._at) else self._bare()
        self._skip_spaces()
        return _Alternative(field, value)

    def _quoted(self) -> str:
        quoted = _QUOTED.match(self._text, self._at)
        if quoted is None:
            self._fail("a closing quotation mark")
        self._at = quoted.end()
        return _ESCAPED.sub(r"\1", quoted.group(1))

    def _bare(self) -> _Literal | _Glob | _Comparison:
        start = self._at
        while self._at < len(self._text) and self._text[self._at] not in ',|"':
            if self._text[self._at] == ":":
                self._fail("a value without a colon, or one in quotation marks")
            self._at += 1
        text = self._text[start : self._at].rstrip()
        if not text:
            self._at = start
            self._fail('a value; the empty one is ""')
        if compared := _COMPARISON.fullmatch(text):
            bound = _number(compared.group(2).strip())
            if bound is None:
                self._at = start + len(compared.group(1))
                self._fail("a number after the comparison")
            return _Comparison(compared.group(1), bound)
        if "*" in text:
            return _Glob(tuple(text.split("*")))
        return _Literal(text)

    def _take(self, character: str) -> bool:
        if self._text.startswith(character, self._at):
            self._at += 1
            return True
        return False

    def _skip_spaces(self) -> None:
        while self._at < len(self._text) and self._text[self._at] == " ":
            self._at += 1

    def _fail(self, expected: str) -> NoReturn:
        raise InvalidFilter(f"the filter cannot be read at position {self._at}", position=self._at, expected=expected)
