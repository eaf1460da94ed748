"""Requests that wait without a thread: a handler parks its request, and the answer is written later.

The connection keeps the request at the head of its queue, and no thread waits. handling.py has the call for handlers.

See docs/long-polling.md.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, Protocol

from ...actors.runtime.asking import Later
from .deadlines import Deadline, Deadlines
from .delivery import tell_receipt
from .reply import Reply

ACCOUNT = "sidecar.account"  # in an environ: the account for the memory of an unread answer


class ParkingLoop(Protocol):
    """The loop that a parked request waits in. has_released: nothing may wait any more."""

    deadlines: Deadlines
    has_released: bool


class Parked:
    """A request that waits for `later`.

    render: makes status, headers and body from the finished future, in the I/O thread, so it must be quick; its
    headers are those of the whole answer. due: the `monotonic_s` at which `later` is cancelled; `render` then makes
    the answer from the cancelled future. receipt: called with True if the client took the answer, False if it was
    lost; at most once, and only when that is known.
    """

    __slots__ = ("_deadline", "_due", "_receipt", "_render", "later")

    def __init__(
        self,
        later: Later[Any],
        render: Callable[[Later[Any]], Reply],
        *,
        due: float,
        receipt: Callable[[bool], None] | None = None,
    ) -> None:
        self.later = later
        self._render = render
        self._due = due
        self._receipt = receipt
        self._deadline: Deadline | None = None

    def begin(self, loop: ParkingLoop, wake: Callable[[Later[Any]], None]) -> None:
        """Wait. wake: called when the answer is known, in any thread."""
        self._deadline = loop.deadlines.add(self._due, self.expire)
        self.later.add_done_callback(wake)
        if loop.has_released:
            self.expire()

    def end(self, loop: ParkingLoop) -> None:
        """Wait no more."""
        if self._deadline is not None:
            loop.deadlines.cancel(self._deadline)
            self._deadline = None

    def expire(self) -> None:
        """Cancel the future: the time is up."""
        self.later.cancel()

    def abandon(self) -> None:
        """Give up: the client has gone. If the answer came at this very moment, it is lost."""
        if not self.later.cancel() and (receipt := self.receipt()) is not None:
            tell_receipt(receipt, False)

    def receipt(self) -> Callable[[bool], None] | None:
        """The receipt, if there is an answer to take or to lose: not for an error or a cancelled wait."""
        return self._receipt if self._receipt is not None and self.later.was_answered() else None

    def reply(self) -> Reply:
        """Render the answer. Raises what `render` raises."""
        try:
            return self._render(self.later)
        except CancelledError:  # a renderer that does not look: the plainest answer is the right one
            return 503, (), b""


def forget_details(request: Any) -> None:
    """Keep only what the answer needs: thousands of waiting requests would hold 3 KB of headers each."""
    connection = request.headers.get("CONNECTION")
    request.__dict__ = {
        "version": request.version,
        "command": request.command,
        "path": request.path,
        "headers": _NO_HEADERS if connection is None else {"CONNECTION": connection},
    }


_NO_HEADERS: dict[str, str] = {}
