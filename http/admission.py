"""From a request to a Call: its caller, their permissions, its query and body.

Checked in this order: token, rate, permission, identifiers in the path, query, declared body, body.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

import msgspec

from ..state.clock import utc_now
from ..state.errors import InvalidRequest, NotJson
from ..state.identity import AgentClass, Caller, Permission
from ..state.models import AgentId
from .access.auth import admit, class_of_caller, require, require_project
from .access.limits import headers_of, owner_of, refuse
from .access.sessions import session_of
from .exchange import Environ, Exchange
from .loop.parking import ACCOUNT
from .loop.request_parser import HEAD
from .routing import Call, Route, Server, too_large
from .wire.codec import NOTHING, read_body, read_query

_ANYONE = Caller(
    agent_id=AgentId(""),
    agent_type="",
    project_id="",
    issue_id=None,
    permissions=frozenset(),
    token_id="",
    issued_at=utc_now(),
    expires_at=utc_now(),
)


class Meaning(msgspec.Struct, frozen=True):
    """The parsed, authorized head of a request. Token validity and rate are checked again on every request."""

    route: Route
    parts: dict[str, str]
    caller: Caller
    agent_class: AgentClass
    query: Any
    asked_project: str | None


class Admission:
    """Admits requests. A meaning is cached with its headers, so that repeated requests are not checked in full
    again."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def admit(self, route: Route, parts: dict[str, str], environ: Environ, exchange: Exchange) -> Meaning:
        """Admit a request by its headers. Raises the error of the first failed check."""
        exchange.is_for(route)
        caller = self._caller(route, environ, exchange)
        agent_class = class_of_caller(caller, self._server.profiles)
        if caller is not _ANYONE:
            self._count(caller, agent_class, exchange)
        admit(caller, route.needs, parts)
        query, asked_project = read_query(environ.get("QUERY_STRING", ""), route.query)
        if asked_project is not None and caller is not _ANYONE:
            require_project(caller, asked_project)
        if route.body is not None:
            _require_acceptable_body(environ, route)
        meaning = Meaning(route, parts, caller, agent_class, query, asked_project)
        # It must not depend on anything else in the request, such as its address or a browser's session.
        if route.access == "token" and environ.get(HEAD) is not None and "HTTP_AUTHORIZATION" in environ:
            environ[HEAD].meaning = meaning
        return meaning

    def call(self, meaning: Meaning, environ: Environ, exchange: Exchange, *, is_again: bool) -> Call[Any, Any]:
        """Read the body. is_again: the headers came before, so only token and rate are checked.

        Raises TokenExpired, Unauthorized, RateLimited, InvalidRequest, BodyTooLarge.
        """
        route, caller = meaning.route, meaning.caller
        if is_again:
            exchange.is_for(route)
            self._count(self._server.authenticator.recheck(caller), meaning.agent_class, exchange)
        call = Call(
            caller=caller,
            body=NOTHING if route.body is None else read_body(_body(environ, route), route.decoder),
            query=meaning.query,
            asked_project=meaning.asked_project,
            header=header_of(environ),
            server=self._server,
            now=utc_now(),
        )
        if caller is not _ANYONE:
            environ[ACCOUNT] = owner_of(caller)
        exchange.correlation_id = getattr(call.body, "correlation_id", None)
        return call

    def count_unrouted(self, environ: Environ, exchange: Exchange) -> None:
        """Count a request for an unknown path against its caller's limit. Raises Unauthorized, RateLimited."""
        caller = self._server.authenticator.caller(environ.get("HTTP_AUTHORIZATION"))
        self._count(caller, class_of_caller(caller, self._server.profiles), exchange)

    def _count(self, caller: Caller, agent_class: AgentClass, exchange: Exchange) -> None:
        exchange.caller = caller
        taken = self._server.limiter.take(caller, agent_class, now=time.monotonic())
        if taken is None:
            return
        exchange.limit_headers = headers_of(taken, wall_now=time.time())
        if not taken.allowed:
            raise refuse(taken, caller.agent_id)

    def _caller(self, route: Route, environ: Environ, exchange: Exchange) -> Caller:
        if route.access == "open" or (route.access == "loopback" and _is_loopback(environ.get("REMOTE_ADDR"))):
            return _ANYONE
        authorization = environ.get("HTTP_AUTHORIZATION")
        if route.access == "refresh":
            return self._server.authenticator.refresher(authorization)
        caller = self._logged_in(environ, exchange) if authorization is None else None
        if caller is None:
            caller = self._server.authenticator.caller(authorization)
        if route.access == "loopback":
            require(caller, Permission.ADMIN)
        return caller

    def _logged_in(self, environ: Environ, exchange: Exchange) -> Caller | None:
        """The operator whose browser session the request belongs to; None for a request without one."""
        session = session_of(self._server.sessions, header_of(environ), method=environ["REQUEST_METHOD"], now=utc_now())
        exchange.session = session
        return self._server.authenticator.recheck(session.caller) if session is not None else None


def header_of(environ: Environ) -> Callable[[str], str | None]:
    """Look up a request's headers by their names on the wire."""
    return lambda name: environ.get(_in_environ(name))


@lru_cache(maxsize=64)  # the names are ours
def _in_environ(name: str) -> str:
    return "HTTP_" + name.upper().replace("-", "_")


def _is_loopback(address: str | None) -> bool:
    try:
        return address is not None and ip_address(address).is_loopback
    except ValueError:
        return False


def _require_acceptable_body(environ: Environ, route: Route) -> None:
    """Raises InvalidRequest, BodyTooLarge or NotJson if the headers declare such a body."""
    encoding = environ.get("HTTP_CONTENT_ENCODING", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise NotJson("the body is compressed, which is not supported", field="Content-Encoding", expected="identity")
    declared = environ.get("CONTENT_LENGTH") or "0"
    if not declared.isdigit():
        raise InvalidRequest("Content-Length is not a number", field="Content-Length", expected="a number of bytes")
    if int(declared) > route.max_body_bytes:
        raise too_large(route.max_body_bytes)
    media_type = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise NotJson("the body is not declared as JSON", field="Content-Type", expected="application/json")


def _body(environ: Environ, route: Route) -> bytes:
    """The whole body. Raises BodyTooLarge for a chunked one, which does not declare its size."""
    raw: bytes = environ["wsgi.input"].read(route.max_body_bytes + 1)
    if len(raw) > route.max_body_bytes:
        raise too_large(route.max_body_bytes)
    return raw


def body_again(environ: Environ) -> bytes:
    """The body from its start, even if it was read before."""
    body = environ["wsgi.input"]
    body.seek(0)
    raw: bytes = body.read()
    return raw
