"""An actor for a loop: everything that the loop sends in one turn reaches the actor as one message.

Handing a message to another thread and waking it costs as much as handling it. A loop that reads sixteen publishes in
a turn wakes the actor once, and the actor commits them once.

See docs/long-polling.md.
"""

from __future__ import annotations

import threading

from .actor_supervisor import ActorHandle
from .asking import Envelope, Fact, Later, R, Request


class TurnByTurn:
    """Implements `asking.Recipient` for the thread that calls `flush` after each of its turns, and for all others.

    Messages of other threads are sent at once.
    """

    def __init__(self, handle: ActorHandle) -> None:
        self.handle = handle
        self._loop: int | None = None
        self._sent: list[Envelope] = []

    @property
    def name(self) -> str:
        return self.handle.name

    def tell(self, fact: Fact) -> None:
        self._send(Envelope(fact, None))

    def request(self, request: Request[R]) -> Later[R]:
        later: Later[R] = Later()
        self._send(self.handle.envelope(request, later))
        return later

    def _send(self, envelope: Envelope) -> None:
        if threading.get_ident() == self._loop:
            self._sent.append(envelope)
        else:
            self.handle.send((envelope,))

    def flush(self) -> None:
        """Send the messages of this turn. Called only by the loop's thread."""
        self._loop = threading.get_ident()
        if self._sent:
            sent, self._sent = self._sent, []
            self.handle.send(tuple(sent))
