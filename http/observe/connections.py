"""Counts connections by state. Those with a parked request hold no thread while they wait.

Counted on request, in another thread than the I/O loop's: a connection that comes or goes meanwhile may be missed.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..loop.io_loop import HttpServer
    from ..loop.stages import Stage


class Connections:
    """The connections of the HTTP server given to `watch`, which is made after its readers."""

    def __init__(self) -> None:
        self._server: HttpServer | None = None

    def watch(self, server: HttpServer) -> None:
        self._server = server

    def by_stage(self) -> Counter[Stage]:
        return Counter() if self._server is None else self._server.stages()
