"""Routes of contexts: build one, clear the cache."""

from __future__ import annotations

from typing import Any

from ...actors.messages import BuildContext, ClearContext, GetAgent, ListContextRequests
from ...actors.replies import ContextBundle
from ...actors.runtime.asking import ask
from ...state.errors import ContextFailed, InvalidContextRequest, NotFound, Unavailable, WrongIdentity
from ...state.identity import Permission
from ...state.models import AgentId
from ..routing import ASK_S, Answer, Call, Pending, Route, Routes
from ..wire import codec as wire
from ..wire.codec import Nothing
from ..wire.context import CacheCleared, ContextAnswer, ContextQuery, ContextRequestOut, ContextsListed

routes = Routes()

BUILD_S = 60.0  # the first read of a large repository


@routes.add(
    Route(
        "GET",
        "/api/context/<issue_id>/<agent_type>",
        needs=Permission.READ_CONTEXT,
        query=ContextQuery,
        answers=ContextAnswer,
        errors=(ContextFailed, InvalidContextRequest, NotFound, Unavailable, WrongIdentity),
        also={304: None},
    )
)
def get_context(call: Call[Nothing, ContextQuery], issue_id: str, agent_type: str) -> Pending[Any]:
    """Get the context of an agent of this type for this issue: the relevant part of the project."""
    caller, query = call.caller, call.query
    if agent_type != caller.agent_type and not caller.may(Permission.SPAWN_AGENTS):
        raise WrongIdentity("agent_type is not the token's", field="agent_type", expected=caller.agent_type)
    request = BuildContext(
        issue_id=issue_id,
        agent_type=agent_type,
        agent_id=caller.agent_id,
        project_id=call.project_id,
        requirements=wire.names(query.requirements),
        files=wire.names(query.files),
        query=query.q,
        max_bytes=query.max_bytes,
        refresh=query.refresh,
        if_none_match=call.header("If-None-Match"),
        traceparent=call.traceparent,
    )
    later = call.actors.contexts.request(request)
    return Pending(later, _sent, deadline_s=BUILD_S)


def _sent(bundle: ContextBundle) -> Answer:
    headers = (("ETag", bundle.etag), ("Cache-Control", "private, no-cache"))
    if bundle.body is None:
        return Answer(304, b"", headers)
    return Answer(200, bundle.body, headers)


@routes.add(Route("GET", "/api/agents/<agent_id>/contexts", answers=ContextsListed, errors=(NotFound, Unavailable)))
def list_context_requests(call: Call[Nothing, Nothing], agent_id: str) -> Answer:
    """List the latest contexts that an agent received, newest first; kept in memory."""
    id_ = AgentId(agent_id)
    listed = ask(call.actors.contexts, ListContextRequests(agent_id=id_, project_id=call.scope), timeout_s=ASK_S)
    if not listed.requests:  # one whose token was made by hand is known by its requests alone
        ask(call.actors.spawner, GetAgent(agent_id=id_, project_id=call.scope), timeout_s=ASK_S)
    contexts = [ContextRequestOut.of(request) for request in listed.requests]
    return Answer(200, ContextsListed(agent_id=id_, contexts=contexts, since=listed.since, timestamp=call.now))


@routes.add(
    Route(
        "DELETE",
        "/api/cache/context/<issue_id>",
        needs=Permission.READ_CONTEXT,
        answers=CacheCleared,
        errors=(Unavailable,),
    )
)
def clear_context(call: Call[Nothing, Nothing], issue_id: str) -> Answer:
    """Clear the cached contexts of an issue."""
    return _cleared(call, issue_id)


@routes.add(Route("DELETE", "/api/cache/all", needs=Permission.ADMIN, answers=CacheCleared, errors=(Unavailable,)))
def clear_all_contexts(call: Call[Nothing, Nothing]) -> Answer:
    """Clear all cached contexts."""
    return _cleared(call, None)


def _cleared(call: Call[Nothing, Nothing], issue_id: str | None) -> Answer:
    request = ClearContext(project_id=call.scope, issue_id=issue_id)
    return Answer(200, CacheCleared.of(ask(call.actors.contexts, request, timeout_s=ASK_S), now=call.now))
