"""AuditLog: the audit trail on a journal. Only ever appended to; nothing of it is dropped, compacted or rewritten."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from .audit import Act, AuditRecord, ChainCheck, ChainHead, digest_of, link, verify
from .errors import NotFound, StorageDamaged
from .journal.fs import Fs, RealFs
from .journal.journal import Journal
from .journal.recovery import find
from .typed import decode

log = logging.getLogger(__name__)

DIRECTORY = "audit"  # of the storage directory
RECENT = 10_000  # records that are shown without reading the disk; a few megabytes


class AuditLog:
    """One thread appends; `recent` may be read by any."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._recent: deque[AuditRecord] = deque(maxlen=RECENT)
        raws = [entry.record for entry in journal.entries()]
        verdict = verify(raws)
        if verdict.fault is not None:
            # To go on is better than not to record; every verification will say the same.
            log.critical("audit trail is broken directory=%s: %s", journal.directory, verdict.fault)
        self._head = ChainHead(len(raws), digest_of(raws[-1])) if raws else ChainHead()
        for raw in raws[-RECENT:]:
            try:
                self._recent.append(decode(raw, AuditRecord))
            except (msgspec.DecodeError, UnicodeDecodeError):
                log.warning("audit record cannot be shown directory=%s", journal.directory)

    @classmethod
    def open(cls, storage: Path, *, fs: Fs | None = None) -> AuditLog:
        """The trail of a storage directory. Raises what Journal.open raises."""
        return cls(Journal.open(storage / DIRECTORY, fs=fs))

    @property
    def head(self) -> ChainHead:
        return self._head

    def append(self, acts: Sequence[Act], *, now: datetime) -> None:
        """Record the acts, in order, durably. Raises StorageUnavailable: then none is kept."""
        head, records, raws = self._head, [], []
        for act in acts:
            record, raw, head = link(head, act, now=now)
            records.append(record)
            raws.append(raw)
        self._journal.append(raws)
        self._journal.commit()
        self._journal.settle()  # nobody waits for it, and the next record may come much later
        self._head = head
        self._recent.extend(records)

    def recent(self) -> tuple[AuditRecord, ...]:
        """The newest records, oldest first."""
        while True:
            try:
                return tuple(self._recent)
            except RuntimeError:  # appended to meanwhile
                continue

    def close(self) -> None:
        self._journal.close()


def verify_files(storage: Path, *, noted: ChainHead | None = None) -> ChainCheck:
    """Judge the trail on the disk without changing it, also while a server appends to it.

    Raises NotFound when there is none.
    """
    directory = storage / DIRECTORY
    if not directory.is_dir():
        raise NotFound(f"there is no audit trail in {storage}")
    try:
        found = find(RealFs(), directory)
    except StorageDamaged as error:
        return ChainCheck(head=ChainHead(), fault=error.message)
    verdict = verify((entry.record for entry in found.entries), noted=noted)
    if verdict.fault is None and found.damage is not None:
        return ChainCheck(head=verdict.head, fault=str(found.damage))
    return verdict
