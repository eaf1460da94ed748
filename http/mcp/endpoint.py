"""`POST /mcp`: the sidecar for agents that speak the Model Context Protocol. They need only a URL and their token.

Streamable HTTP without sessions and without a stream of our own: each request is answered by one JSON document. The
tools are the routes of the HTTP API, so tokens, permissions, limits and errors are the same.

See docs/mcp.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from msgspec import UNSET

from ...state.errors import PermissionDenied
from ..routes.results import MAX_RESULT_BYTES
from ..routing import Answer, Call, Handler, Outcome, Route, Routes
from ..wire.codec import Nothing
from .refusals import refused
from .rpc import Failure, Message, Reply, failure_of

routes = Routes()


def _door(path: str) -> Callable[[Handler], Handler]:
    return routes.add(
        Route(
            "POST",
            path,
            body=Message,
            max_body_bytes=MAX_RESULT_BYTES,
            answers=Reply,
            is_wait=True,
            error_shape=failure_of,
            refuse=refused,
            also={202: None, 400: Failure, 404: Failure},
        )
    )


@_door("/api/mcp")  # an agent's SIDECAR_URL ends with /api
@_door("/mcp")
def speak_mcp(call: Call[Message, Nothing]) -> Outcome:
    """Speak the Model Context Protocol (streamable HTTP, stateless)."""
    _require_own_origin(call)
    message = call.body
    if message.method is UNSET or message.id is UNSET:
        return Answer(202, b"")  # a notification; there is nothing that it could change
    from .methods import answer  # the tools' schemas take longer to make than a start should, and not all speak MCP

    return answer(call, message.id, message.method)


def _require_own_origin(call: Call[Any, Any]) -> None:
    """A page in a browser names its origin, and none but our own has any business here."""
    origin = call.header("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != (call.header("Host") or "").lower():
        raise PermissionDenied("this Origin is not served here", field="Origin", expected=call.header("Host"))
