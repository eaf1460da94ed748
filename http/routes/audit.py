"""Route of the audit trail, for operators."""

from __future__ import annotations

from ...state.identity import Permission
from ..routing import Answer, Call, Route, Routes
from ..wire.audit import AuditListed, AuditQuery
from ..wire.codec import Nothing

routes = Routes()


@routes.add(Route("GET", "/api/audit", needs=Permission.ADMIN, query=AuditQuery, answers=AuditListed))
def list_audit(call: Call[Nothing, AuditQuery]) -> Answer:
    """List who did what, newest first: spawns, stops, tokens, refusals, acts of operators, restarts of actors."""
    auditor = call.server.observers.auditor
    return Answer(200, AuditListed.of(auditor.recent(), auditor.head, call.query, project_id=call.scope, now=call.now))
