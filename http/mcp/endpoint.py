"""`POST /mcp`: the sidecar for agents that speak the Model Context Protocol, with nothing but a URL and their token.

Streamable HTTP without sessions and without a stream of our own: each request is answered by one JSON document. The
tools are the routes of the HTTP API, so tokens, permissions, limits and errors are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET

from ...actors.asking import Later
from ...state.errors import PermissionDenied
from ...state.identity import Caller
from ..access.auditing import code_of
from ..errors import ErrorBody
from ..routes.results import MAX_RESULT_BYTES
from ..routing import Answer, Call, Handler, Outcome, Pending, Refused, Routes
from ..wire.codec import Nothing, encode
from .rpc import (
    INVALID_PARAMS,
    SELF_CONTAINED,
    SERVER_INFO,
    UNKNOWN_METHOD,
    WITH_HANDSHAKE,
    Failure,
    Id,
    Message,
    Reply,
    completed,
    failed,
    failure_of,
    fault_of_request,
    is_self_contained,
)
from .tools import TOOLS, Tool

routes = Routes()

_CAPABILITIES: dict[str, Any] = {"tools": {}}
_LISTED = {"tools": [tool.listed() for tool in TOOLS.values()]}


def _door(path: str) -> Callable[[Handler], Handler]:
    return routes.add(
        "POST",
        path,
        body=Message,
        max_body_bytes=MAX_RESULT_BYTES,
        answers=Reply,
        is_wait=True,
        error_shape=failure_of,
        also={202: None, 400: Failure, 404: Failure},
    )


@_door("/api/mcp")  # an agent's SIDECAR_URL ends with /api
@_door("/mcp")
def speak_mcp(call: Call[Message, Nothing]) -> Outcome:
    """Speak the Model Context Protocol (streamable HTTP, stateless)."""
    _require_own_origin(call)
    message = call.body
    if message.method is UNSET or message.id is UNSET:
        return Answer(202, b"")  # a notification; there is nothing that it could change
    version = call.header("MCP-Protocol-Version")
    if not is_self_contained(version):
        return _with_handshake(call, message.id, message.method)
    fault = fault_of_request(message, call.header)
    if fault is not None:
        return failed(message.id, *fault)
    return _self_contained(call, message.id, message.method)


def _require_own_origin(call: Call[Any, Any]) -> None:
    """A page in a browser names its origin, and none but our own has any business here."""
    origin = call.header("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != (call.header("Host") or "").lower():
        raise PermissionDenied("this Origin is not served here", field="Origin", expected=call.header("Host"))


def _with_handshake(call: Call[Message, Nothing], id_: Id, method: str) -> Outcome:
    match method:
        case "initialize":
            asked = call.body.params.protocol_version
            result = {
                "protocolVersion": asked if asked in WITH_HANDSHAKE else WITH_HANDSHAKE[-1],
                "capabilities": _CAPABILITIES,
                "serverInfo": SERVER_INFO,
                "instructions": _instructions(call.caller),
            }
            return _reply(id_, result)
        case "ping":
            return _reply(id_, {})
        case "tools/list":
            return _reply(id_, _LISTED)
        case "tools/call":
            return _called(call, id_, lambda result: result)
        case _:
            return _unknown(id_, method)


def _self_contained(call: Call[Message, Nothing], id_: Id, method: str) -> Outcome:
    match method:
        case "server/discover":
            result = {
                "supportedVersions": list(SELF_CONTAINED),
                "capabilities": _CAPABILITIES,
                "instructions": _instructions(call.caller),
            }
            return _reply(id_, completed(result, cache="private"))
        case "tools/list":
            return _reply(id_, completed(_LISTED, cache="public"))
        case "tools/call":
            return _called(call, id_, completed)
        case _:
            return _unknown(id_, method)


def _reply(id_: Id, result: dict[str, Any]) -> Answer:
    return Answer(200, Reply(id=id_, result=result))


def _unknown(id_: Id, method: str) -> Answer:
    return failed(id_, UNKNOWN_METHOD, f"Method not found: {method}")


def _instructions(caller: Caller) -> str:
    """What a model is told of where it is. Its parts are identifiers, so nothing else can get in."""
    issue = f", on issue {caller.issue_id}" if caller.issue_id is not None else ""
    return (
        f"You are agent {caller.agent_id} of type {caller.agent_type} in project {caller.project_id}{issue}, one of "
        "several that work side by side. Call get_context before you begin. Tell others what you have done with "
        "publish_event, and learn what they did with wait_for_event. Hand in what you did with store_result before "
        "you end."
    )


Finish = Callable[[dict[str, Any]], dict[str, Any]]


def _called(call: Call[Message, Nothing], id_: Id, finish: Finish) -> Outcome:
    """Call a tool. What goes wrong in it is a result that the model reads, with the code of the HTTP API."""
    params = call.body.params
    tool = TOOLS.get(params.name)
    if tool is None:
        return failed(id_, INVALID_PARAMS, f"Unknown tool: {params.name}", {"known": list(TOOLS)})

    def settled(produce: Callable[[], Outcome]) -> Outcome:
        try:
            outcome = produce()
        except Exception as error:  # noqa: BLE001  # rendered, and logged where it is not one of ours
            call.server.instruments.called_tool(tool.name, code_of(error))
            return Refused(error, lambda body: Reply(id=id_, result=finish(_refusal(body))))
        if isinstance(outcome, Pending):
            return _PendingTool(outcome, settled)
        if isinstance(outcome, Answer):
            call.server.instruments.called_tool(tool.name, "ok")
            return _reply(id_, finish(_content(tool, outcome)))
        return outcome

    return settled(lambda: tool.call(call, params.arguments or {}))


class _PendingTool(Pending[Any]):
    """A tool's answer that comes later, by the same means as the route's, so that it holds no thread either."""

    def __init__(self, inner: Pending[Any], settled: Callable[[Callable[[], Outcome]], Outcome]) -> None:
        super().__init__(inner.later, inner.render, deadline_s=inner.deadline_s, receipt=inner.receipt, late=inner.late)
        self._settled = settled

    def settle(self, future: Later[Any]) -> Answer | Refused:
        outcome = self._settled(lambda: super(_PendingTool, self).settle(future))
        assert isinstance(outcome, Answer | Refused)
        return outcome


def _content(tool: Tool, answer: Answer) -> dict[str, Any]:
    """The answer as text for clients that show text, and as the object that `outputSchema` describes."""
    body = tool.body(answer.body)
    return {
        "content": [{"type": "text", "text": body.decode("utf-8")}],
        "structuredContent": msgspec.Raw(body),
        "isError": False,
    }


def _refusal(body: ErrorBody) -> dict[str, Any]:
    """Text alone: an error is no instance of the tool's `outputSchema`."""
    return {"content": [{"type": "text", "text": encode(body).decode("utf-8")}], "isError": True}
