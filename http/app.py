"""The application: all routes, behind a check of host and path, for the I/O thread and for workers.

For each request, in this order: host, path, route, the checks of admission.py, the route's function, and its answer,
or its error by the table of errors.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from ..state.errors import InvalidRequest, MethodNotAllowed, NotFound, PermissionDenied, TokenExpired, Unauthorized
from .acts import perform
from .admission import Admission, Meaning, body_again, header_of
from .exchange import Environ, Exchange, Rendered, StartResponse
from .loop.answers import status_line
from .loop.handling import Handler
from .loop.request_parser import HEAD, RememberedHead
from .mcp import endpoint as mcp
from .open_requests import answer_later
from .routes import agents, audit, context, events, ops, results
from .routes import dashboard as dashboard_page
from .routes import login as dashboard_login
from .routes import tokens as auth_routes
from .routing import Answer, Route, Server

if TYPE_CHECKING:
    from .router import Router

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


class Application:
    """Answers requests. hosts: the values of Host that are served, lower case; None: any, for a server that the network
    may reach. private_paths: see Exchange.
    """

    def __init__(
        self,
        server: Server,
        *,
        hosts: frozenset[str] | None,
        private_paths: Mapping[str, str],
        routes: Iterable[Route] = ROUTES,
    ) -> None:
        self._observer = server.observers.everyone
        self._holds = server.holds
        self._admission = Admission(server)
        self._hosts = hosts
        self._private_paths = private_paths
        self._routes = routes

    @cached_property
    def router(self) -> Router:
        """Finds the route of a request. The first request makes it: Bottle imports much that a start does not need."""
        from .router import Router

        return Router(self._routes)

    def find_quick(self, method: str, path: str) -> Handler | None:
        """The handler of a quick route, which runs in the I/O thread; None for other routes, which workers answer."""
        return self.answer if self.router.is_quick(method, path) else None

    def body_limit(self, method: str, path: str) -> int:
        """The most bytes that a request's body may have."""
        return self.router.body_limit(method, path)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer as a WSGI application does; a parked request seems to have an empty answer."""
        rendered = self.answer(environ) or Rendered(200, [], b"")
        start_response(status_line(rendered.status), rendered.headers)
        return [rendered.body]

    def answer(self, environ: Environ) -> Rendered | None:
        """Answer a request, in any thread. None: it is parked and answered later."""
        exchange = Exchange(environ, observer=self._observer, private_paths=self._private_paths)
        try:
            head: RememberedHead | None = environ.get(HEAD)
            known: Meaning | None = None if head is None else head.meaning
            meaning = known or self._admit(environ, exchange)
            call = self._admission.call(meaning, environ, exchange, is_again=known is not None)
            outcome = perform(meaning.route, call, meaning.parts)
            if isinstance(outcome, Answer):
                return exchange.render(outcome)
            return answer_later(environ, exchange, outcome, self._holds)
        except Exception as error:  # noqa: BLE001  # rendered, and logged where it is not one of ours
            if exchange.refuse is None:
                return exchange.render(error)
            return exchange.render(exchange.refuse(header_of(environ), body_again(environ), error))

    def _admit(self, environ: Environ, exchange: Exchange) -> Meaning:
        """Admit a request whose headers are new."""
        self._require_served(environ)
        try:
            route, parts = self.router.match(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        except (NotFound, MethodNotAllowed):
            with suppress(Unauthorized, TokenExpired):  # an unknown caller has no limit
                self._admission.count_unrouted(environ, exchange)
            raise
        return self._admission.admit(route, parts, environ, exchange)

    def _require_served(self, environ: Environ) -> None:
        """A page in a browser can name any host, but it cannot make the browser send another Host (DNS rebinding)."""
        host = environ.get("HTTP_HOST", "").lower()
        if self._hosts is not None and host not in self._hosts:
            raise PermissionDenied("this Host is not served here", field="Host", expected=sorted(self._hosts))
        path = (environ.get("REQUEST_URI") or environ.get("PATH_INFO", "")).partition("?")[0]
        if len(path) <= USUAL_PATH_CHARS:
            _require_usual_path(path)
        else:
            _require_plain_path(path)


_NEVER_IN_A_PATH = (b"/", b"\\", b"\0")


def _require_plain_path(path: str) -> None:
    """Raises InvalidRequest if a decoded part of the path has a separator, a NUL, only dots or invalid UTF-8."""
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


USUAL_PATH_CHARS = 512  # clients can invent any number of paths; longer ones are not cached
# Agents use the same few paths again and again; errors are not cached.
_require_usual_path = lru_cache(maxsize=1024)(_require_plain_path)
