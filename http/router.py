"""Finds the route of a request. The door to Bottle, whose router matches for every thread."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import bottle

from ..state.errors import MethodNotAllowed, NotFound
from .routing import NO_BODY_BYTES, Route


class Match(NamedTuple):
    """A route, and the named parts of the path."""

    route: Route
    parts: dict[str, str]


class Router:
    """The routes by method and path. A HEAD is for the GET of the same path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._router = bottle.Router()
        for route in routes:
            self._router.add(route.path, route.method, route)

    def match(self, method: str, path: str) -> Match:
        """The route for a request. path: as WSGI has it. Raises NotFound, MethodNotAllowed."""
        try:
            route, parts = self._router.match({"REQUEST_METHOD": method, "PATH_INFO": path})
        except bottle.HTTPError as error:
            if error.status_code == 405:
                allowed = error.headers["Allow"].split(",")
                raise MethodNotAllowed(f"{method} is not allowed here", field="method", allowed=allowed) from None
            raise NotFound("no route has this path", field="path") from None
        return Match(route, parts)

    def is_quick(self, method: str, path: str) -> bool:
        """Whether the route's function never waits for anything, so that it may run in the I/O thread.

        A publish, a wait and a spawn hand a message to an actor and park; a worker in between would cost two
        hand-overs between threads, and would let a client's next wait overtake the news that its last one was given up.
        """
        route = self._route(method, path)
        return route is not None and route.is_quick and route.method == method

    def body_limit(self, method: str, path: str) -> int:
        """The most bytes that a request's body may have; where no body is read, NO_BODY_BYTES."""
        route = self._route(method, path)
        return NO_BODY_BYTES if route is None else route.body_limit

    def _route(self, method: str, path: str) -> Route | None:
        try:
            return self.match(method, path).route
        except (NotFound, MethodNotAllowed):
            return None
