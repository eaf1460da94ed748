"""What a file's bytes are: text in some encoding with its secrets taken out, or a reason not to send them. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from .secrets import redact

_SNIFF_BYTES = 8192
_MINIFIED_LINE = 5000  # longer lines are written by programs, for programs
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_CONTROL = re.compile(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f]")
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_BOM_STARTS = {bom[:1] for bom, _ in _BOMS}


class Unsent(NamedTuple):
    """A file whose content is not sent, and why, in a word or two."""

    reason: str


class Text(NamedTuple):
    """A file's text. encoding: of its bytes; redacted: how many secrets were taken out; checksum: of all bytes."""

    text: str
    encoding: str
    redacted: int
    checksum: str


def read_text(data: bytes, *, named: bool = False) -> Text | Unsent:
    """The text of a file's bytes, or why it has none.

    named: the agent asked for this very file; then a minified file counts as text.
    """
    found = raw_text(data, named=named)
    if isinstance(found, Unsent):
        return found
    clean, redacted = redact(found[0])
    return Text(clean, found[1], redacted, "sha256:" + hashlib.sha256(data).hexdigest())


def raw_text(data: bytes, *, named: bool = False) -> tuple[str, str] | Unsent:
    """The text with its secrets still in it, and its encoding; for indexing, never for sending."""
    if data.startswith(_LFS_POINTER):
        return Unsent("lfs pointer")
    decoded = _decode(data)
    if decoded is None:
        return Unsent("binary")
    text, encoding = decoded
    if not named and _is_minified(text):
        return Unsent("minified")
    return text, encoding


def lines_of(text: str) -> list[str]:
    """The lines of a text with their ends, as git and editors count them (`splitlines` knows a dozen other ends)."""
    lines = text.split("\n")
    last = lines.pop()
    return [line + "\n" for line in lines] + ([last] if last else [])


def _decode(data: bytes) -> tuple[str, str] | None:
    for bom, encoding in _BOMS if data[:1] in _BOM_STARTS else ():
        if data.startswith(bom):
            try:
                return data[0 if encoding == "utf-8-sig" else 2 :].decode(encoding), encoding
            except UnicodeDecodeError:
                break
    if b"\0" in data[:_SNIFF_BYTES]:
        return None
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        # Cut in the middle of a character at the size limit: the rest is sound.
        if error.reason == "unexpected end of data" and error.start >= len(data) - 4:
            return data[: error.start].decode("utf-8"), "utf-8"
    sample = data[:_SNIFF_BYTES]
    high = sum(byte >= 0x80 for byte in sample)
    if _CONTROL.search(sample) or high > len(sample) * 0.3:
        return None
    return data.decode("cp1252", "replace"), "latin-1"


def _is_minified(text: str) -> bool:
    at = -1
    while len(text) - at - 1 > _MINIFIED_LINE:
        # From one end of a line to the last one within reach: most text is never looked at.
        end = text.rfind("\n", at + 1, at + 2 + _MINIFIED_LINE)
        if end < 0:
            return max(map(len, text.split("\n"))) > len(text) * 0.1
        at = end
    return False
