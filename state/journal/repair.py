"""Cuts damaged records out of a journal when an operator asks for it: `sidecar doctor --repair`.

The sound records, before and after the damage, become one snapshot. The old journal stays next to it, byte for byte.
Only the rename of the snapshot changes the journal, so a crash at any moment leaves either the old or the new one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from .files import (
    LOCK,
    NEWEST,
    REPAIR_COPY,
    read_newest,
    segment_path,
    segments,
    snapshot_path,
    snapshots,
    write_snapshot,
)
from .fs import PRIVATE_DIRECTORY, RealFs
from .lines import OWN, Entry, Line, find_lines


class Repair(msgspec.Struct, frozen=True, kw_only=True):
    """kept: records. lost: ranges of record numbers, both ends included, that could not be kept whole.

    copy: where every file lies as it was.
    """

    kept: int
    lost: tuple[tuple[int, int], ...]
    copy: str


class _Salvage(NamedTuple):
    entries: list[Entry]
    lost: list[tuple[int, int]]
    last_seq: int


def repair_journal(directory: Path, *, now: datetime) -> Repair:
    """Keep every whole transaction that can be read, lose the rest, keep a copy. Raises StorageInUse, OSError.

    A record of a snapshot that cannot be read is lost without a number: it is not in `lost`.
    """
    fs = RealFs()
    lock = fs.lock(directory / LOCK)
    try:
        salvage = _salvage(directory)
        copy = directory / f"{REPAIR_COPY}{now:%Y%m%dT%H%M%S%f}"
        copy.mkdir(PRIVATE_DIRECTORY)
        old = [directory / name for name in fs.names(directory) if name.endswith((".jsonl", ".tmp"))]
        for path in old:
            os.link(path, copy / path.name)
        fs.sync_directory(copy)
        fs.sync_directory(directory)
        write_snapshot(fs, directory, salvage.last_seq, salvage.entries)
        (directory / NEWEST).unlink(missing_ok=True)  # it may name a file that is gone for good
        kept = snapshot_path(directory, salvage.last_seq)
        for path in old:
            if path != kept:
                path.unlink(missing_ok=True)
        fs.sync_directory(directory)
    finally:
        lock.release()
    return Repair(kept=len(salvage.entries), lost=tuple(salvage.lost), copy=str(copy))


def _salvage(directory: Path) -> _Salvage:
    names = RealFs().names(directory)
    taken = snapshots(names)
    at = taken[-1] if taken else 0
    entries: list[Entry] = []
    if taken:
        entries = [Entry(line.seq, line.record) for line in _lines(snapshot_path(directory, at)) if line.seq != OWN]
    firsts = [first for first in segments(names) if first > at]
    lost: list[tuple[int, int]] = []
    last_seq = at
    for entry in _whole_transactions(line for first in firsts for line in _lines(segment_path(directory, first))):
        if entry.seq <= last_seq:
            continue  # a second time: the first one stands
        if entry.seq > last_seq + 1:
            lost.append((last_seq + 1, entry.seq - 1))
        entries.append(entry)
        last_seq = entry.seq
    # The snapshot stands for every record there ever was a trace of, so that no number is given twice.
    newest = read_newest(RealFs(), directory, names)
    end = max([last_seq, *(first - 1 for first in firsts), *_numbers_seen(directory, firsts), newest, 1])
    if end > last_seq and (firsts or newest):
        lost.append((last_seq + 1, end))
    return _Salvage(entries, lost, end)


def _numbers_seen(directory: Path, firsts: list[int]) -> Iterator[int]:
    for first in firsts:
        for line in _lines(segment_path(directory, first)):
            yield max(line.seq, line.synced)


def _lines(path: Path) -> Iterator[Line]:
    return find_lines(path.read_bytes())


def _whole_transactions(lines: Iterator[Line]) -> Iterator[Entry]:
    transaction: list[Line] = []
    for line in lines:
        if line.seq == OWN:
            continue
        if transaction and (line.seq, line.left) != (transaction[-1].seq + 1, transaction[-1].left - 1):
            transaction.clear()  # a part of it is missing
        transaction.append(line)
        if line.left == 0:
            yield from (Entry(one.seq, one.record) for one in transaction)
            transaction.clear()
