"""The audit trail at the HTTP door: acts of callers go on record as they are done, and operators may read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...actors.replies import SpawnedAgent
from ...actors.runtime.asking import Later
from ...state.errors import SidecarError
from ...state.identity import Permission
from ..observe.auditing import code_of
from ..routing import Answer, Call, Outcome, Pending, Route, Routes
from ..wire.audit import AuditListed, AuditQuery
from ..wire.codec import Nothing

routes = Routes()


@routes.add("GET", "/api/audit", needs=Permission.ADMIN, query=AuditQuery, answers=AuditListed)
def list_audit(call: Call[Nothing, AuditQuery]) -> Answer:
    """Who did what, newest first: spawns, stops, tokens, refusals, acts of operators, restarts of actors."""
    auditor = call.server.auditor
    return Answer(200, AuditListed.of(auditor.recent(), auditor.head, call.query, project_id=call.scope, now=call.now))


def perform(route: Route, call: Call[Any, Any], parts: Mapping[str, str]) -> Outcome:
    """Run a route's function. If it changes what others do, then who did it goes on record, with how it ended."""
    if not route.is_audited:
        return route.handler(call, **parts)
    subject = next(reversed(list(parts.values())), getattr(call.body, "agent_type", None))

    def record(outcome: str, subject: str | None) -> None:
        call.server.auditor.record(
            route.name, by=call.caller.agent_id, project_id=call.project_id, subject=subject, outcome=outcome
        )

    def answered(future: Later[Any]) -> None:
        if future.cancelled():
            record("unavailable", subject)
        elif (error := future.exception()) is not None:
            record(code_of(error), subject)
        else:
            reply = future.result()
            record("done", reply.status.agent_id if isinstance(reply, SpawnedAgent) else subject)

    try:
        outcome = route.handler(call, **parts)
    except SidecarError as error:
        record(error.code, subject)
        raise
    if isinstance(outcome, Pending):
        outcome.later.add_done_callback(answered)
    else:
        record("done", subject)
    return outcome
