"""The WSGI application: every route, behind a door that checks host and path.

For each request in this order: host, path, route, token, rate, permission, identifiers, query, body; then the
route's function; then its answer, or its error by the one table.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import msgspec

from ..state.clock import utc_now
from ..state.errors import (
    InvalidRequest,
    NotJson,
    PermissionDenied,
    RateLimited,
    TokenExpired,
    Unauthorized,
)
from ..state.identity import AgentClass, Caller, Permission
from ..state.models import AgentId
from ..state.typed import decoder
from .access.auth import Authenticator, admit, class_of_caller, require, require_project
from .access.limits import headers_of, owner_of, refuse
from .access.sessions import session_of
from .acts import perform
from .exchange import Environ, Exchange, Rendered, StartResponse
from .loop.parking import ACCOUNT
from .loop.quick_routes import QuickRoutes
from .loop.request_parser import Quick
from .mcp import endpoint as mcp
from .open_requests import answer_when, stream
from .routes import agents, audit, context, events, ops, results
from .routes import dashboard as dashboard_page
from .routes import login as dashboard_login
from .routes import tokens as auth_routes
from .routing import Call, Outcome, Pending, Route, Server, Streaming, too_large
from .wire.codec import NOTHING, read_body, read_query

if TYPE_CHECKING:
    from .router import Router

log = logging.getLogger(__name__)

ROUTES: tuple[Route, ...] = (
    *agents.routes,
    *audit.routes,
    *auth_routes.routes,
    *context.routes,
    *dashboard_login.routes,
    *dashboard_page.routes,
    *events.routes,
    *mcp.routes,
    *ops.routes,
    *results.routes,
)

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


class _Head(msgspec.Struct, frozen=True):
    """The parsed, authorized headers of a request. Token validity and rate are checked again on every request."""

    caller: Caller
    agent_class: AgentClass
    query: Any
    asked_project: str | None


class _Memory:
    """What is known of a head that has come before. An agent that polls sends the same one each time."""

    __slots__ = ("head",)

    def __init__(self) -> None:
        self.head: _Head | None = None


class Application:
    """hosts: the values of Host that are served, lower case; None: any, for a server that the network may reach."""

    def __init__(
        self,
        server: Server,
        *,
        authenticator: Authenticator,
        hosts: frozenset[str] | None,
        private_paths: Mapping[str, str],
        routes: Iterable[Route] = ROUTES,
    ) -> None:
        self._server = server
        self._authenticator = authenticator
        self._limiter = server.limiter
        self._hosts = hosts
        self._private_paths = private_paths
        self._routes = tuple(routes)
        self._quick = QuickRoutes(self._routes)
        self._router: Router | None = None
        self._router_lock = threading.Lock()

    def find_quick(self, method: str, path: str) -> Quick | None:
        """Answers quick requests, such as publishes and waits, in the I/O thread, without the slower Bottle."""
        found = self._quick.find(method, path)
        return None if found is None else partial(self._answer_quickly, *found, _Memory())

    def _answer_quickly(
        self, route: Route, parts: dict[str, str], memory: _Memory, environ: Environ
    ) -> Rendered | None:
        """The answer; None: the request is parked and answered later. memory: of requests with the same head."""
        exchange = self._exchange(environ)
        exchange.is_for(route)
        try:
            head = memory.head
            if head is None:
                self._admit(environ)
                head = self._read_head(route, environ, exchange, parts)
                if head.caller is not _ANYONE and "HTTP_AUTHORIZATION" in environ:  # a browser's session may end
                    memory.head = head
            else:
                self._count(self._authenticator.still(head.caller), head.agent_class, exchange)
            return self._perform(route, environ, exchange, parts, head)
        except Exception as error:  # noqa: BLE001  # rendered, and logged where it is not one of ours
            return exchange.render(error)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        exchange = self._exchange(environ)
        try:
            self._admit(environ)
        except (PermissionDenied, InvalidRequest) as error:
            status, headers, body = exchange.render(error)
            start_response(f"{status} {HTTPStatus(status).phrase}", headers)
            return [] if exchange.method == "HEAD" else [body]
        return self._found_router()(environ, start_response)

    def _found_router(self) -> Router:
        """Made when it is first needed: with all of Bottle it would take a sixth of the time until the port opens."""
        with self._router_lock:
            if self._router is None:
                from .router import Router

                self._router = Router(self._routes, self._handle, self._refuse_unrouted)
            return self._router

    def _exchange(self, environ: Environ) -> Exchange:
        exchange = Exchange(environ, observer=self._server.observers.everyone, private_paths=self._private_paths)
        environ["sidecar.exchange"] = exchange
        return exchange

    def _admit(self, environ: Environ) -> None:
        """A page in a browser can name any host, but it cannot make the browser send another Host (DNS rebinding)."""
        host = environ.get("HTTP_HOST", "").lower()
        if self._hosts is not None and host not in self._hosts:
            raise PermissionDenied("this Host is not served here", field="Host", expected=sorted(self._hosts))
        path = (environ.get("REQUEST_URI") or environ.get("PATH_INFO", "")).partition("?")[0]
        if len(path) <= USUAL_PATH_CHARS:
            _require_usual_path(path)
        else:
            _require_plain_path(path)

    def _handle(self, route: Route, environ: Environ, parts: dict[str, str]) -> Rendered | None:
        """The answer of a route's function; None: the request is parked and answered later."""
        exchange: Exchange = environ["sidecar.exchange"]
        exchange.is_for(route)
        try:
            return self._perform(route, environ, exchange, parts, self._read_head(route, environ, exchange, parts))
        except Exception as error:  # noqa: BLE001  # rendered, and logged where it is not one of ours
            if route.refuse is None:
                return exchange.render(error)
            return exchange.render(route.refuse(header_of(environ), _body_again(environ, route), error))

    def _refuse_unrouted(self, environ: Environ, error: BaseException) -> Rendered:
        """Count a request for an unknown path against the caller's limit, too."""
        exchange: Exchange = environ["sidecar.exchange"]
        with suppress(Unauthorized, TokenExpired):  # nobody we know
            caller = self._authenticator.caller(environ.get("HTTP_AUTHORIZATION"))
            try:
                self._count(caller, class_of_caller(caller, self._server.profiles), exchange)
            except RateLimited as too_often:
                error = too_often
        return exchange.render(error)

    def _read_head(self, route: Route, environ: Environ, exchange: Exchange, parts: dict[str, str]) -> _Head:
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
        return _Head(caller, agent_class, query, asked_project)

    def _perform(
        self, route: Route, environ: Environ, exchange: Exchange, parts: dict[str, str], head: _Head
    ) -> Rendered | None:
        call = Call(
            caller=head.caller,
            body=NOTHING if route.body is None else read_body(_body(environ, route), decoder(route.body)),
            query=head.query,
            asked_project=head.asked_project,
            header=header_of(environ),
            server=self._server,
            now=utc_now(),
        )
        if head.caller is not _ANYONE:
            environ[ACCOUNT] = owner_of(head.caller)
        exchange.correlation_id = getattr(call.body, "correlation_id", None)
        return self._finish(environ, exchange, perform(route, call, parts))

    def _caller(self, route: Route, environ: Environ, exchange: Exchange) -> Caller:
        if route.access == "open" or (route.access == "loopback" and _is_loopback(environ.get("REMOTE_ADDR"))):
            return _ANYONE
        authorization = environ.get("HTTP_AUTHORIZATION")
        if route.access == "refresh":
            return self._authenticator.refresher(authorization)
        caller = self._logged_in(environ, exchange) if authorization is None else None
        if caller is None:
            caller = self._authenticator.caller(authorization)
        if route.access == "loopback":
            require(caller, Permission.ADMIN)
        return caller

    def _logged_in(self, environ: Environ, exchange: Exchange) -> Caller | None:
        """The operator whose browser session the request belongs to; None for a request without one."""
        session = session_of(self._server.sessions, header_of(environ), method=environ["REQUEST_METHOD"], now=utc_now())
        exchange.session = session
        return self._authenticator.still(session.caller) if session is not None else None

    def _count(self, caller: Caller, agent_class: AgentClass, exchange: Exchange) -> None:
        exchange.caller = caller
        taken = self._limiter.take(caller, agent_class, now=time.monotonic())
        if taken is None:
            return
        exchange.limit_headers = headers_of(taken, wall_now=time.time())
        if not taken.allowed:
            raise refuse(taken, caller.agent_id)

    def _finish(self, environ: Environ, exchange: Exchange, outcome: Outcome) -> Rendered | None:
        if isinstance(outcome, Pending):
            return answer_when(environ, exchange, outcome, self._server.holds)
        if isinstance(outcome, Streaming):
            stream(environ, exchange, outcome, self._server.holds)
            return None
        return exchange.render(outcome)


def header_of(environ: Environ) -> Callable[[str], str | None]:
    """Looks up a request's headers by the names they have on the wire."""
    return lambda name: environ.get(_in_environ(name))


@lru_cache(maxsize=64)  # the names are ours
def _in_environ(name: str) -> str:
    return "HTTP_" + name.upper().replace("-", "_")


def _is_loopback(address: str | None) -> bool:
    try:
        return address is not None and ip_address(address).is_loopback
    except ValueError:
        return False


_NEVER_IN_A_PATH = (b"/", b"\\", b"\0")


def _require_plain_path(path: str) -> None:
    """Raises InvalidRequest for a path whose parts, once decoded, hold a separator, a NUL, dots alone or no UTF-8."""
    for part in path.split("/"):
        decoded = unquote_to_bytes(part)
        try:
            decoded.decode("utf-8")
            is_text = True
        except UnicodeDecodeError:
            is_text = False
        if not is_text or decoded in (b".", b"..") or any(byte in decoded for byte in _NEVER_IN_A_PATH):
            raise InvalidRequest(
                "a part of the path is not an identifier",
                field="path",
                expected="1 to 128 of A-Z a-z 0-9 . _ : @ - in each part",
            )


USUAL_PATH_CHARS = 512  # a client can make paths up without end; longer ones are not remembered
# Agents ask for the same few paths over and over; what it raises is not kept.
_require_usual_path = lru_cache(maxsize=1024)(_require_plain_path)


def _require_acceptable_body(environ: Environ, route: Route) -> None:
    """Raises InvalidRequest, BodyTooLarge, NotJson by what the head declares."""
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


def _body_again(environ: Environ, route: Route) -> bytes:
    """The body from its beginning, even if it was read before; cut at the largest allowed size."""
    body = environ["wsgi.input"]
    body.seek(0)
    raw: bytes = body.read(route.max_body_bytes)
    return raw


def _body(environ: Environ, route: Route) -> bytes:
    """The whole body; one that came in chunks has not declared how much it is."""
    raw: bytes = environ["wsgi.input"].read(route.max_body_bytes + 1)
    if len(raw) > route.max_body_bytes:
        raise too_large(route.max_body_bytes)
    return raw
