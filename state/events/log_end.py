"""Keeps the newest event id next to the event log, so that opening the log shows a loss.

A few bytes that are overwritten with each commit. After kill -9 they are exact. After a power loss they may be as old
as the end of the log; that there was one shows by the machine's boot id.

See docs/guarantees.md, "A log that lost its newest events".
"""

from __future__ import annotations

import logging
import os
import re
import zlib
from pathlib import Path

import msgspec

from ..journal.fs import PRIVATE_FILE, RealFs

log = logging.getLogger(__name__)

_TEXT = re.compile(rb"([0-9]{16}) ([0-9]{16}) ([01]) ([!-~]{1,64}) ([0-9a-f]{8})\n")


class KnownEnd(msgspec.Struct, frozen=True, kw_only=True):
    """number: of the newest id that was given; seq: of its record. boot_id: of the machine's run in which that was.

    is_closed: the log was closed after that, with everything on the disk.
    """

    number: int
    seq: int
    is_closed: bool
    boot_id: str


def this_boot() -> str:
    """Names this run of the machine; the same text each time where the system does not tell."""
    return RealFs().boot() or "unknown"


class LogEnd:
    """The file. known: its content when it was opened; None if that is not valid. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        self._path = path
        self._boot_id = this_boot()
        self._can_write = True
        self.known = _read(os.pread(self._descriptor, 256, 0))

    def note(self, number: int, seq: int, *, is_closed: bool = False) -> None:
        """Write the newest event's id and record."""
        text = b"%016d %016d %d %b" % (number, seq, is_closed, self._boot_id.encode())
        try:
            os.pwrite(self._descriptor, b"%b %08x\n" % (text, zlib.crc32(text)), 0)
        except OSError as error:
            if self._can_write:  # once: the log itself tells who publishes that its disk is full
                log.warning("end of the event log not noted file=%s: %s", self._path, error)
            self._can_write = False
        else:
            self._can_write = True

    def close(self) -> None:
        os.close(self._descriptor)


def _read(text: bytes) -> KnownEnd | None:
    match = _TEXT.match(text)
    if match is None or zlib.crc32(text[: match.start(5) - 1]) != int(match[5], 16):
        return None
    number, seq, is_closed, boot_id, _ = match.groups()
    return KnownEnd(number=int(number), seq=int(seq), is_closed=is_closed == b"1", boot_id=boot_id.decode())
