"""The JSON a context is sent as. Files are encoded once, when they are read; an answer is made by joining the pieces.

The only place with the wire names of a context; the caps are counted on what is written here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from .facts import Text, lines_of
from .rooted import Stamp

_ENCODER = msgspec.json.Encoder()


def encode(value: Any) -> bytes:
    """JSON of plain values, compact; times as RFC 3339 with `Z`."""
    return _ENCODER.encode(value)


def rfc3339(when: datetime) -> str:
    """Whole seconds and `Z`."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Fragment(NamedTuple):
    """One file ready to send, without its closing brace. is_whole: nothing of it was cut. size: of the file."""

    data: bytes
    is_whole: bool
    size: int
    redacted: int


def fragment(path: str, language: str, stamp: Stamp, text: Text, *, max_bytes: int, cut: bool) -> Fragment:
    """The file as `relevant_files` has it, its encoded content at most `max_bytes`, cut at the end of a line.

    cut: `text` is only the start of the file.
    """
    body = encode(text.text)
    is_whole = not cut and len(body) <= max_bytes
    if not is_whole:
        body = encode(head_that_fits(text.text, max_bytes))
    return Fragment(
        _described(path, language, stamp, text, body, truncated=not is_whole), is_whole, stamp.size, text.redacted
    )


def excerpt_fragment(path: str, language: str, stamp: Stamp, text: Text, spans: list[tuple[int, int]]) -> Fragment:
    """Some lines of the file. spans: start and end from 0, end excluded; told from 1, end included."""
    content = encode(excerpt(text.text, spans))
    data = _described(path, language, stamp, text, content, truncated=True)
    told = [{"start_line": start + 1, "end_line": end} for start, end in spans]
    return Fragment(data + b',"excerpts":' + encode(told), False, stamp.size, text.redacted)


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


def _described(path: str, language: str, stamp: Stamp, text: Text, content: bytes, *, truncated: bool) -> bytes:
    modified = datetime.fromtimestamp(stamp.mtime_ns // 1_000_000_000, UTC)
    about: dict[str, Any] = {
        "last_modified": rfc3339(modified),
        "size": stamp.size,
        "language": language,
        "checksum": text.checksum or None,
        "truncated": truncated,
    }
    if text.encoding != "utf-8":
        about["encoding"] = text.encoding
    if text.redacted:
        about["redacted"] = text.redacted
    return b'{"path":' + encode(path) + b',"content":' + content + b"," + encode(about)[1:-1]


def head_that_fits(text: str, max_bytes: int) -> str:
    """The longest start of `text`, in whole lines where it has any, that takes at most `max_bytes` as JSON."""
    keep = len(text)
    while keep and (size := len(encode(text[:keep]))) > max_bytes:
        keep = min(keep - 1, int(keep * max_bytes / size))
        newline = text.rfind("\n", 0, keep)
        if newline > 0:
            keep = newline + 1
    return text[:keep]


def joined(parts: Sequence[bytes]) -> bytes:
    """A JSON array of values that are JSON already."""
    return b"[" + b",".join(parts) + b"]"


def members(pairs: Sequence[tuple[str, bytes]]) -> bytes:
    """A JSON object, without its closing brace, of values that are JSON already."""
    return b"{" + b",".join(b'"' + name.encode() + b'":' + value for name, value in pairs)


def etag_of(core: bytes) -> str:
    """Weak: two answers of one tag differ in when they were given."""
    return f'W/"{hashlib.blake2b(core, digest_size=16).hexdigest()}"'


def finished(core: bytes, *, cache_hit: bool, at: datetime) -> bytes:
    """The whole answer. core: an object without its closing brace, the same for equal input."""
    hit = b"true" if cache_hit else b"false"
    return core + b',"cache_hit":' + hit + b',"timestamp":"' + rfc3339(at).encode() + b'"}'


TAIL_BYTES = len(finished(b"", cache_hit=False, at=datetime(2000, 1, 1, tzinfo=UTC)))
