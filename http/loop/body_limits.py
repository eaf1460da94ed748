"""Bodies that are too large are refused when their length is known, by the limit of the route they are for."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from typing import Any

from waitress.parser import HTTPRequestParser
from waitress.utilities import RequestEntityTooLarge

from ..routing import NO_BODY_BYTES, Route
from .connection import Connection

LimitOf = Callable[[str, str], int]


def body_limits(routes: Iterable[Route]) -> LimitOf:
    """From method and path to the most bytes a body may have; where no body is read, to NO_BODY_BYTES."""
    limits = [
        (route.method, re.compile(re.sub(r"<\w+>", "[^/]+", route.path)), route.max_body_bytes)
        for route in routes
        if route.body is not None
    ]

    def limit_of(method: str, path: str) -> int:
        fitting = (limit for of, pattern, limit in limits if of == method and pattern.fullmatch(path))
        return next(fitting, NO_BODY_BYTES)

    return limit_of


def limited_connection(limit_of: LimitOf) -> type[Connection]:
    """The connections of a server that refuses bodies by `limit_of`."""

    adjusted: dict[int, Any] = {}  # by limit; a copy for each request would cost more than the check

    class Parser(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
        """Waitress's parser, which looks at its own limit once the head is read and again as chunks come in."""

        adj: Any
        error: Any

        def parse_header(self, header_plus: bytes) -> None:
            super().parse_header(header_plus)
            limit = limit_of(self.command, self.path)
            if limit not in adjusted:
                adjusted[limit] = copy.copy(self.adj)
                # It refuses what is as large as its limit; ours is the largest size that is taken.
                adjusted[limit].max_request_body_size = limit + 1
            self.adj = adjusted[limit]

        def received(self, data: bytes) -> int:
            consumed: int = super().received(data)
            if isinstance(self.error, RequestEntityTooLarge):
                self.error = RequestEntityTooLarge(str(self.adj.max_request_body_size - 1))
            return consumed

    class LimitedConnection(Connection):
        parser_class: Any = Parser

    return LimitedConnection
