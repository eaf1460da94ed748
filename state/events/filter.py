"""Event filters: `issue_id:issue-123,status:success` becomes a predicate over events.

    filter      = term *("," term)                  all must hold
    term        = ["!"] alternative *("|" alternative)   one must hold; "!" turns the whole term round
    alternative = [field ":"] value                 without a field: that of the alternative before
    value       = quoted | comparison | glob | literal

Source: the protocol, "Filters". A faulty filter is refused with the position of the fault.

Clients write both filters and events, and the bus evaluates filters in its only thread. So a filter has at most
MAX_ALTERNATIVES, equal ones are merged into sets, and one evaluation looks at no more than MAX_ITEMS items of lists and
searches no more than MAX_GLOB_CHARS characters. What lies beyond does not match.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NoReturn

import msgspec

from ..errors import InvalidFilter
from ..models import Event

MAX_LENGTH = 4096  # characters; what fits in a URL
MAX_ALTERNATIVES = 256  # of all terms together
MAX_FIELD_CHARS = 128  # the canonical form, which each mailbox keeps, repeats the field for each alternative
MAX_ITEMS = 1_000  # of lists, for one event and one filter
MAX_GLOB_CHARS = 256 << 10  # the same; as long as an event may be, so that one glob can look at all of it

_GLOB_CHARS_AT_LEAST = 32  # what one search counts for, however short the text is
_CACHED_CHARS = 256  # longer filters are compiled each time, so that the cache stays small whatever clients send

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
        budget = _Budget()
        # No generators here and below: this runs for every event and filter.
        for term in self.terms:  # noqa: SIM110
            if not term.holds(event, data, budget):
                return False
        return True


class _Budget:
    """The budget that one evaluation has left."""

    __slots__ = ("glob_chars", "items")

    def __init__(self) -> None:
        self.items = MAX_ITEMS
        self.glob_chars = MAX_GLOB_CHARS

    def first_of(self, items: list[Any]) -> list[Any]:
        """The items that may still be looked at."""
        allowed = items if len(items) <= self.items else items[: self.items]
        self.items -= len(allowed)
        return allowed

    def globs(self, globs: tuple[_Glob, ...], text: str) -> tuple[_Glob, ...]:
        """The globs that may still search the text."""
        cost = len(text) + _GLOB_CHARS_AT_LEAST
        allowed = globs[: self.glob_chars // cost]
        self.glob_chars -= cost * len(allowed)
        return allowed


class _Term(msgspec.Struct, frozen=True):
    negated: bool
    fields: tuple[_Field, ...]

    def holds(self, event: Event, data: Any, budget: _Budget) -> bool:
        for field in self.fields:
            if field.holds(event, data, budget):
                return not self.negated
        return self.negated


class _Field(msgspec.Struct, frozen=True):
    """The alternatives of one term for one field; one of them must hold. texts: also the words true, false, null."""

    name: str
    texts: frozenset[str]
    numbers: frozenset[int | float]
    globs: tuple[_Glob, ...]
    comparisons: tuple[_Comparison, ...]

    def holds(self, event: Event, data: Any, budget: _Budget) -> bool:
        found = _look_up(data, self.name)
        if found is _MISSING:
            found = _of_event(event, self.name)
            if found is _MISSING:
                return False
        if type(found) is list:
            return any(self._accepts(item, budget) for item in budget.first_of(found))
        return self._accepts(found, budget)

    def _accepts(self, found: Any, budget: _Budget) -> bool:
        kind = type(found)
        if kind is str:
            return found in self.texts or bool(self.globs and self._globs_accept(found, budget))
        if kind is int or kind is float:
            if found in self.numbers:
                return True
            for comparison in self.comparisons:
                if comparison.accepts(found):
                    return True
            return bool(self.globs and _is_short(found) and self._globs_accept(str(found), budget))
        if found is None or kind is bool:
            return _WORDS[found] in self.texts
        return False

    def _globs_accept(self, text: str, budget: _Budget) -> bool:
        return any(glob.accepts(text) for glob in budget.globs(self.globs, text))


class _Alternative(msgspec.Struct, frozen=True):
    field: str
    value: _Literal | _Glob | _Comparison


class _Literal(msgspec.Struct, frozen=True, tag=True):
    """The value as text; numbers, booleans and null are compared as JSON writes them."""

    text: str

    def __str__(self) -> str:
        if _NEEDS_QUOTES.search(self.text):
            return '"' + self.text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return self.text


class _Glob(msgspec.Struct, frozen=True, tag=True):
    """Parts between the stars, in order: matched in time linear in the text, whatever the pattern."""

    parts: tuple[str, ...]

    def accepts(self, text: str) -> bool:
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
_LONGEST_INT = 300  # digits; nobody uses longer ones, and Python reads and writes them slowly
_LONGEST_INT_BITS = 1000
_WORDS = {True: "true", False: "false", None: "null"}


class _Comparison(msgspec.Struct, frozen=True, tag=True):
    operator: str
    bound: int | float

    def accepts(self, found: float) -> bool:
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


def _is_short(number: object) -> bool:
    return not isinstance(number, int) or number.bit_length() <= _LONGEST_INT_BITS


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


# Fields of an event that a filter cannot name: filters look into `data`, and the protocol lists none of the others.
_NOT_FILTERED = {"data", "ttl_s", "published_at", "traceparent"}
_EVENT_FIELDS = frozenset(Event.__struct_fields__) - _NOT_FILTERED


def _of_event(event: Event, field: str) -> Any:
    return getattr(event, field) if field in _EVENT_FIELDS else _MISSING


def compile_filter(text: str) -> EventFilter:
    """The filter that `text` stands for; "" matches everything.

    Raises InvalidFilter with `position`, the 0-based offset of the fault, and what was expected there.
    """
    return _compile_cached(text) if len(text) <= _CACHED_CHARS else _compile(text)


def _compile(text: str) -> EventFilter:
    if len(text) > MAX_LENGTH:
        raise InvalidFilter(
            f"the filter has {len(text)} characters", position=MAX_LENGTH, expected=f"at most {MAX_LENGTH}"
        )
    if not text.strip():
        return EventFilter("", ())
    texts = dict(_Parser(text).terms())
    canonical = ",".join(sorted(texts))
    return EventFilter(canonical, tuple(texts[key] for key in sorted(texts)))


_compile_cached = lru_cache(maxsize=1024)(_compile)


def _term(alternatives: list[_Alternative], *, negated: bool) -> tuple[str, _Term]:
    """A term with these alternatives, and its canonical text."""
    distinct = {f"{a.field}:{a.value}": a for a in alternatives}
    canonical = ("!" if negated else "") + "|".join(sorted(distinct))
    values: dict[str, list[_Literal | _Glob | _Comparison]] = {}
    for alternative in distinct.values():
        values.setdefault(alternative.field, []).append(alternative.value)
    return canonical, _Term(negated, tuple(_field(name, of_field) for name, of_field in values.items()))


def _field(name: str, values: list[_Literal | _Glob | _Comparison]) -> _Field:
    texts = frozenset(value.text for value in values if isinstance(value, _Literal))
    return _Field(
        name=name,
        texts=texts,
        numbers=frozenset(number for text in texts if (number := _number(text)) is not None),
        globs=tuple(value for value in values if isinstance(value, _Glob)),
        comparisons=_weakest(value for value in values if isinstance(value, _Comparison)),
    )


def _weakest(comparisons: Iterable[_Comparison]) -> tuple[_Comparison, ...]:
    """Of each operator the comparison that every number passes which passes another one of that operator."""
    weakest: dict[str, _Comparison] = {}
    for comparison in comparisons:
        known = weakest.get(comparison.operator)
        # The stronger bound passes the weaker comparison: of a:>1|>5 the 5 passes >1.
        if known is None or _COMPARE[comparison.operator](known.bound, comparison.bound):
            weakest[comparison.operator] = comparison
    return tuple(weakest.values())


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._alternatives = 0

    def terms(self) -> list[tuple[str, _Term]]:
        """Each with its canonical text."""
        terms = [self._term()]
        while self._take(","):
            terms.append(self._term())
        if self._at < len(self._text):
            self._fail('"," or "|" before the next term')
        return terms

    def _term(self) -> tuple[str, _Term]:
        self._skip_spaces()
        negated = self._take("!")
        alternatives = [self._alternative(None)]
        while self._take("|"):
            alternatives.append(self._alternative(alternatives[-1].field))
        return _term(alternatives, negated=negated)

    def _alternative(self, field: str | None) -> _Alternative:
        self._skip_spaces()
        self._alternatives += 1
        if self._alternatives > MAX_ALTERNATIVES:
            self._fail(f"at most {MAX_ALTERNATIVES} terms and alternatives in all")
        named = _FIELD.match(self._text, self._at)
        if named and self._text.startswith(":", named.end()):
            if len(named.group()) > MAX_FIELD_CHARS:
                self._fail(f"a field name of at most {MAX_FIELD_CHARS} characters")
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
