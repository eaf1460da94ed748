"""From an error's code to what a client sees: one table, and the one JSON shape of every error answer.

Routes neither catch nor set error statuses; whatever they raise passes through `describe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from ..state.errors import SidecarError
from ..state.os_text import writable
from .wire.shapes import Moment


class Row(msgspec.Struct, frozen=True):
    """status: HTTP. wire_code: `code` of the answer. word: `error` of the answer. when, advice (what to do about it):
    for the documentation.

    public_text: what everybody but operators is told, for errors whose own text may name a path of this machine.
    """

    status: int
    wire_code: str
    word: str
    when: str
    advice: str
    public_text: str | None = None


_STORAGE = "the sidecar cannot write its storage; nothing of the request was kept"
_INTERNAL = "the sidecar failed in a way nobody expected; its log has the request id"
_STORAGE_WHEN = (
    "Storage cannot be written, or was removed or replaced, and nothing was kept; or it cannot be read, and the message"
    " names the file."
)
_STORAGE_ADVICE = "Make room, put the folder back, or see what `sidecar doctor` says; then ask again."
_INTERNAL_WHEN = "Nobody expected this; the log has the request id."
_INTERNAL_ADVICE = "Report what the log says; the same request may fail the same way."

# Source: the protocol, "Errors".
ROWS: Mapping[str, Row] = {
    "invalid_request": Row(
        400,
        "REQ_001",
        "invalid_request",
        "Malformed JSON, a wrong, missing or misspelt field, a bad identifier, an unreadable request, a body of more "
        "than 200,000 strings, commas and brackets.",
        "Correct what `details.field` names.",
    ),
    "invalid_event": Row(
        400,
        "EVT_002",
        "invalid_event",
        "The event is invalid: its types in path and body differ, its `ttl_seconds` is out of range, or its "
        "`issue_id` is a number that names no issue.",
        "Correct what `details.field` names.",
    ),
    "invalid_filter": Row(
        400,
        "EVT_003",
        "invalid_filter",
        "The filter cannot be read, or has more than 256 terms and alternatives; `details.position` says where.",
        "Correct it there.",
    ),
    "invalid_context_request": Row(
        400,
        "CTX_003",
        "invalid_context_request",
        "A requirement, path or glob that no context has.",
        "Correct what `details.field` names.",
    ),
    "unauthorized": Row(
        401,
        "AUTH_001",
        "unauthorized",
        "No token, not one of this sidecar's, or revoked.",
        "Send the agent's own `JWT_TOKEN`, or one of `sidecar token`.",
    ),
    "token_expired": Row(
        401,
        "AUTH_002",
        "token_expired",
        "The token's time is up.",
        "If its agent runs, `POST /api/auth/refresh`; else mint another: `sidecar token`.",
    ),
    "forbidden": Row(
        403,
        "AUTH_003",
        "forbidden",
        "The agent's class may not do that, or the Host is not ours.",
        "Leave it to an agent that may, or to an operator; call the sidecar by a Host of `details.expected`.",
    ),
    "wrong_project": Row(
        403,
        "AUTH_004",
        "wrong_project",
        "The token acts in another project.",
        "Use a token of that project, or an operator's.",
    ),
    "wrong_identity": Row(
        403,
        "AUTH_005",
        "wrong_identity",
        "Publisher, agent id or agent type is not the token's.",
        "Name those of the token.",
    ),
    "not_found": Row(
        404,
        "REQ_404",
        "not_found",
        "Unknown path or id, also one of another project.",
        "Check the spelling, and the token's project.",
    ),
    "method_not_allowed": Row(
        405, "REQ_405", "method_not_allowed", "The path has no such method.", "Use one that `Allow` names."
    ),
    "idempotency_conflict": Row(
        409,
        "REQ_409",
        "idempotency_conflict",
        "The Idempotency-Key was used with another body.",
        "Take a new key for another body.",
    ),
    "wrong_state": Row(
        409,
        "AGT_003",
        "wrong_state",
        "The agent is not in a state for that.",
        "Look at its state: `GET /api/agents/{agent_id}`.",
    ),
    "events_gone": Row(
        410,
        "EVT_004",
        "events_gone",
        "With `strict=1`: events after `since` are gone, or the log never reached it; `details.oldest`, `.reason`.",
        "Go on from `earliest`; what was before it is gone.",
    ),
    "body_too_large": Row(
        413,
        "REQ_413",
        "body_too_large",
        "Results 10 MiB, events 256 KiB, most others 1 MiB; where none is read, 64 KiB.",
        "Keep what is large in a file, and send its path.",
    ),
    "not_json": Row(
        415,
        "REQ_415",
        "not_json",
        "The body is not declared as JSON, or it is compressed.",
        "Send `Content-Type: application/json`, and no `Content-Encoding`.",
    ),
    "no_command": Row(
        422,
        "AGT_002",
        "no_command",
        "The agent type's profile has no command to run.",
        "Give it one in `sidecar.toml`, and restart the sidecar.",
    ),
    "chain_too_long": Row(
        409,
        "AGT_005",
        "chain_too_long",
        "Agents caused one another's spawns more than `agents.max_chain_depth` times; `details.path` names them.",
        "Find the loop in the path; where so long a chain is right, raise the setting.",
    ),
    "too_many_spawns": Row(
        409,
        "AGT_006",
        "too_many_spawns",
        "The issue has had `agents.max_spawns_per_issue` agents within a day.",
        "Find out what spawns them; where so many are right, raise the setting.",
    ),
    "queue_full": Row(
        503,
        "AGT_007",
        "queue_full",
        "As many agents are queued as `agents.max_queued` or `agents.max_queued_mb` allow.",
        "Ask again after `Retry-After`; `sidecar agent list --state queued` shows what each waits for.",
    ),
    "rate_limited": Row(
        429,
        "RATE_001",
        "rate_limited",
        "Over the limit of requests, mailboxes, open streams or refreshes of a token.",
        "Ask again after `Retry-After`; wait instead of polling.",
    ),
    "internal": Row(500, "SRV_001", "internal", _INTERNAL_WHEN, _INTERNAL_ADVICE, _INTERNAL),
    "config": Row(500, "SRV_001", "internal", _INTERNAL_WHEN, _INTERNAL_ADVICE, _INTERNAL),
    "storage_unavailable": Row(503, "STR_001", "storage_unavailable", _STORAGE_WHEN, _STORAGE_ADVICE, _STORAGE),
    "storage_unreadable": Row(503, "STR_001", "storage_unavailable", _STORAGE_WHEN, _STORAGE_ADVICE),
    "storage_damaged": Row(503, "STR_001", "storage_unavailable", _STORAGE_WHEN, _STORAGE_ADVICE, _STORAGE),
    "storage_in_use": Row(503, "STR_001", "storage_unavailable", _STORAGE_WHEN, _STORAGE_ADVICE, _STORAGE),
    "storage_too_new": Row(503, "STR_001", "storage_unavailable", _STORAGE_WHEN, _STORAGE_ADVICE, _STORAGE),
    "event_bus_unavailable": Row(
        503,
        "EVT_001",
        "event_bus_unavailable",
        "The event bus failed while it held the request; it is being restarted.",
        "Ask again after `Retry-After`, with the same Idempotency-Key.",
    ),
    "context_failed": Row(
        503,
        "CTX_001",
        "context_failed",
        "The context could not be built.",
        "The message or the sidecar's log says why; to ask again does not help before that is mended.",
    ),
    "spawn_failed": Row(
        503,
        "AGT_001",
        "spawn_failed",
        "The process could not be started.",
        "Correct the profile as the message says; to ask again does not help before that.",
    ),
    "unavailable": Row(
        503,
        "SRV_503",
        "unavailable",
        "Shutting down, or an actor did not answer in time.",
        "Ask again after `Retry-After`, with the same Idempotency-Key.",
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
