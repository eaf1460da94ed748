"""The agents' results in TinyDB tables: stored, found, announced, forgotten. Decides nothing about time or actors.

Tables: `results`; `outbox` (results whose event is not yet published: made in the same transaction as the result, so
there is never one without the other); `answers` (what a request with an idempotency key was answered). The three share
their ids.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import reduce
from hashlib import blake2b
from operator import and_
from os import urandom
from pathlib import Path
from typing import Any

import msgspec

from .document_store import Change, DocumentStore
from .errors import InvalidRequest
from .fs import Fs
from .journal import SEGMENT_BYTES, Journal
from .models import EventId, NextAgent, ResultId, ResultStatus, StoredResult
from .result_table import JournalDB, where
from .typed import decode

RESERVE_BYTES = 8 << 20  # on a full disk: deletes for about a hundred thousand results

_INDEXED = ("project_id", "issue_id", "agent_id", "agent_type", "status")
_RESULT_ID = re.compile(r"res-([0-9]{16})-[0-9a-f]{12}")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a request with an idempotency key was answered. digest: of its body. event_id: None until announced."""

    key: str
    digest: str
    next_agents: tuple[NextAgent, ...]
    event_id: EventId | None = None


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
    """Every result of one storage directory. Changes are visible at once and durable after `commit`."""

    def __init__(self, directory: Path, *, fs: Fs | None = None, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Raises what `Journal.open` raises."""
        journal = Journal.open(directory, fs=fs, reserve_bytes=RESERVE_BYTES, segment_bytes=segment_bytes)
        try:
            self._db = JournalDB(journal, commit_each=False)
        except BaseException:
            journal.close()
            raise
        self._storage = self._db.storage
        self._results = self._db.table("results", indexed=_INDEXED, columns=("stored_at",))
        self._outbox = self._db.table("outbox")
        self._answers = self._db.table("answers", indexed=("key",))

    # --- writing ---

    def put(self, result: StoredResult, answer: Answer | None = None) -> int:
        """Store a result that is to be announced; the place it has. `result.id` is made here.

        Raises StorageUnavailable.
        """
        place = self._results.next_id()
        document = msgspec.json.encode(msgspec.structs.replace(result, id=result_id(place)))
        changes = [Change("+", "results", place, document), Change("+", "outbox", place, b"{}")]
        if answer is not None:
            changes.append(Change("+", "answers", place, msgspec.json.encode(answer)))
        self._storage.apply(changes)
        return place

    def mark_announced(self, published: Iterable[tuple[int, EventId]]) -> None:
        """The events of the results at these places are published: they leave the outbox, in the next commit."""
        changes = []
        for place, event_id in published:
            if self._outbox.encoded(place) is not None:
                changes.append(Change("-", "outbox", place))
            answer = self.answer_at(place)
            if answer is not None:
                answer = msgspec.structs.replace(answer, event_id=event_id)
                changes.append(Change("+", "answers", place, msgspec.json.encode(answer)))
        self._storage.apply(changes)

    def forget(self, places: Iterable[int]) -> None:
        """Delete results and what belongs to them; allowed on a full disk."""
        changes = [
            Change("-", table.name, place)
            for place in places
            for table in (self._results, self._outbox, self._answers)
            if table.encoded(place) is not None
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

    def at(self, place: int) -> StoredResult | None:
        document = self._results.encoded(place)
        return None if document is None else decode(document, StoredResult)

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

        since, until: of the time they were stored, the first included, the second not. Raises InvalidRequest.
        """
        before = None
        if cursor is not None:
            before = place_of(cursor)
            if before is None:
                raise InvalidRequest("cursor is not one of ours", field="cursor", expected="a next_cursor")
        wanted = {
            "project_id": project_id,
            "issue_id": issue_id,
            "agent_type": agent_type,
            "agent_id": agent_id,
            "status": status,
        }
        conditions: list[Any] = [where(field) == value for field, value in wanted.items() if value is not None]
        if since is not None:
            conditions.append(where("stored_at").test(_from(since)))
        if until is not None:
            conditions.append(where("stored_at").test(_before(until)))
        cond = reduce(and_, conditions) if conditions else None
        page = self._results.page(cond, limit=limit, before=before)
        results = tuple(result for place in page.ids if (result := self.at(place)) is not None)
        return results, results[-1].id if page.has_more and results else None, page.total

    def unannounced(self) -> list[int]:
        """Places of the results whose event is not known to be published, oldest first."""
        return [document.doc_id for document in self._outbox]

    def answer_to(self, key: str) -> tuple[int, Answer] | None:
        """What the request with this key was answered, and the place of its result."""
        ids = self._answers.page(where("key") == key, limit=1).ids
        answer = self.answer_at(ids[0]) if ids else None
        return None if answer is None else (ids[0], answer)

    def answer_at(self, place: int) -> Answer | None:
        document = self._answers.encoded(place)
        return None if document is None else decode(document, Answer)

    def stored_before(self, moment: datetime, limit: int) -> list[int]:
        """Up to `limit` places of the oldest results, as far as they were stored before `moment`."""
        places: list[int] = []
        for place, stored_at in self._oldest():
            if stored_at >= moment or len(places) == limit:
                break
            places.append(place)
        return places

    def _oldest(self) -> Iterator[tuple[int, datetime]]:
        for place in self._results.ids():
            result = self.at(place)
            if result is not None:
                yield place, result.stored_at

    def count(self, project_id: str | None) -> tuple[int, int]:
        """How many results, and the bytes of their JSON."""
        return self._results.weigh(None if project_id is None else where("project_id") == project_id)


def _from(moment: datetime) -> Callable[[Any], bool]:
    return lambda stored_at: datetime.fromisoformat(stored_at) >= moment


def _before(moment: datetime) -> Callable[[Any], bool]:
    return lambda stored_at: datetime.fromisoformat(stored_at) < moment
