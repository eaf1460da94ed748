"""Answers requests that were refused before a method of the protocol saw them."""

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
    """The fields of a message that a refusal needs, even if its parameters are wrong."""

    jsonrpc: Literal["2.0"]
    method: str
    id: Id | UnsetType = UNSET


def refused(header: Callable[[str], str | None], raw: bytes, error: BaseException) -> Answer | Refused | BaseException:
    """The answer to a request that was refused before its message was read. body: as far as it arrived.

    An error about the HTTP request (token, Host, Origin, media type) keeps its status. An error about one message, such
    as the rate, comes with HTTP 200 where the protocol has sessions: any other status ends them.
    """
    if isinstance(error, _OF_REQUEST) or is_self_contained(header("MCP-Protocol-Version")):
        return error
    try:
        message = msgspec.json.decode(raw, type=_Addressed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return error  # the body is not a message
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
