"""Wire names of the audit trail."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from ...state.audit import AuditRecord, ChainHead, Detail
from .codec import Nothing, Timed
from .shapes import Moment

MAX_PAGE = 1000


class AuditQuery(Nothing, frozen=True, kw_only=True):
    """Which records of the audit trail to list.

    act, by, subject, outcome: only records with this value. before: only records older than this `seq`.
    """

    act: str | None = None
    by: str | None = None
    subject: str | None = None
    outcome: str | None = None
    before: Annotated[int, Meta(ge=1)] | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 100


class AuditRecordOut(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the trail. previous: SHA-256 of the record before it, as stored."""

    seq: int
    at: Moment
    act: str
    by: str
    project_id: str | None
    subject: str | None
    outcome: str
    details: dict[str, Detail]
    previous: str

    @classmethod
    def of(cls, record: AuditRecord) -> AuditRecordOut:
        return cls(**msgspec.structs.asdict(record))


class HeadOut(msgspec.Struct, frozen=True, kw_only=True):
    """The newest record. Note it elsewhere, for `sidecar audit verify --noted`."""

    seq: int
    digest: str


class AuditListed(Timed, frozen=True, kw_only=True):
    """Newest first. total: matches among the newest 10,000 records, which need no reading from disk."""

    records: list[AuditRecordOut]
    head: HeadOut
    total: int

    @classmethod
    def of(
        cls, recent: Sequence[AuditRecord], head: ChainHead, query: AuditQuery, *, project_id: str | None, now: datetime
    ) -> AuditListed:
        """recent: oldest first. project_id None: of every project and of none."""
        asked = {
            name: value for name in ("act", "by", "subject", "outcome") if (value := getattr(query, name)) is not None
        }
        if project_id is not None:
            asked["project_id"] = project_id
        matching = [
            record
            for record in reversed(recent)
            if (query.before is None or record.seq < query.before)
            and all(getattr(record, name) == value for name, value in asked.items())
        ]
        return cls(
            records=[AuditRecordOut.of(record) for record in matching[: query.limit]],
            head=HeadOut(seq=head.seq, digest=head.digest),
            total=len(matching),
            timestamp=now,
        )
