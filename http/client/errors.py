"""Errors of the API as the exceptions they were raised as: `NotFound` there is `NotFound` here."""

from __future__ import annotations

from typing import Any

import msgspec

from ...state.errors import SidecarError
from ...state.typed import decode
from .steps import HttpAnswer


class NoServer(SidecarError):
    """No server answers at the URL, or the connection broke before the answer."""

    code = "no_server"


class UnexpectedAnswer(SidecarError):
    """The answer comes from a program that is not a sidecar, or from another version."""

    code = "unexpected_answer"


class Superseded(SidecarError):
    """Another wait on the same mailbox took over; a second reader of the same events needs its own `consumer`."""

    code = "superseded"


class _Refusal(msgspec.Struct):
    error: str
    message: str
    code: str = ""
    details: dict[str, Any] = {}
    request_id: str = ""


def _family(kind: type[SidecarError]) -> dict[str, type[SidecarError]]:
    classes = {kind.code: kind}
    for child in kind.__subclasses__():
        classes |= _family(child)
    return classes


def error_of(answer: HttpAnswer, *, url: str) -> SidecarError:
    """The error that an answer stands for.

    `details` holds what the server sent, and `status`, `wire_code` (such as REQ_404) and `request_id`.
    """
    try:
        refusal = decode(answer.body, _Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not a sidecar's own answer: a proxy in between, or another program on that port.
        return no_sidecar(url, f"status {answer.status} without the error object of one", status=answer.status)
    error = _family(SidecarError).get(refusal.error, SidecarError)(refusal.message)
    error.details = {
        **refusal.details,
        "status": answer.status,
        "wire_code": refusal.code,
        "request_id": refusal.request_id,
    }
    return error


def no_sidecar(url: str, reason: str, **details: object) -> UnexpectedAnswer:
    """The error for an answer that no sidecar of this version gives. reason: what was expected, or came instead."""
    return UnexpectedAnswer(
        f"what answers at {url} is no sidecar, or one of another version: {reason}", url=url, **details
    )
