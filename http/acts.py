"""Runs the functions of routes. What changes what others do is an act: observers learn who did it, and how it ended."""

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
    """Run a route's function. parts: of the path, by their names; the last is what an act is done to."""
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
