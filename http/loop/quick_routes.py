"""Which requests are handled in the I/O thread: those of routes whose function never waits for anything.

A publish, a wait and a spawn hand a message to an actor and park; a worker in between would cost two hand-overs between
threads, and would let a client's next wait overtake the news that its last one was given up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..routing import Route


class QuickRoutes:
    """Finds the quick route that a request is for, without the router that all others take."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [(route, re.compile(as_pattern(route.path))) for route in routes if route.is_quick]

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The route and the named parts of the path; None if it is for another one."""
        for route, pattern in self._routes:
            if route.method == method and (match := pattern.fullmatch(path)) is not None:
                return route, match.groupdict()
        return None


def as_pattern(path: str) -> str:
    """Bottle's `/a/<b>` as a regular expression."""
    return re.sub(r"<(\w+)>", r"(?P<\1>[^/]+)", path)
