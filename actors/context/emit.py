"""The JSON a context is sent as. Files are encoded once, when they are read; an answer is made by joining the pieces.

The only place with the wire names of a context; the caps are counted on what is written here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from ...state.clock import utc_at_clamped
from .file_text import Text, lines_of
from .safe_root import Stamp

OVER_SIZE = "over the size of a file"
_ELLIPSIS_BYTES = 3
_QUOTES = 2  # bytes; a text of none takes them
_ENCODER = msgspec.json.Encoder()


def encode(value: Any) -> bytes:
    """JSON of plain values, compact; times as RFC 3339 with `Z`."""
    return _ENCODER.encode(value)


@lru_cache(maxsize=4096)
def _told_at(seconds: int) -> bytes:
    """A checkout writes thousands of files in a few seconds."""
    return rfc3339(utc_at_clamped(seconds)).encode()


def rfc3339(when: datetime) -> str:
    """Whole seconds and `Z`."""
    return when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Fragment(NamedTuple):
    """One file ready to send, without its closing brace. tag: changes when data does. cut: why it is not whole."""

    data: bytes
    tag: bytes
    cut: str
    redacted: int


def fragment(path: str, language: str, stamp: Stamp, text: Text, *, max_bytes: int, cut: bool) -> Fragment:
    """The file as `relevant_files` has it, its encoded content at most `max_bytes`, cut at the end of a line.

    cut: `text` is only the start of the file.
    """
    body = encode(text.text)
    why = text.without
    if cut or len(body) > max_bytes:
        why = OVER_SIZE
        body = encode(head_that_fits(text.text, max_bytes))
    return _described(path, language, stamp, text, body, cut=why)


def excerpt_fragment(path: str, language: str, stamp: Stamp, text: Text, spans: list[tuple[int, int]]) -> Fragment:
    """Some lines of the file. spans: start and end from 0, end excluded; told from 1, end included."""
    content = encode(excerpt(text.text, spans))
    told = encode([{"start_line": start + 1, "end_line": end} for start, end in spans])
    return _described(path, language, stamp, text, content, cut="excerpts", more=b',"excerpts":' + told)


def excerpt(text: str, spans: list[tuple[int, int]]) -> str:
    """The lines of a text in those spans, each part under a line that says which lines of how many they are."""
    lines = lines_of(text)
    parts = []
    for start, end in spans:
        body = "".join(lines[start:end])
        parts.append(f"--- lines {start + 1}-{end} of {len(lines)} ---\n{body}")
        if not body.endswith("\n"):
            parts.append("\n")
    return "".join(parts)


def _described(
    path: str, language: str, stamp: Stamp, text: Text, content: bytes, *, cut: str, more: bytes = b""
) -> Fragment:
    about = b'"last_modified":"%b","size":%d,"language":%b,"checksum":%b,"truncated":%b' % (
        _told_at(stamp.mtime_ns // 1_000_000_000),
        stamp.size,
        encode(language),
        encode(text.checksum or None),
        b"true" if cut else b"false",
    )
    if text.encoding != "utf-8":
        about += b',"encoding":' + encode(text.encoding)
    if text.redacted:
        about += b',"redacted":%d' % text.redacted
    about += more
    name = encode(path)
    # The checksum stands for the content: to digest every byte once more would take as long as to join them.
    tag = b"%b %d " % (name, len(content)) + about
    if not text.checksum:
        tag += hashlib.blake2b(content, digest_size=16).digest()
    data = b"".join((b'{"path":', name, b',"content":', content, b",", about))
    return Fragment(data, tag, cut, text.redacted)


def head_that_fits(text: str, max_bytes: int) -> str:
    """The longest start of `text`, in whole lines where it has any, that takes at most `max_bytes` as JSON."""
    if max_bytes <= _QUOTES:
        return ""
    keep = len(text)
    while keep and (size := len(encode(text[:keep]))) > max_bytes:
        keep = min(keep - 1, int(keep * max_bytes / size))
        newline = text.rfind("\n", 0, keep)
        if newline > 0:
            keep = newline + 1
    return text[:keep]


def shortened(text: str, max_bytes: int) -> str:
    """`text`, or its start and `…` where it takes more than `max_bytes` as JSON."""
    if len(encode(text)) <= max_bytes:
        return text
    return head_that_fits(text, max_bytes - _ELLIPSIS_BYTES) + "…"


def joined(parts: Sequence[bytes]) -> bytes:
    """A JSON array of values that are JSON already."""
    return b"[" + b",".join(parts) + b"]"


def members(pairs: Sequence[tuple[str, bytes]]) -> bytes:
    """A JSON object, without its closing brace, of values that are JSON already."""
    return b"{" + b",".join(b'"' + name.encode() + b'":' + value for name, value in pairs)


def etag_of(parts: Iterable[bytes]) -> str:
    """Weak: two answers of one tag differ in when they were given. parts: what changes when the answer does."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(b"%d " % len(part))
        digest.update(part)
    return f'W/"{digest.hexdigest()}"'


def finished(core: bytes, *, cache_hit: bool, at: datetime) -> bytes:
    """The whole answer. core: an object without its closing brace, the same for equal input."""
    hit = b"true" if cache_hit else b"false"
    return core + b',"cache_hit":' + hit + b',"timestamp":"' + rfc3339(at).encode() + b'"}'


TAIL_BYTES = len(finished(b"", cache_hit=False, at=datetime(2000, 1, 1, tzinfo=UTC)))
