"""Decodes bytes of unknown encoding: by their mark, by the pattern of zeros, by the characters that result. Pure.

A wrong guess would be sent as garbled text, so a file is decoded only where the signs are clear.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

_SNIFF_BYTES = 8192
_CONTROL = re.compile(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f]")
# The mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_MARK_STARTS = {mark[:1] for mark, _ in _MARKS}
_PLAIN = {
    "Lu",
    "Ll",
    "Lt",
    "Lm",
    "Lo",
    "Nd",
    "Zs",
    "Pd",
    "Ps",
    "Pe",
    "Po",
    "Pi",
    "Pf",
    "Sm",
    "Sc",
    "Sk",
    "So",
    "Pc",
    "Mn",
}
BINARY, UNKNOWN = "binary", "encoding not known"


class Decoded(NamedTuple):
    """A decoded text. start: length of the mark in front, in bytes, which is no part of the text."""

    text: str
    encoding: str
    start: int = 0


def decoded(data: bytes) -> Decoded | str:
    """The text, or why there is none: `BINARY` or `UNKNOWN`. A character that is cut at the end is left out."""
    for mark, encoding in _MARKS if data[:1] in _MARK_STARTS else ():
        if data.startswith(mark):
            text = _strict(data[len(mark) :], encoding.removesuffix("-sig"))
            if text is not None:
                return Decoded(text, encoding, len(mark))
            break
    if b"\0" in data[:_SNIFF_BYTES]:
        return _without_mark(data)
    text = _strict(data, "utf-8")
    if text is not None:
        return Decoded(text, "utf-8")
    sample = data[:_SNIFF_BYTES]
    if _CONTROL.search(sample):
        return BINARY
    return _of_eight_bits(data, sample)


def length_of_start(found: Decoded, data: bytes, max_bytes: int) -> int:
    """The number of characters in the first `max_bytes` bytes of a text's file."""
    if len(data) <= max_bytes:
        return len(found.text)
    codec = {"utf-8-sig": "utf-8", "latin-1": "cp1252"}.get(found.encoding, found.encoding)
    return len(data[found.start : max_bytes].decode(codec, "ignore"))


def _strict(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        # Cut in the middle of a character at the size limit: the rest is sound.
        if (error.start >= len(data) - 4 and "end of data" in error.reason) or "truncated" in error.reason:
            try:
                return data[: error.start].decode(encoding)
            except UnicodeDecodeError:
                return None
        return None


def _without_mark(data: bytes) -> Decoded | str:
    """Detect UTF-16 and UTF-32 by the places of zeros: most characters in source code have zero upper bytes."""
    sample = data[: _SNIFF_BYTES // 4 * 4]
    zeros = [sample[place::4].count(0) * 4 / len(sample) for place in range(4)] if len(sample) >= 4 else [0.0] * 4
    for encoding, wide, narrow in (
        ("utf-32-le", (2, 3), (0,)),
        ("utf-32-be", (0, 1), (3,)),
        ("utf-16-le", (1, 3), (0, 2)),
        ("utf-16-be", (0, 2), (1, 3)),
    ):
        if all(zeros[place] > 0.6 for place in wide) and all(zeros[place] < 0.05 for place in narrow):
            text = _strict(data, encoding)
            if text is not None and _is_text(text[:_SNIFF_BYTES]):
                return Decoded(text, encoding)
    return BINARY


def _is_text(sample: str) -> bool:
    plain = sum(char in "\t\n\r\f" or unicodedata.category(char) in _PLAIN for char in sample)
    return plain >= 0.98 * len(sample)


def _of_eight_bits(data: bytes, sample: bytes) -> Decoded | str:
    """Japanese and Korean by their syllables, Western by single letters among ASCII; else it is not known."""
    for encoding, first, last, share in (
        ("euc_jp", "\u3041", "\u30fe", 0.25),
        ("cp932", "\u3041", "\u30fe", 0.25),
        ("euc_kr", "\uac00", "\ud7a3", 0.8),
    ):
        text = _strict(data, encoding)
        if text is not None:
            wide = [char for char in text[:_SNIFF_BYTES] if char > "\x7f"]
            if sum(first <= char <= last for char in wide) > share * len(wide):
                return Decoded(text, "shift_jis" if encoding == "cp932" else encoding)
    high = sum(byte >= 0x80 for byte in sample)
    if high > len(sample) * 0.3:
        return BINARY
    # Letters with accents stand alone among others; in other scripts such bytes come in rows.
    in_rows = sum(
        a >= 0x80 and b >= 0x80 and c >= 0x80 for a, b, c in zip(sample, sample[1:], sample[2:], strict=False)
    )
    if in_rows > high * 0.2:
        return UNKNOWN
    return Decoded(data.decode("cp1252", "replace"), "latin-1")
