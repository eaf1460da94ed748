"""For commands that go on until they are interrupted: a server that is restarted meanwhile is waited for."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from typing import TypeVar

from ...state.errors import SidecarError, Unavailable
from ..client.client import Client
from ..client.errors import NoServer
from .local_client import find_again
from .stderr import tell

T = TypeVar("T")

FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 5.0
DRAINING = "draining"


class Patience:
    """Asks again what the server went away over; it must be a question that may be asked twice.

    say: told when the server is lost and when it is back. Refusals and other errors are raised as they are. losses:
    how often the server was lost; what was under way then may have been answered into nothing.
    """

    def __init__(self, client: Client, say: Callable[[str], None] = tell) -> None:
        self._client = client
        self._say = say
        self.losses = 0

    def ask(self, question: Callable[[], T]) -> T:
        while True:
            try:
                return question()
            except (NoServer, Unavailable):
                self.losses += 1
                self._say(f"the sidecar at {self._client.url} does not answer; waiting for it to come back")
                self._until_back()
                self._say("the sidecar is back")

    def _until_back(self) -> None:
        """Pauses double, with jitter: all the terminals of a fleet must not come back in step."""
        for attempt in itertools.count():
            time.sleep(min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** min(attempt, 10)) * random.uniform(0.5, 1.0))
            try:
                find_again(self._client)
                if self._client.health(timeout_s=MAX_PAUSE_S).get("status") != DRAINING:
                    return
            except SidecarError:  # whatever it is, it is not our server as it should be: look again
                continue
