"""Wire names of results."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ...actors.replies import AcceptedResult, ResultListing
from ...state.models import EventId, NextAgent, ResultId, ResultStatus, StoredResult
from .codec import Body, Nothing, Timed
from .shapes import Identifier, MaybeIdentifier, Moment, Payload, Time

MAX_PAGE = 500


class NewResult(Body, frozen=True, kw_only=True):
    """A result from an agent. `result` accepts any other key; all of it comes back as it was sent."""

    agent_id: Identifier
    agent_type: Identifier
    issue_id: Identifier
    project_id: Identifier
    result: Payload
    timestamp: Moment | None = None


class ResultFile(msgspec.Struct, frozen=True):
    """A file as an object; other keys are up to the agent."""

    path: str


class Outcome(msgspec.Struct, frozen=True):
    """The keys of `result` that the sidecar understands; it checks them and never changes them."""

    status: ResultStatus
    files_created: list[str | ResultFile] = []
    files_modified: list[str | ResultFile] = []
    files_deleted: list[str | ResultFile] = []
    decisions: list[Any] = []
    errors: list[Any] = []
    warnings: list[Any] = []
    next_steps: list[Any] = []
    metrics: dict[str, Any] = {}
    artifacts: dict[str, Any] | list[Any] = {}


class ResultAccepted(Timed, frozen=True, kw_only=True):
    """The answer to a result that is stored.

    storage_path: relative to the storage directory.
    """

    id: ResultId
    stored: bool
    storage_path: str
    next_agents: tuple[NextAgent, ...]
    event_published: bool
    event_id: EventId

    @classmethod
    def of(cls, stored: AcceptedResult) -> ResultAccepted:
        return cls(
            id=stored.result_id,
            stored=True,
            storage_path=stored.storage_path,
            next_agents=stored.next_agents,
            event_published=True,
            event_id=stored.event_id,
            timestamp=stored.stored_at,
        )


class ResultQuery(Nothing, frozen=True, kw_only=True):
    """Which results to list; all that is given must fit."""

    issue_id: MaybeIdentifier | None = None
    agent_type: MaybeIdentifier | None = None
    agent_id: MaybeIdentifier | None = None
    status: ResultStatus | None = None
    since: Time | None = None
    until: Time | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 50
    cursor: str | None = None


class ResultOut(Timed, frozen=True, kw_only=True):
    """A stored result.

    timestamp: the time given by the agent. stored_at: the time when it was stored.
    """

    id: ResultId
    project_id: str
    issue_id: str
    agent_id: str
    agent_type: str
    status: ResultStatus
    result: Payload
    stored_at: Moment
    traceparent: str | UnsetType = UNSET

    @classmethod
    def of(cls, stored: StoredResult) -> ResultOut:
        return cls(
            id=stored.id,
            project_id=stored.project_id,
            issue_id=stored.issue_id,
            agent_id=stored.agent_id,
            agent_type=stored.agent_type,
            status=stored.status,
            result=stored.result,
            timestamp=stored.timestamp,
            stored_at=stored.stored_at,
            traceparent=stored.traceparent if stored.traceparent is not None else UNSET,
        )


class ResultsFound(Timed, frozen=True, kw_only=True):
    """Newest first. total: matches on all pages."""

    results: list[ResultOut]
    next_cursor: str | None
    total: int

    @classmethod
    def of(cls, page: ResultListing, *, now: datetime) -> ResultsFound:
        return cls(
            results=[ResultOut.of(stored) for stored in page.results],
            next_cursor=page.next_cursor,
            total=page.total,
            timestamp=now,
        )
