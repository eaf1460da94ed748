"""The methods of the Model Context Protocol: what a message gets for an answer, in either way of speaking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ...actors.runtime.asking import Later
from ...state.identity import Caller
from ..observe.auditing import code_of
from ..routing import Answer, Call, Outcome, Pending, Refused
from ..wire.codec import Nothing, quoted
from .rpc import (
    INVALID_PARAMS,
    SELF_CONTAINED,
    SERVER_INFO,
    UNKNOWN_METHOD,
    WITH_HANDSHAKE,
    Id,
    Message,
    Reply,
    completed,
    failed,
    fault_of_request,
    is_self_contained,
    refusal,
)
from .tools import TOOLS, Tool

_CAPABILITIES: dict[str, Any] = {"tools": {}}
LISTED = {"tools": [tool.listed() for tool in TOOLS.values()]}


def answer(call: Call[Message, Nothing], id_: Id, method: str) -> Outcome:
    """The answer to a message that is no notification."""
    version = call.header("MCP-Protocol-Version")
    if not is_self_contained(version):
        return _with_handshake(call, id_, method)
    fault = fault_of_request(call.body, call.header)
    if fault is not None:
        return failed(id_, *fault, self_contained=True)
    return _self_contained(call, id_, method)


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
            return _reply(id_, LISTED)
        case "tools/call":
            return _called(call, id_, lambda result: result, self_contained=False)
        case _:
            return _unknown(id_, method, self_contained=False)


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
            return _reply(id_, completed(LISTED, cache="public"))
        case "tools/call":
            return _called(call, id_, completed, self_contained=True)
        case _:
            return _unknown(id_, method, self_contained=True)


def _reply(id_: Id, result: dict[str, Any]) -> Answer:
    return Answer(200, Reply(id=id_, result=result))


def _unknown(id_: Id, method: str, *, self_contained: bool) -> Answer:
    return failed(id_, UNKNOWN_METHOD, f"Method not found: {quoted(method)}", self_contained=self_contained)


def _instructions(caller: Caller) -> str:
    """The instructions for a model. They contain only identifiers, so no other text can get in."""
    issue = f", on issue {caller.issue_id}" if caller.issue_id is not None else ""
    return (
        f"You are agent {caller.agent_id} of type {caller.agent_type} in project {caller.project_id}{issue}, one of "
        "several that work side by side. Call get_context before you begin. Tell them about your work with "
        "publish_event, and learn of their work with wait_for_event. Store your own result with store_result before "
        "you end."
    )


Finish = Callable[[dict[str, Any]], dict[str, Any]]


def _called(call: Call[Message, Nothing], id_: Id, finish: Finish, *, self_contained: bool) -> Outcome:
    """Call a tool. What goes wrong in it is a result that the model reads, with the code of the HTTP API."""
    params = call.body.params
    tool = TOOLS.get(params.name)
    if tool is None:
        known = {"known": list(TOOLS)}
        return failed(id_, INVALID_PARAMS, f"Unknown tool: {quoted(params.name)}", known, self_contained=self_contained)

    def settled(produce: Callable[[], Outcome]) -> Outcome:
        try:
            outcome = produce()
        except Exception as error:  # noqa: BLE001  # rendered, and logged where it is not one of ours
            call.server.observers.everyone.called_tool(tool.name, code_of(error))
            return Refused(error, lambda body: Reply(id=id_, result=finish(refusal(body))))
        if isinstance(outcome, Pending):
            return _PendingTool(outcome, settled)
        if isinstance(outcome, Answer):
            call.server.observers.everyone.called_tool(tool.name, "ok")
            return _reply(id_, finish(_content(tool, outcome)))
        return outcome

    return settled(lambda: tool.call(call, params.arguments or {}))


class _PendingTool(Pending[Any]):
    """A tool's answer that comes later, by the same means as the route's, so that it holds no thread either."""

    def __init__(self, inner: Pending[Any], settled: Callable[[Callable[[], Outcome]], Outcome]) -> None:
        super().__init__(
            inner.later,
            inner.render,
            deadline_s=inner.deadline_s,
            receipt=inner.receipt,
            late=inner.late,
            is_wait=inner.is_wait,
        )
        self._settled = settled

    def settle(self, future: Later[Any]) -> Answer | Refused:
        outcome = self._settled(lambda: super(_PendingTool, self).settle(future))
        assert isinstance(outcome, Answer | Refused)
        return outcome


def _content(tool: Tool, answer: Answer) -> dict[str, Any]:
    """The answer as text, and as the object that `outputSchema` describes, if there is one."""
    body = tool.body(answer.body)
    text = {"content": [{"type": "text", "text": body.decode("utf-8")}], "isError": False}
    return text if tool.is_text else {**text, "structuredContent": msgspec.Raw(body)}
