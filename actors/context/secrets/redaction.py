"""Takes secrets out of any text that leaves: contents, commit messages, earlier outputs, names, quoted output.

One pass of one expression tells the few parts of a text where a secret may be; one pass of all marks over these tells
which kinds; only their expressions are looked for there. An entropy scanner over every word would take minutes.

See docs/security.md, "Secrets in texts and names".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ahocorasick_rs import BytesAhoCorasick, Implementation

from ....state.linear import Linear
from .rules import RULES, URL_PASSWORD, URL_TOKEN, Rule, hint_of_all
from .values import is_token_of_user

# A text is cut before it is searched, but this much beyond the cut is searched, too. No secret is longer, so none is
# sent in part.
MARGIN_CHARS = 16 * 1024

_BEGIN = Linear(rb"-{4,5} ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,12}-{4,5}")
_END = Linear(rb"-{4,5} ?END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,12}-{4,5}")
_END_ALONE = Linear(
    rb"(?:[A-Za-z0-9+/=]{20,}\s+)+(?:[A-Za-z0-9+/=]+\s+)?-{4,5} ?END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,12}-{4,5}"
)
_KEY_BODY = Linear(rb"[A-Za-z0-9+/=\s\\:,.\"'`\-]*")
# The same in a comment, a quotation or a diff.
_KEY_LINES = Linear(rb"[^\n]{0,8}(?:\n[^\nA-Za-z0-9+/=]{0,8}[A-Za-z0-9+/=]{16,}[^\nA-Za-z0-9+/=]{0,8})+")
_MOST_OF_A_KEY = 16 * 1024  # bytes; of RSA with 16,384 bits it is 12.5 KB
_SCHEME_ENDS = (b"://", rb":\/\/", b"%3A%2F%2F")  # also as JSON and URLs may write it
_URLS, _PRIVATE_KEYS = -2, -1  # in the place of a rule's number
_NEAR = 2048  # bytes; no rule's mark is farther from where its hint begins
_STRIDE = 64  # bytes
_PIECE = 64 * 1024  # bytes looked at in one go
_MOST_OF_A_USER = 1024  # bytes of a URL before its host
_MOST_OF_A_NAME = 100  # characters of a name in JSON
_COST_OF_A_STRING = 32  # characters that are looked through in the time that one more string takes
_REST = Linear(rb"[^\s\"'`<>;,]*")


class _Span(NamedTuple):
    start: int
    end: int
    kind: str


class _Marks:
    """All marks of all rules, looked for in one pass over the parts of a text where a secret may be."""

    def __init__(self) -> None:
        rules_of: dict[bytes, list[int]] = {b"PRIVATE KEY": [_PRIVATE_KEYS]} | {end: [_URLS] for end in _SCHEME_ENDS}
        for place, rule in enumerate(RULES):
            for mark in rule.marks:
                rules_of.setdefault(mark.encode(), []).append(place)
        self._rules_of = [tuple(places) for places in rules_of.values()]
        self._next_bytes = [
            frozenset(b"".join(RULES[place].next_byte for place in places if place >= 0)) for places in self._rules_of
        ]
        # As a table of states it reads 370 MB a second; the library's own choice for so many reads a quarter of that.
        self._looked_for = BytesAhoCorasick(list(rules_of), implementation=Implementation.DFA)
        self._longest = max(map(len, rules_of))

    def found_in(self, data: bytes, parts: list[tuple[int, int]]) -> dict[int, list[tuple[int, int]]]:
        """Rule -> start and end of its marks, in order.

        Of marks that follow each other closely only one in `_STRIDE` bytes counts; see `_windows`.
        """
        found: dict[int, list[tuple[int, int]]] = {}
        counts_from = [0] * len(self._rules_of)
        for begin, until in self._pieces(parts):
            for mark, start, end in self._looked_for.find_matches_as_indexes(data[begin:until], overlapping=True):
                if begin + start < counts_from[mark]:
                    continue
                allowed = self._next_bytes[mark]
                if allowed and (begin + end >= len(data) or data[begin + end] not in allowed):
                    continue
                counts_from[mark] = begin + start + _STRIDE
                for place in self._rules_of[mark]:
                    found.setdefault(place, []).append((begin + start, begin + end))
        return found

    def _pieces(self, parts: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """The parts in pieces, so that other threads go on in between. A mark that ends a piece begins the next."""
        for begin, until in parts:
            for at in range(begin, until, _PIECE):
                yield max(begin, at - self._longest + 1), min(until, at + _PIECE)


@lru_cache(maxsize=1)
def _marks() -> _Marks:
    return _Marks()


@lru_cache(maxsize=1)
def _hint() -> Linear[bytes]:
    """Found in every text with a secret, and in few others."""
    return Linear(hint_of_all().encode(), groups=False)


def _parts_with_hints(data: bytes) -> list[tuple[int, int]]:
    """The parts of a text in which secrets and their marks may be; mostly there is none."""
    parts: list[tuple[int, int]] = []
    at, hint = 0, _hint()
    while at < len(data) and (match := hint.first_in(data, at)) is not None:
        at = match[1] + _NEAR
        begin, until = max(0, match[0] - 2 * _NEAR), min(len(data), at + _NEAR)
        if parts and begin <= parts[-1][1]:
            begin = parts.pop()[0]
        parts.append((begin, until))
    return parts


@lru_cache(maxsize=len(RULES) + 2)
def _expression(rule: Rule) -> Linear[bytes]:
    return Linear(rule.expression.encode())


def prepare() -> None:
    """Make what the first text would wait for: the expression of all hints, and the table of marks.

    Each rule has its expression made when a text has one of its marks.
    """
    _hint().is_in(b"")
    _marks()


def redact(text: str) -> tuple[str, int]:
    """`text` with every known secret replaced by `[REDACTED:kind]`, and how many there were."""
    return redact_start(text, len(text))


def redact_start(text: str, length: int) -> tuple[str, int]:
    """The first `length` characters of a text without secrets, also without one that goes on beyond them."""
    text = text[: length + MARGIN_CHARS]
    data = text.encode("utf-8", "surrogatepass")
    spans = _spans_in(data)
    if not spans:
        return text[:length], 0
    end = len(data) if length >= len(text) else len(text[:length].encode("utf-8", "surrogatepass"))
    parts: list[bytes] = []
    at = count = 0
    for span in spans:
        if span.start >= end:
            break
        # As many lines as before, so that line numbers below still hold.
        lines = data.count(b"\n", span.start, span.end)
        parts += (data[at : span.start], f"[REDACTED:{span.kind}]".encode(), b"\n" * lines)
        at, count = span.end, count + 1
    parts.append(data[at:end])
    return b"".join(parts).decode("utf-8", "surrogatepass"), count


def _spans_in(data: bytes) -> list[_Span]:
    """Where secrets are, in order, none within another."""
    parts = _parts_with_hints(data)
    if not parts:
        return []
    met = _marks().found_in(data, parts)
    found: list[tuple[int, int, int, str]] = []
    for place, marks in met.items():
        if place == _PRIVATE_KEYS:
            found += [(start, place, end, "private-key") for start, end in _private_keys(data)]
        elif place == _URLS:
            found += [(start, place, end, URL_PASSWORD.kind) for start, end in _in_urls(data, marks)]
        else:
            found += [(start, place, end, RULES[place].kind) for start, end in _of_rule(RULES[place], data, marks)]
    spans: list[_Span] = []
    for start, _, end, kind in sorted(found):
        if spans and start < spans[-1].end:
            spans[-1] = spans[-1]._replace(end=max(end, spans[-1].end))
        else:
            spans.append(_Span(start, end, kind))
    return spans


def _of_rule(rule: Rule, data: bytes, marks: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where an expression matches around its marks. Each part of the text is looked at once, however many there are."""
    found: list[tuple[int, int]] = []
    expression, done = _expression(rule), 0
    for begin, end in _windows(rule, marks):
        for span in expression.spans_in(data, max(begin, done), end):
            start, done = span
            if done >= end:
                done = _REST.end_from(data, done)  # longer than was looked at
            if rule.is_one is None or rule.is_one(data[start:done].decode("utf-8", "replace")):
                found.append((start, done))
    return found


def _windows(rule: Rule, marks: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where to look, overlapping windows joined. The last may reach beyond the text.

    Within `_STRIDE` bytes behind a mark there may be more of them.
    """
    windows: list[tuple[int, int]] = []
    before, after = rule.before, _STRIDE + rule.after
    for start, end in marks:
        begin, until = start - before, end + after
        if windows and begin <= windows[-1][1]:
            windows[-1] = (windows[-1][0], until if until > windows[-1][1] else windows[-1][1])
        else:
            windows.append((begin if begin > 0 else 0, until))
    return windows


def _in_urls(data: bytes, marks: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Passwords and tokens before the host; most URLs have no `@` there, which is soon seen."""
    signed = []
    for start, end in marks:
        at = data.find(b"@", end, end + _MOST_OF_A_USER)
        if at >= 0 and data.find(b"/", end, at) < 0:
            signed.append((start, end))
    if not signed:
        return []
    return [*_of_rule(URL_PASSWORD, data, signed), *_of_rule(URL_TOKEN, data, signed)]


def _private_keys(data: bytes) -> list[tuple[int, int]]:
    """From each beginning to its end; where that is missing or far, as long as it looks like a key.

    Of one whose beginning was cut off, the lines before its end.
    """
    ends = [end for _, end in _END.spans_in(data)]
    found: list[tuple[int, int]] = _END_ALONE.spans_in(data) if ends else []
    done = 0
    for start, after in _BEGIN.spans_in(data):
        if start < done:
            continue
        place = bisect_left(ends, after)
        if place < len(ends) and ends[place] - start <= _MOST_OF_A_KEY:
            done = ends[place]
        else:
            done = max(_KEY_BODY.end_from(data, after), _KEY_LINES.end_from(data, after))
        found.append((start, done))
    return found


def are_clean(texts: Iterable[str]) -> bool:
    """Whether there is no secret in any of the texts. One pass over all of them costs less than one over each."""
    return not _spans_in("\n".join(texts).encode("utf-8", "surrogatepass"))


def redact_names(names: Sequence[str]) -> list[str]:
    """Names of files without the secrets in them."""
    return list(names) if are_clean(names) else [redact(name)[0] for name in names]


class JsonRedaction:
    """Takes secrets out of JSON values, and cuts what is more than `max_chars` of text in all of them together.

    count: the secrets so far.
    """

    def __init__(self, max_chars: int) -> None:
        self._room = max_chars
        self.count = 0

    def clean(self, value: Any) -> Any:
        """The value with every string in it redacted, keys too."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self.clean(item) for item in value if self._room > 0]
        if isinstance(value, dict):
            return {self._text(key): self._valued(key, item) for key, item in value.items() if self._room > 0}
        self._room -= 1
        return value

    def _valued(self, key: str, value: Any) -> Any:
        """Redact a value behind its name: many a password is one only because of the name in front of it."""
        if not isinstance(value, str):
            return self.clean(value)
        name = f'"{key[-_MOST_OF_A_NAME:]}": "'
        length = len(name) + min(len(value), max(0, self._room))
        clean, found = redact_start(f'{name}{value}"', length)
        if not found or not clean.startswith(name):
            return self._text(value)
        self.count += found
        self._room -= len(value) + _COST_OF_A_STRING
        return clean[len(name) :]

    def _text(self, text: str) -> str:
        clean, found = redact_start(text, min(len(text), max(0, self._room)))
        self.count += found
        self._room -= len(text) + _COST_OF_A_STRING
        return clean


def without_credentials(url: str) -> str | None:
    """A remote's URL without user, password and query; `git@host:path` has none and stays.

    None for a path of this machine.
    """
    if url.startswith(("/", ".", "~", "file:")) or "::" in url:
        return None
    scheme, mark, rest = url.partition("://")
    if mark:
        rest = rest.partition("#")[0].partition("?")[0]  # a token may stand in the query; git needs none of it
        host, slash, path = rest.partition("/")
        return redact(scheme + mark + host.rpartition("@")[2] + slash + path)[0]
    user, at, path = url.partition("@")
    return redact(path if at and is_token_of_user(user) else url)[0]
