"""Turns a file's bytes into text without secrets, or into a reason not to send them. Pure."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from .encodings import decoded, length_of_start
from .notebooks import cells_of
from .secrets.clean_contents import CleanContents
from .secrets.redaction import MARGIN_CHARS, redact_start

_LONG_LINE = 5000  # longer lines are written by programs, for programs
_SHOWN_OF_LONG_LINE = 120
_LEAST_BESIDE_LONG_LINES = 200  # characters; with less the file is a program's output and nothing else
_LONG_LINES, WITHOUT_OUTPUTS = "long lines", "outputs of cells"
_MOST_OF_A_NOTEBOOK = 4 << 20  # bytes; most of them are outputs
_NOTEBOOK = ".ipynb"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_clean = CleanContents()


class Unsent(NamedTuple):
    """A file whose content is not sent, and why, in a word or two."""

    reason: str


class Text(NamedTuple):
    """A file's text. encoding: of its bytes; redacted: how many secrets were taken out; checksum: of all bytes.

    without: the kind of content that was left out, `long lines` or `outputs of cells`; empty if the text is whole.
    """

    text: str
    encoding: str
    redacted: int
    checksum: str
    without: str = ""


class RawText(NamedTuple):
    """A text with its secrets still in it, for indexing, never for sending. length: how much of it may be sent."""

    text: str
    encoding: str
    without: str
    length: int


def read_text(data: bytes, *, path: str = "", named: bool = False, max_bytes: int | None = None) -> Text | Unsent:
    """The text of a file's bytes, or why it has none.

    named: the agent asked for this very file; then it is sent as it is, long lines and all. max_bytes: no more of the
    bytes are sent; what is beyond serves to see secrets that would be cut.
    """
    found = raw_text(data, path=path, named=named, max_bytes=max_bytes)
    if isinstance(found, Unsent):
        return found
    checksum = hashlib.sha256(data)
    read_as = b"cells" if path.endswith(_NOTEBOOK) and not named else b"text"
    clean, redacted = _redacted(found, checksum.digest() + found.length.to_bytes(8) + read_as)
    if found.without == _LONG_LINES:  # only now: a secret in one may be longer than what is shown
        clean = _without_long_lines(clean)
    return Text(clean, found.encoding, redacted, "sha256:" + checksum.hexdigest(), found.without)


def _redacted(found: RawText, key: bytes) -> tuple[str, int]:
    """The text without secrets, and how many there were. key: all that the raw text depends on."""
    if key in _clean:
        return found.text[: found.length], 0
    clean, redacted = redact_start(found.text, found.length)
    if not redacted and clean == found.text[: found.length]:
        _clean.add(key)
    return clean, redacted


def bytes_to_read(path: str, max_bytes: int) -> int:
    """How much of a file to read in order to send `max_bytes` of it."""
    return max(max_bytes + MARGIN_CHARS, _MOST_OF_A_NOTEBOOK if path.endswith(_NOTEBOOK) else 0)


def raw_text(data: bytes, *, path: str = "", named: bool = False, max_bytes: int | None = None) -> RawText | Unsent:
    """The text with its secrets still in it."""
    if data.startswith(_LFS_POINTER):
        return Unsent("lfs pointer")
    found = decoded(data)
    if isinstance(found, str):
        return Unsent(found)
    text, without = found.text, ""
    length = len(text) if max_bytes is None else length_of_start(found, data, max_bytes)
    if not named:
        if path.endswith(_NOTEBOOK) and (cells := cells_of(text)) is not None:
            text, without, length = cells, WITHOUT_OUTPUTS, min(len(cells), max_bytes or len(cells))
        if has_long_line(text):
            if len(_without_long_lines(text[:length]).strip()) < _LEAST_BESIDE_LONG_LINES:
                return Unsent("minified")
            without = _LONG_LINES
    return RawText(text, found.encoding, without, length)


def lines_of(text: str) -> list[str]:
    """The lines of a text with their ends, as git and editors count them (`splitlines` knows a dozen other ends)."""
    lines = text.split("\n")
    last = lines.pop()
    return [line + "\n" for line in lines] + ([last] if last else [])


def has_long_line(text: str) -> bool:
    """Whether some line is longer than people write."""
    at = -1
    while len(text) - at - 1 > _LONG_LINE:
        # From one end of a line to the last one within reach: most text is never looked at.
        end = text.rfind("\n", at + 1, at + 2 + _LONG_LINE)
        if end < 0:
            return True
        at = end
    return False


def _without_long_lines(text: str) -> str:
    """Replace each long line with its start and its length, so that line numbers stay right."""
    return "\n".join(
        line if len(line) <= _LONG_LINE else f"{line[:_SHOWN_OF_LONG_LINE]} [{len(line):,} characters in this line]"
        for line in text.split("\n")
    )
