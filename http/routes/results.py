"""Routes of results."""

from __future__ import annotations

from typing import Any

from ...actors.messages import FindResults, GetResult, StoreResult
from ...actors.runtime.asking import ask
from ...state.errors import (
    IdempotencyConflict,
    NotFound,
    StorageUnavailable,
    Unavailable,
    WrongIdentity,
)
from ...state.identity import Permission
from ...state.models import AgentId, ResultId, identifier
from ...state.typed import decoder
from ..access.auth import require_own, require_project
from ..routing import ASK_S, MIB, Answer, Call, Pending, Route, Routes
from ..wire import codec as wire
from ..wire.codec import Nothing
from ..wire.results import NewResult, Outcome, ResultAccepted, ResultOut, ResultQuery, ResultsFound

routes = Routes()

MAX_RESULT_BYTES = 10 * MIB
STORE_S = 30.0  # ten megabytes and an fdatasync behind everybody else's


@routes.add(
    Route(
        "POST",
        "/api/results",
        needs=Permission.WRITE_RESULTS,
        body=NewResult,
        max_body_bytes=MAX_RESULT_BYTES,
        status=201,
        answers=ResultAccepted,
        errors=(IdempotencyConflict, StorageUnavailable, Unavailable, WrongIdentity),
    )
)
def store_result(call: Call[NewResult, Nothing]) -> Pending[Any]:
    """Store a result. After the answer, the result is on disk and its event is published."""
    body, caller = call.body, call.caller
    require_own(field="agent_id", value=identifier(body.agent_id, "agent_id"), own=caller.agent_id)
    require_own(field="agent_type", value=identifier(body.agent_type, "agent_type"), own=caller.agent_type)
    require_project(caller, identifier(body.project_id, "project_id"))
    result, _ = wire.read_object(body.result, "result")
    outcome = wire.read_part(result, decoder(Outcome), "result")
    request = StoreResult(
        project_id=body.project_id,
        issue_id=identifier(body.issue_id, "issue_id"),
        agent_id=caller.agent_id,
        agent_type=caller.agent_type,
        status=outcome.status,
        result=result,
        timestamp=body.timestamp and wire.in_utc(body.timestamp, "timestamp"),
        idempotency_key=call.idempotency_key(),
        traceparent=call.traceparent,
    )
    return Pending(
        call.actors.results.request(request),
        lambda stored: Answer(201, ResultAccepted.of(stored)),
        deadline_s=STORE_S,
    )


@routes.add(Route("GET", "/api/results/<result_id>", answers=ResultOut, errors=(NotFound, Unavailable)))
def get_result(call: Call[Nothing, Nothing], result_id: str) -> Answer:
    """Get a result, with every field as it was sent."""
    request = GetResult(result_id=ResultId(result_id), project_id=call.scope)
    return Answer(200, ResultOut.of(ask(call.actors.results, request, timeout_s=ASK_S)))


@routes.add(Route("GET", "/api/results", query=ResultQuery, answers=ResultsFound, errors=(Unavailable,)))
def find_results(call: Call[Nothing, ResultQuery]) -> Answer:
    """Find results, newest first."""
    query = call.query
    page = ask(
        call.actors.results,
        FindResults(
            project_id=call.scope,
            issue_id=query.issue_id and identifier(query.issue_id, "issue_id"),
            agent_type=query.agent_type and identifier(query.agent_type, "agent_type"),
            agent_id=query.agent_id and AgentId(identifier(query.agent_id, "agent_id")),
            status=query.status,
            since=wire.moment(query.since, "since"),
            until=wire.moment(query.until, "until"),
            limit=query.limit,
            cursor=query.cursor,
        ),
        timeout_s=ASK_S,
    )
    return Answer(200, ResultsFound.of(page, now=call.now))
