"""The Model Context Protocol on the wire: JSON-RPC 2.0 messages, its versions, and how a request names one.

Two ways of speaking are current. Up to 2025-11-25 a client shakes hands with `initialize`; from 2026-07-28 on every
request carries its version in `_meta` and repeats method and tool in headers, for gateways that read no bodies.
Neither needs a session here, so none is kept.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType, field

from ... import __version__
from ..errors import ErrorBody
from ..routing import Answer
from ..wire.codec import encode

WITH_HANDSHAKE = ("2025-03-26", "2025-06-18", "2025-11-25")
SELF_CONTAINED = ("2026-07-28",)

# Source: JSON-RPC 2.0, section 5.1, and the MCP specification's own codes.
INVALID_REQUEST = -32600
UNKNOWN_METHOD = -32601
INVALID_PARAMS = -32602
INTERNAL = -32603
REFUSED = -32000
HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022

# Source: MCP 2026-07-28, Streamable HTTP. Clients of earlier versions, such as the Python SDK 1.x, give up
# their session at any such status: there, an error about one message comes with 200.
_STATUS = {
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    UNSUPPORTED_VERSION: 400,
    UNKNOWN_METHOD: 404,
}

_NAMESPACE = "io.modelcontextprotocol/"
_REQUIRED_META = (f"{_NAMESPACE}protocolVersion", f"{_NAMESPACE}clientCapabilities")
SERVER_INFO = {"name": "orchestration-sidecar", "title": "Orchestration sidecar", "version": __version__}

Id = int | str


class Params(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """All parameters that a method of the sidecar reads; others are ignored."""

    protocol_version: str = ""
    name: str = ""
    arguments: dict[str, msgspec.Raw] | None = None
    meta: dict[str, msgspec.Raw] = field(default={}, name="_meta")


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message. Without `id` it is a notification; without `method` it is an answer, which is not expected."""

    jsonrpc: Literal["2.0"]
    id: Id | UnsetType = UNSET
    method: str | UnsetType = UNSET
    params: Params = Params()


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong, as JSON-RPC 2.0 says it. code: of the protocol; data: the error of the HTTP API."""

    code: int
    message: str
    data: Any = None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a message that was refused. id: null if it was refused before it was read."""

    jsonrpc: str = "2.0"
    id: Id | None
    error: Fault


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one message: `result`, or `error` if it was refused."""

    jsonrpc: str = "2.0"
    id: Id
    result: dict[str, Any] | UnsetType = UNSET
    error: Fault | UnsetType = UNSET


def failed(id_: Id, code: int, message: str, data: Any = None, *, self_contained: bool) -> Answer:
    """An answer with the protocol's own kind of error, about the message itself."""
    return Answer(
        _STATUS[code] if self_contained else 200, Failure(id=id_, error=Fault(code=code, message=message, data=data))
    )


def failure_of(body: ErrorBody, id_: Id | None = None, *, code: int | None = None) -> Failure:
    """The sidecar's own error, such as a wrong token, in the shape that clients of this protocol show."""
    code = code or {"REQ_001": INVALID_REQUEST, "SRV_001": INTERNAL}.get(body.code, REFUSED)
    return Failure(id=id_, error=Fault(code=code, message=f"{body.code}: {body.message}", data=body))


def refusal(body: ErrorBody) -> dict[str, Any]:
    """The result of a tool that failed. Text alone: an error is no instance of the tool's `outputSchema`."""
    return {"content": [{"type": "text", "text": encode(body).decode("utf-8")}], "isError": True}


def is_self_contained(version: str | None) -> bool:
    """Whether a request of this MCP-Protocol-Version stands for itself, without a handshake."""
    return version is not None and version not in WITH_HANDSHAKE


def fault_of_request(message: Message, header: Callable[[str], str | None]) -> tuple[int, str, Any] | None:
    """What is wrong with a self-contained request (code, text, data), or None.

    Source: MCP 2026-07-28, "Per-request protocol fields" and "Request headers"; checked in that order.
    """
    version = header("MCP-Protocol-Version")
    if version not in SELF_CONTAINED:
        supported = [*SELF_CONTAINED, *reversed(WITH_HANDSHAKE)]
        return UNSUPPORTED_VERSION, "Unsupported protocol version", {"supported": supported, "requested": version}
    missing = [key for key in _REQUIRED_META if key not in message.params.meta]
    if missing:
        return INVALID_PARAMS, f"params._meta lacks {', '.join(missing)}", None
    if bytes(message.params.meta[_REQUIRED_META[0]]) != msgspec.json.encode(version):
        return HEADER_MISMATCH, "MCP-Protocol-Version is not the version of params._meta", None
    if header("Mcp-Method") != message.method:
        return HEADER_MISMATCH, "Mcp-Method is not the method of the body", None
    if message.method == "tools/call" and _decoded(header("Mcp-Name")) != message.params.name:
        return HEADER_MISMATCH, "Mcp-Name is not the name of params", None
    return None


_ENCODED = ("=?base64?", "?=")


def _decoded(value: str | None) -> str | None:
    """A header's text; what does not fit into a header comes as `=?base64?…?=`."""
    if value is None or not (value.startswith(_ENCODED[0]) and value.endswith(_ENCODED[1])):
        return value
    try:
        return base64.b64decode(value[len(_ENCODED[0]) : -len(_ENCODED[1])], validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None


def completed(result: dict[str, Any], *, cache: Literal["private", "public"] | None = None) -> dict[str, Any]:
    """A result as a self-contained answer gives it. cache: who may keep it; None: it is no such result."""
    marks: dict[str, Any] = {"resultType": "complete", "_meta": {f"{_NAMESPACE}serverInfo": SERVER_INFO}}
    if cache is not None:
        marks |= {"ttlMs": CACHE_MS, "cacheScope": cache}
    return result | marks


CACHE_MS = 300_000  # the tools change with the version of the sidecar only
