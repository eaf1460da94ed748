"""Which requests are handled in the I/O thread: those of routes whose function never waits for anything.

A publish and a wait hand a message to an actor and park; a worker in between would cost two hand-overs between
threads, and would let a client's next wait overtake the news that its last one was given up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from .routing import Route


def quick_routes(routes: Iterable[Route]) -> Callable[[str, str], bool]:
    """From method and path to whether the request is for a quick route."""
    paths: dict[str, list[str]] = {}
    for route in routes:
        if route.is_quick:
            paths.setdefault(route.method, []).append(re.sub(r"<\w+>", "[^/]+", route.path))
    patterns = {method: re.compile("|".join(of_method)) for method, of_method in paths.items()}

    def is_quick(method: str, path: str) -> bool:
        pattern = patterns.get(method)
        return pattern is not None and pattern.fullmatch(path) is not None

    return is_quick
