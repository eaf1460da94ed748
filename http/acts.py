"""Runs the functions of routes. A request that changes the work of others is an act: observers learn its caller and
its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..actors.replies import SpawnedAgent
from ..actors.runtime.asking import Later
from ..state.audit import Act
from ..state.errors import SidecarError
from .observe.auditing import code_of
from .routing import Call, Outcome, Pending, Route


def perform(route: Route, call: Call[Any, Any], parts: Mapping[str, str]) -> Outcome:
    """Run a route's function. parts: parts of the path by name; the last is the subject of an act."""
    if not route.is_audited:
        return route.handler(call, **parts)
    subject = next(reversed(list(parts.values())), getattr(call.body, "agent_type", None))

    def tell(outcome: str, subject: str | None) -> None:
        act = Act(act=route.name, by=call.caller.agent_id, project_id=call.project_id, subject=subject, outcome=outcome)
        call.server.observers.everyone.acted(act)

    def answered(future: Later[Any]) -> None:
        if future.cancelled():
            tell("unavailable", subject)
        elif (error := future.exception()) is not None:
            tell(code_of(error), subject)
        else:
            reply = future.result()
            tell("done", reply.status.agent_id if isinstance(reply, SpawnedAgent) else subject)

    try:
        outcome = route.handler(call, **parts)
    except SidecarError as error:
        tell(error.code, subject)
        raise
    if isinstance(outcome, Pending):
        outcome.later.add_done_callback(answered)
    else:
        tell("done", subject)
    return outcome
