"""One line of a journal: `["crc32",seq,synced,left,record]`, valid JSON, checked to the last bit.

seq: the record's number, without gaps from 1; 0 for the journal's own lines (a header, a mark, a footer).
synced: the last record that was known to be on the disk when the line was written: see recovery.
left: how many records of the same transaction follow; a transaction counts as a whole or not at all.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Literal

import msgspec

VERSION = 1
OWN = 0  # the seq of the journal's own lines

_PREFIX = re.compile(rb'\["([0-9a-f]{8})",(\d+),(\d+),(\d+),').match
_BOOT = re.compile(rb'\{"boot":"([0-9a-zA-Z-]+)"\}')
_CHECKED_FROM = len('["01234567",')
# Where a line may begin in bytes that are damaged: after a newline, or after one that has lost its newline to a
# flipped bit. No JSON has `]`, one byte that is neither comma nor space, and then `["`, so no agent can forge it.
_BEGINNING = re.compile(rb'(?:\A|(?<=\n)|(?<=\][^\n, \t\r]))(?=\["[0-9a-f]{8}",\d)')


class Line(msgspec.Struct, frozen=True):
    """A line that was read. See the module for its fields."""

    seq: int
    synced: int
    left: int
    record: bytes


class Entry(msgspec.Struct, frozen=True):
    """One committed record. seq: rises by one; in a snapshot it may repeat and skip."""

    seq: int
    record: bytes


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """First line of a file. at: a segment's first record; the newest record that a snapshot stands for.

    This line keeps its form and its checksum in every version, so that an older program can say what it met.
    """

    kind: Literal["segment", "snapshot"]
    at: int
    format: Literal["sidecar-journal"] = "sidecar-journal"
    version: int = VERSION


class Footer(msgspec.Struct, frozen=True):
    """Last line of a snapshot: how many records it has."""

    count: int


def encode(seq: int, synced: int, left: int, record: bytes) -> bytes:
    """The line with its newline. record: one JSON value."""
    if b"\n" in record:
        record = record.replace(b"\n", b" ")  # in JSON a raw newline is only ever white space
    checked = b"%d,%d,%d,%b]" % (seq, synced, left, record)
    return b'["%08x",%b\n' % (zlib.crc32(checked), checked)


def parse(line: bytes) -> Line | None:
    """Parse a whole line with its newline; None if a single bit of it has changed."""
    prefix = _PREFIX(line)
    if prefix is None or line[-2:] != b"]\n":
        return None
    crc, seq, synced, left = prefix.groups()
    # int() would take capitals and underscores for a checksum too; the pattern does not.
    if int(crc, 16) != zlib.crc32(line[_CHECKED_FROM:-1]):
        return None
    return Line(int(seq), int(synced), int(left), line[prefix.end() : -2])


def mark(synced: int) -> bytes:
    """A line that only says what is known to be on the disk."""
    return encode(OWN, synced, 0, b"null")


def boot_mark(synced: int, boot: str) -> bytes:
    """A mark that also names the boot of the machine in which the lines that follow are written.

    It is written twice, so that one damaged bit cannot take it away. Empty for no name.
    """
    return 2 * encode(OWN, synced, 0, b'{"boot":"%b"}' % boot.encode("ascii")) if boot else b""


def boot_of(line: Line) -> str | None:
    """The boot that a line of the journal itself names, or None."""
    found = _BOOT.fullmatch(line.record)
    return found[1].decode("ascii") if found is not None else None


def find_lines(damaged: bytes) -> Iterator[Line]:
    """Every sound line in bytes of which some are damaged."""
    for beginning in _BEGINNING.finditer(damaged):
        start = beginning.start()
        end = damaged.find(b"\n", start) + 1
        line = parse(damaged[start:end]) if end else None
        if line is not None:
            yield line
