"""Bottle, which finds the route of every request that is not answered in the I/O thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import bottle

from ..state.errors import InvalidRequest, MethodNotAllowed, NotFound
from .exchange import Environ, Rendered, StartResponse
from .routing import Route

Handle = Callable[[Route, Environ, dict[str, str]], Rendered | None]
Refuse = Callable[[Environ, BaseException], Rendered]


class Router:
    """handle: the answer of a route, given the named parts of the path; None: the request is parked.

    refuse: the answer where there is no route, given why.
    """

    def __init__(self, routes: Iterable[Route], handle: Handle, refuse: Refuse) -> None:
        self._bottle = bottle.Bottle()
        self._bottle.default_error_handler = partial(_error, refuse)
        for route in routes:
            self._bottle.route(route.path, route.method, _callback(route, handle))

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        answer: Iterable[bytes] = self._bottle(environ, start_response)
        return answer


def _callback(route: Route, handle: Handle) -> Callable[..., Any]:
    def answer(**parts: str) -> Any:
        rendered = handle(route, bottle.request.environ, parts)
        return b"" if rendered is None else bottle.HTTPResponse(rendered.body, rendered.status, rendered.headers)

    return answer


def _error(refuse: Refuse, response: Any) -> Any:
    """Bottle's own errors: no such route, another method, a path it cannot decode, a fault inside Bottle."""
    method = bottle.request.environ["REQUEST_METHOD"]
    error: BaseException
    if response.status_code == 404:
        error = NotFound("there is nothing at this path", field="path")
    elif response.status_code == 405:
        allowed = response.headers["Allow"].split(",")
        error = MethodNotAllowed(f"{method} is not answered here", field="method", allowed=allowed)
    elif response.status_code == 400:
        error = InvalidRequest("the request cannot be read", field="path", expected="UTF-8")
    else:
        error = response.exception or RuntimeError(response.body)
    rendered = refuse(bottle.request.environ, error)
    bottle.response.status = rendered.status
    bottle.response.headers.clear()
    for name, value in rendered.headers:
        bottle.response.set_header(name, value)
    return rendered.body
