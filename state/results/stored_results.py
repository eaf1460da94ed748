"""The agents' results in TinyDB tables: stored, found, announced, forgotten. Decides nothing about time or actors.

Tables: `results`; `outbox` (results whose event is not yet published: made in the same transaction as the result, so
there is never one without the other); `answers` (what a request with an idempotency key was answered). The three share
their ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from functools import partial, reduce
from hashlib import blake2b
from operator import and_
from os import urandom
from pathlib import Path
from typing import Any

import msgspec

from ..errors import InvalidRequest
from ..journal.fs import Fs
from ..journal.journal import SEGMENT_BYTES, Journal
from ..journal.reads import Take
from ..models import AgentId, EventId, NextAgent, ResultId, ResultStatus, StoredResult
from ..typed import decode
from .document_bodies import MEMORY_BYTES
from .document_store import DocumentChange, DocumentStore
from .table import Fields, JournalDB, between, where

RESERVE_BYTES = 8 << 20  # on a full disk: deletes for about a hundred thousand results

PAGE_BYTES = 8 << 20  # of the results of one page: with one of ten megabytes, an answer stays below eleven

_FIELDS = {
    "results": Fields(
        ("project_id", "issue_id", "agent_id", "agent_type", "status"), moments=("stored_at",), weighed=("project_id",)
    ),
    "answers": Fields(("key",)),
}
_RESULT_ID = re.compile(r"res-([0-9]{16})-[0-9a-f]{12}")


class StoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request with an idempotency key. digest: of its body. event_id: None until announced."""

    key: str
    digest: str
    next_agents: tuple[NextAgent, ...]
    event_id: EventId | None = None


class _WithLineBreaks(StoredResult, frozen=True, kw_only=True):
    """The line breaks of a result. A line of the journal cannot hold them, so each is a blank there.

    The lengths of all lines except the last bring them back.
    """

    line_breaks: tuple[int, ...]


class ResultHead(msgspec.Struct, frozen=True, kw_only=True):
    """A stored result without what the agent sent."""

    id: ResultId
    project_id: str
    issue_id: str
    agent_id: AgentId
    agent_type: str
    status: ResultStatus
    stored_at: datetime
    traceparent: str | None = None


def result_id(doc_id: int) -> ResultId:
    """A new public id: sorts in the order of storing; the random part keeps it from being guessed."""
    return ResultId(f"res-{doc_id:016d}-{urandom(6).hex()}")


def place_of(value: str) -> int | None:
    """The place in the table that a result id names, or None if it is no result id."""
    match = _RESULT_ID.fullmatch(value)
    return int(match[1]) if match else None


def digest_of(*parts: bytes | str | None) -> str:
    """Tells one body from another."""
    digest = blake2b(digest_size=16)
    for part in parts:
        data = b"-" if part is None else b"+" + (part if isinstance(part, bytes) else part.encode())
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()


class StoredResults:
    """Every result of one storage directory. Changes are visible at once and durable after `commit`.

    memory_bytes: how much of them may be kept in memory; the others are read from the disk.
    """

    def __init__(
        self,
        directory: Path,
        *,
        fs: Fs | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        """Raises what `Journal.open` raises."""
        opener = partial(_open, directory, fs, segment_bytes)
        self._db = JournalDB(opener, commit_each=False, memory_bytes=memory_bytes, fields=_FIELDS)
        self._storage = self._db.storage
        self._results = self._db.table("results", **msgspec.structs.asdict(_FIELDS["results"]))
        self._outbox = self._db.table("outbox")
        self._answers = self._db.table("answers", **msgspec.structs.asdict(_FIELDS["answers"]))

    # --- writing ---

    def put(self, result: StoredResult, answer: StoredAnswer | None = None) -> tuple[int, ResultHead]:
        """Store a result whose event is not published yet; the place it has, and what it is. `result.id` is made here.

        Raises StorageUnavailable.
        """
        place = self._results.next_id()
        head = ResultHead(
            id=result_id(place),
            project_id=result.project_id,
            issue_id=result.issue_id,
            agent_id=result.agent_id,
            agent_type=result.agent_type,
            status=result.status,
            stored_at=result.stored_at,
            traceparent=result.traceparent,
        )
        document = _document(msgspec.structs.replace(result, id=head.id))
        changes = [DocumentChange("+", "results", place, document), DocumentChange("+", "outbox", place, b"{}")]
        if answer is not None:
            changes.append(DocumentChange("+", "answers", place, msgspec.json.encode(answer)))
        self._storage.apply(changes)
        return place, head

    def mark_announced(self, published: Iterable[tuple[int, EventId]]) -> None:
        """The events of the results at these places are published: they leave the outbox, in the next commit."""
        changes = []
        for place, event_id in published:
            if self._outbox.has(place):
                changes.append(DocumentChange("-", "outbox", place))
            answer = self.answer_at(place)
            if answer is not None:
                answer = msgspec.structs.replace(answer, event_id=event_id)
                changes.append(DocumentChange("+", "answers", place, msgspec.json.encode(answer)))
        self._storage.apply(changes)

    def forget(self, places: Iterable[int]) -> None:
        """Delete results and what belongs to them; allowed on a full disk."""
        changes = [
            DocumentChange("-", table.name, place)
            for place in places
            for table in (self._results, self._outbox, self._answers)
            if table.has(place)
        ]
        self._storage.apply(changes)

    def commit(self) -> None:
        """Raises StorageUnavailable: then nothing since the last commit was ever there."""
        self._storage.commit()

    @property
    def store(self) -> DocumentStore:
        """The tables below: for compaction and numbers."""
        return self._storage.store

    # --- reading ---

    def has(self, place: int) -> bool:
        return self._results.has(place)

    def head_at(self, place: int) -> ResultHead | None:
        """The result at a place, without its body. Raises StorageUnreadable."""
        document = self._results.encoded(place)
        return None if document is None else decode(document, ResultHead)

    def at(self, place: int) -> StoredResult | None:
        """The result at a place. Raises StorageUnreadable."""
        document = self._results.encoded(place)
        return None if document is None else _result(document)

    def get(self, wanted: str) -> StoredResult | None:
        place = place_of(wanted)
        result = None if place is None else self.at(place)
        return result if result is not None and result.id == wanted else None

    def find(
        self,
        *,
        project_id: str | None = None,
        issue_id: str | None = None,
        agent_type: str | None = None,
        agent_id: str | None = None,
        status: ResultStatus | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> tuple[tuple[StoredResult, ...], str | None, int]:
        """A page of results, newest first, the cursor of the next older page or None, and how many match in all.

        A page has room for PAGE_BYTES of results, or for one that is larger; then it ends before its limit.
        since, until: of the time they were stored, the first included, the second not.
        Raises InvalidRequest, StorageUnreadable.
        """
        before = None
        if cursor is not None:
            before = place_of(cursor)
            if before is None:
                raise InvalidRequest("cursor does not come from this sidecar", field="cursor", expected="a next_cursor")
        wanted = {
            "project_id": project_id,
            "issue_id": issue_id,
            "agent_type": agent_type,
            "agent_id": agent_id,
            "status": status,
        }
        conditions: list[Any] = [where(field) == value for field, value in wanted.items() if value is not None]
        if since is not None or until is not None:
            conditions.append(between("stored_at", since, until))
        cond = reduce(and_, conditions) if conditions else None
        page = self._results.page(cond, limit=limit, before=before, max_bytes=PAGE_BYTES)
        results = tuple(result for place in page.ids if (result := self.at(place)) is not None)
        return results, results[-1].id if page.has_more and results else None, page.total

    def unannounced(self) -> list[int]:
        """Places of the results whose event is not known to be published, oldest first."""
        return [document.doc_id for document in self._outbox]

    def answer_to(self, key: str) -> tuple[int, StoredAnswer] | None:
        """The answer to the request with this key, and the place of its result."""
        ids = self._answers.page(where("key") == key, limit=1).ids
        answer = self.answer_at(ids[0]) if ids else None
        return None if answer is None else (ids[0], answer)

    def answer_at(self, place: int) -> StoredAnswer | None:
        document = self._answers.encoded(place)
        return None if document is None else decode(document, StoredAnswer)

    def oldest(self, before: datetime, limit: int) -> tuple[list[int], datetime | None]:
        """Up to `limit` places of results that were stored before that time, oldest first; and when the oldest was."""
        return self._results.earliest("stored_at", before, limit)

    def count(self, project_id: str | None) -> tuple[int, int]:
        """How many results, and the bytes of their JSON."""
        return self._results.weigh(None if project_id is None else where("project_id") == project_id)


def _document(result: StoredResult) -> bytes:
    body = bytes(result.result)
    if b"\n" not in body:
        return msgspec.json.encode(result)
    fields = msgspec.structs.asdict(result)
    fields["result"] = msgspec.Raw(body.replace(b"\n", b" "))
    lengths = tuple(len(line) for line in body.split(b"\n"))[:-1]
    return msgspec.json.encode(_WithLineBreaks(**fields, line_breaks=lengths))


def _result(document: bytes) -> StoredResult:
    if not document.endswith(b"]}"):  # the last field of the others is a string or null
        return decode(document, StoredResult)
    fields = msgspec.structs.asdict(decode(document, _WithLineBreaks))
    body, lines, start = bytes(fields["result"]), [], 0
    for length in fields.pop("line_breaks"):
        lines.append(body[start : start + length])
        start += length + 1
    fields["result"] = msgspec.Raw(b"\n".join((*lines, body[start:])))
    return StoredResult(**fields)


def _open(directory: Path, fs: Fs | None, segment_bytes: int, take: Take) -> Journal:
    return Journal.open(directory, fs=fs, reserve_bytes=RESERVE_BYTES, segment_bytes=segment_bytes, take=take)
