"""From an error's code to what a client sees: one table, and the one JSON shape of every error answer.

Routes neither catch errors nor set error statuses; everything they raise passes through `describe`.

See docs/errors.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from ..state.errors import SidecarError
from ..state.os_text import writable
from .wire.shapes import Moment


class ErrorKind(msgspec.Struct, frozen=True):
    """How one error appears to clients.

    status: HTTP. wire_code: `code` of the answer. word: `error` of the answer. when, advice: its cause and its remedy,
    for the documentation. public_text: the message for everyone except operators, if the error's own text may name a
    path of this machine.
    """

    status: int
    wire_code: str
    word: str
    when: str
    advice: str
    public_text: str | None = None


_STORAGE = "the sidecar cannot write its storage; nothing of the request was stored"
_INTERNAL = "the sidecar failed unexpectedly; its log has the request id"
_STORAGE_WHEN = (
    "The storage cannot be written, or was removed or replaced, and nothing was stored; or it "
    "cannot be read, and the message names the file."
)
_STORAGE_ADVICE = "Free disk space, put the folder back, or run `sidecar doctor`; then retry."
_INTERNAL_WHEN = "An unexpected failure; the log has the request id."
_INTERNAL_ADVICE = "Report the log's entry; the same request may fail again."

# Source: the protocol, "Errors".
ROWS: Mapping[str, ErrorKind] = {
    "invalid_request": ErrorKind(
        400,
        "REQ_001",
        "invalid_request",
        "Malformed JSON; a wrong, missing or misspelt field; a bad identifier; an unreadable request; a body "
        "of more than 200,000 strings, commas and brackets.",
        "Correct the field in `details.field`.",
    ),
    "invalid_event": ErrorKind(
        400,
        "EVT_002",
        "invalid_event",
        "The event is invalid: the types in path and body differ, `ttl_seconds` is out of range, or "
        "`issue_id` is a number that cannot be an issue's id.",
        "Correct the field in `details.field`.",
    ),
    "invalid_filter": ErrorKind(
        400,
        "EVT_003",
        "invalid_filter",
        "The filter has a syntax error at `details.position`, or more than 256 terms and alternatives.",
        "Correct the filter at that position.",
    ),
    "invalid_context_request": ErrorKind(
        400,
        "CTX_003",
        "invalid_context_request",
        "A requirement, path or glob is not valid for a context.",
        "Correct the field in `details.field`.",
    ),
    "unauthorized": ErrorKind(
        401,
        "AUTH_001",
        "unauthorized",
        "The token is missing, revoked, or not from this sidecar.",
        "Send the agent's own `JWT_TOKEN`, or create a token with `sidecar token`.",
    ),
    "token_expired": ErrorKind(
        401,
        "AUTH_002",
        "token_expired",
        "The token has expired.",
        "If its agent is running, use `POST /api/auth/refresh`; otherwise create a new token with `sidecar token`.",
    ),
    "forbidden": ErrorKind(
        403,
        "AUTH_003",
        "forbidden",
        "The agent's class does not have this permission, or the Host is not one of the sidecar's.",
        "Use an agent with the permission, or an operator; use a Host from `details.expected`.",
    ),
    "wrong_project": ErrorKind(
        403,
        "AUTH_004",
        "wrong_project",
        "The token belongs to another project.",
        "Use a token of the right project, or an operator's.",
    ),
    "wrong_identity": ErrorKind(
        403,
        "AUTH_005",
        "wrong_identity",
        "The publisher, agent id or agent type differs from that of the token.",
        "Use those of the token.",
    ),
    "not_found": ErrorKind(
        404,
        "REQ_404",
        "not_found",
        "The path or id is unknown, or the id belongs to another project.",
        "Check the spelling and the token's project.",
    ),
    "method_not_allowed": ErrorKind(
        405, "REQ_405", "method_not_allowed", "The path does not support this method.", "Use a method from `Allow`."
    ),
    "idempotency_conflict": ErrorKind(
        409,
        "REQ_409",
        "idempotency_conflict",
        "The Idempotency-Key was already used with a different body.",
        "Use a new key for a different body.",
    ),
    "wrong_state": ErrorKind(
        409,
        "AGT_003",
        "wrong_state",
        "The agent's state does not allow this.",
        "Check its state with `GET /api/agents/{agent_id}`.",
    ),
    "events_gone": ErrorKind(
        410,
        "EVT_004",
        "events_gone",
        "With `strict=1`: events after `since` are gone, or `since` is beyond the end of the log; see "
        "`details.oldest` and `details.reason`.",
        "Continue from `earliest`; earlier events are gone.",
    ),
    "body_too_large": ErrorKind(
        413,
        "REQ_413",
        "body_too_large",
        "The limit is 10 MiB for results, 256 KiB for events, 1 MiB for most others, and 64 KiB where no "
        "body is expected.",
        "Store large content in a file, and send its path.",
    ),
    "not_json": ErrorKind(
        415,
        "REQ_415",
        "not_json",
        "The body is not declared as JSON, or is compressed.",
        "Send `Content-Type: application/json` and no `Content-Encoding`.",
    ),
    "no_command": ErrorKind(
        422,
        "AGT_002",
        "no_command",
        "The profile of the agent type has no command.",
        "Add a command in `sidecar.toml`, and restart the sidecar.",
    ),
    "chain_too_long": ErrorKind(
        409,
        "AGT_005",
        "chain_too_long",
        "More than `agents.max_chain_depth` agents in a row caused one another; `details.path` names them.",
        "Find the loop in the path. If the chain is intended, raise the setting.",
    ),
    "too_many_spawns": ErrorKind(
        409,
        "AGT_006",
        "too_many_spawns",
        "The issue already had `agents.max_spawns_per_issue` agents within a day.",
        "Find out what spawns them. If so many are intended, raise the setting.",
    ),
    "queue_full": ErrorKind(
        503,
        "AGT_007",
        "queue_full",
        "The queue has reached `agents.max_queued` or `agents.max_queued_mb`.",
        "Retry after `Retry-After`; `sidecar agent list --state queued` shows what each agent is waiting for.",
    ),
    "rate_limited": ErrorKind(
        429,
        "RATE_001",
        "rate_limited",
        "A limit was reached: requests, mailboxes, open streams or refreshes of a token.",
        "Retry after `Retry-After`; wait for events instead of polling.",
    ),
    "internal": ErrorKind(500, "SRV_001", "internal", _INTERNAL_WHEN, _INTERNAL_ADVICE, _INTERNAL),
    "config": ErrorKind(500, "SRV_001", "internal", _INTERNAL_WHEN, _INTERNAL_ADVICE, _INTERNAL),
    "storage_unavailable": ErrorKind(503, "STR_001", "storage_unavailable", _STORAGE_WHEN, _STORAGE_ADVICE, _STORAGE),
    "storage_unreadable": ErrorKind(503, "STR_001", "storage_unavailable", _STORAGE_WHEN, _STORAGE_ADVICE),
    "storage_damaged": ErrorKind(503, "STR_001", "storage_unavailable", _STORAGE_WHEN, _STORAGE_ADVICE, _STORAGE),
    "storage_in_use": ErrorKind(503, "STR_001", "storage_unavailable", _STORAGE_WHEN, _STORAGE_ADVICE, _STORAGE),
    "storage_too_new": ErrorKind(503, "STR_001", "storage_unavailable", _STORAGE_WHEN, _STORAGE_ADVICE, _STORAGE),
    "event_bus_unavailable": ErrorKind(
        503,
        "EVT_001",
        "event_bus_unavailable",
        "The event bus failed during the request, and is being restarted.",
        "Retry after `Retry-After`, with the same Idempotency-Key.",
    ),
    "context_failed": ErrorKind(
        503,
        "CTX_001",
        "context_failed",
        "The context could not be built.",
        "Fix the cause given in the message or in the sidecar's log, then retry.",
    ),
    "spawn_failed": ErrorKind(
        503,
        "AGT_001",
        "spawn_failed",
        "The process could not be started.",
        "Correct the profile as the message says, then retry.",
    ),
    "unavailable": ErrorKind(
        503,
        "SRV_503",
        "unavailable",
        "The sidecar is shutting down, or an actor did not answer in time.",
        "Retry after `Retry-After`, with the same Idempotency-Key.",
    ),
}

RETRY_AFTER_S = 1  # a restarted actor answers again within this; a longer pause would only idle the agents


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The one shape of every error answer."""

    error: str
    message: str
    code: str
    details: dict[str, Any]
    timestamp: Moment
    request_id: str


class Described(msgspec.Struct, frozen=True):
    """The status, body and headers of an error answer."""

    status: int
    body: ErrorBody
    headers: list[tuple[str, str]]


def describe(error: BaseException, *, request_id: str, now: datetime, to_operator: bool) -> Described:
    """The answer to a client about `error`. One that is not a SidecarError becomes `internal`, without its text."""
    code = error.code if isinstance(error, SidecarError) else "internal"
    row = ROWS.get(code, ROWS["internal"])
    details = dict(error.details) if isinstance(error, SidecarError) else {}
    message = error.message if isinstance(error, SidecarError) else _INTERNAL
    if row.public_text is not None and not to_operator:
        message, details = row.public_text, {}
    headers: list[tuple[str, str]] = []
    if row.status == 401:
        headers.append(("WWW-Authenticate", 'Bearer realm="orchestration-sidecar"'))
    if row.status in (429, 503):
        headers.append(("Retry-After", str(details.get("retry_after_s", RETRY_AFTER_S))))
    if row.status == 405:
        allowed = details.get("allowed")
        headers.append(("Allow", ", ".join(allowed) if isinstance(allowed, list) else ""))
    body = ErrorBody(
        error=row.word,
        message=writable(message),
        code=row.wire_code,
        details={name: writable(value) if isinstance(value, str) else value for name, value in details.items()},
        timestamp=now,
        request_id=request_id,
    )
    return Described(row.status, body, headers)
