"""The audit trail: who did what, in a chain. Each record carries the SHA-256 of the one before it, byte for byte.

Altering, removing, inserting or moving a record breaks the chain at that place. Someone who cuts the end off, or writes
the whole chain again, is found by a head that was noted elsewhere. Pure: every decision takes `now`.

See docs/audit.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime

import msgspec

from .typed import decode

GENESIS = "0" * 64  # what the first record names as its predecessor

Detail = str | int | float | bool | None


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was done, tried or refused.

    by: the agent id of the request's token; "sidecar" for its own acts; "" for a request without a token.
    subject: what it was done to. outcome: "done", or the code of the error. Never holds a token or a payload.
    """

    act: str
    by: str
    project_id: str | None = None
    subject: str | None = None
    outcome: str = "done"
    details: dict[str, Detail] = {}


class AuditRecord(Act, frozen=True, kw_only=True):
    """One link. seq: from 1, without gaps. previous: SHA-256 of the record before, in hexadecimal."""

    seq: int
    at: datetime
    previous: str


class ChainHead(msgspec.Struct, frozen=True):
    """Where a chain ends: its length, and the SHA-256 of its last record."""

    seq: int = 0
    digest: str = GENESIS


def link(head: ChainHead, act: Act, *, now: datetime) -> tuple[AuditRecord, bytes, ChainHead]:
    """The act as the next record after `head`: the record, its bytes, and the new head."""
    record = AuditRecord(**msgspec.structs.asdict(act), seq=head.seq + 1, at=now, previous=head.digest)
    encoded = msgspec.json.encode(record)
    return record, encoded, ChainHead(record.seq, digest_of(encoded))


def digest_of(record: bytes) -> str:
    return hashlib.sha256(record).hexdigest()


class ChainCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a check of a chain.

    head: of the sound part. fault: the error in the record after that part; None if the whole chain is sound.
    """

    head: ChainHead
    fault: str | None = None


def verify(records: Iterable[bytes], *, noted: ChainHead | None = None) -> ChainCheck:
    """Walk the chain from its beginning. noted: a head of earlier, which must be in it."""
    head = ChainHead()
    is_noted_found = noted is None or noted == head
    for raw in records:
        fault = _fault(raw, head)
        if fault is not None:
            return ChainCheck(head=head, fault=fault)
        head = ChainHead(head.seq + 1, digest_of(raw))
        if noted is not None and head.seq == noted.seq:
            if head.digest != noted.digest:
                return ChainCheck(head=head, fault=f"record {head.seq} is not the one that was noted")
            is_noted_found = True
    if not is_noted_found and noted is not None:
        return ChainCheck(head=head, fault=f"it ends with record {head.seq}, but record {noted.seq} was noted")
    return ChainCheck(head=head)


def _fault(raw: bytes, head: ChainHead) -> str | None:
    expected = head.seq + 1
    try:
        record = decode(raw, AuditRecord)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"record {expected} cannot be read: {error}"
    if record.seq != expected:
        return f"record {record.seq} stands where record {expected} should"
    if record.previous != head.digest:
        return f"record {expected} does not follow the one before it, which was altered or replaced"
    return None


FOLD_S = 60.0
MAX_FOLDED = 1000


class _Fold(msgspec.Struct):
    act: Act
    until: float
    repeats: int = 0


class Folding:
    """The same refusal over and over becomes one record a minute: a stray client must not fill the disk.

    Bounded: when too many different ones are held, the oldest is let go early.
    """

    def __init__(self) -> None:
        self._held: dict[bytes, _Fold] = {}

    def add(self, act: Act, *, now: float) -> list[Act]:
        """The records to write now: due repeats, and the act if it is the first of its kind."""
        due = self.due(now=now)
        key = msgspec.json.encode(act)
        held = self._held.get(key)
        if held is not None:
            held.repeats += 1
            return due
        if len(self._held) >= MAX_FOLDED:
            due += _repeated(self._held.pop(next(iter(self._held))))
        self._held[key] = _Fold(act, now + FOLD_S)
        return [*due, act]

    def due(self, *, now: float) -> list[Act]:
        """Repetitions whose minute is over."""
        acts: list[Act] = []
        while self._held:
            key = next(iter(self._held))  # oldest first, and every minute is as long
            if self._held[key].until > now:
                break
            acts += _repeated(self._held.pop(key))
        return acts

    def rest(self) -> list[Act]:
        """Everything that is held, at the end."""
        return self.due(now=float("inf"))


def _repeated(fold: _Fold) -> list[Act]:
    if not fold.repeats:
        return []
    details = {**fold.act.details, "repeated": fold.repeats}
    return [msgspec.structs.replace(fold.act, details=details)]
