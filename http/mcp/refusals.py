"""What a client is told where its request was refused before the protocol's own methods saw it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from ...state.errors import (
    BodyTooLarge,
    InvalidRequest,
    NotJson,
    PermissionDenied,
    RateLimited,
    TokenExpired,
    Unauthorized,
    WrongProject,
)
from ..routing import Answer, Refused
from .rpc import INVALID_PARAMS, Id, Reply, failure_of, is_self_contained, refusal

_OF_REQUEST = (Unauthorized, TokenExpired, PermissionDenied, WrongProject, NotJson, BodyTooLarge)


class _Addressed(msgspec.Struct, frozen=True):
    """What is needed of a message to refuse it, whatever is wrong with its parameters."""

    jsonrpc: Literal["2.0"]
    method: str
    id: Id | UnsetType = UNSET


def refused(header: Callable[[str], str | None], raw: bytes, error: BaseException) -> Answer | Refused | BaseException:
    """What is answered where a request was refused before its message was looked at, with the body as far as it came.

    An error that concerns the HTTP request (token, Host, Origin, media type) stays one. What concerns one message, such
    as the rate, is told to whoever sent it with HTTP 200 where the protocol has sessions: any other status ends them.
    """
    if isinstance(error, _OF_REQUEST) or is_self_contained(header("MCP-Protocol-Version")):
        return error
    try:
        message = msgspec.json.decode(raw, type=_Addressed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return error  # it is no message
    id_ = message.id
    if id_ is UNSET:
        return Answer(202, b"")  # a notification gets no answer, whatever becomes of it
    if isinstance(error, InvalidRequest):
        return Refused(error, lambda body: failure_of(body, id_, code=INVALID_PARAMS))
    if message.method == "tools/list" and isinstance(error, RateLimited):
        from .methods import LISTED  # the tools' schemas take longer to make than a start should

        return Answer(200, Reply(id=id_, result=LISTED))  # costs no more than to refuse it, and clients ask it to go on
    if message.method == "tools/call":
        return Refused(error, lambda body: Reply(id=id_, result=refusal(body)))
    return Refused(error, lambda body: failure_of(body, id_))
