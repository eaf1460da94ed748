"""Wire names of the audit trail."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from ...state.audit import AuditRecord, Detail, Head
from .codec import Nothing, Timed
from .shapes import Moment

MAX_PAGE = 1000


class AuditQuery(Nothing, frozen=True, kw_only=True):
    """act, by, subject, outcome: only records that say so. before: a `seq`; only older ones."""

    act: str | None = None
    by: str | None = None
    subject: str | None = None
    outcome: str | None = None
    before: Annotated[int, Meta(ge=1)] | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 100


class AuditRecordOut(msgspec.Struct, frozen=True, kw_only=True):
    """previous: SHA-256 of the record before, as it lies on the disk."""

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
    """The newest record: worth noting elsewhere, for `sidecar audit verify --noted`."""

    seq: int
    digest: str


class AuditListed(Timed, frozen=True, kw_only=True):
    """Newest first. total: how many match among those that are shown without reading the disk (the newest 10,000)."""

    records: list[AuditRecordOut]
    head: HeadOut
    total: int

    @classmethod
    def of(
        cls, recent: Sequence[AuditRecord], head: Head, query: AuditQuery, *, project_id: str | None, now: datetime
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
