"""Holds: ends requests that wait or stream together with the token or browser session that allows them.

A request is allowed when it begins. A request that then waits for minutes or streams for hours must not outlive its
token. Requests are found by the token's id at a revocation, by the session at a log-out, and by the clock when a token
or session expires. Nothing here looks through all waiting requests.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime, timedelta

from ...state.clock import utc_now
from ...state.errors import RateLimited, SidecarError, Unauthorized
from ...state.identity import Caller
from .auth import Authenticator
from .limits import Owner, owner_of
from .sessions import Session, Sessions

MAX_STREAMS = 128  # of one agent; each browser tab and each command that follows a log has one
LOOK_AGAIN = timedelta(minutes=1)  # between looks at an expired token that is kept good

Right = str | bytes  # a token's id or a session's key


class Hold(ABC):
    """A request that waits or streams only while its caller is allowed to."""

    __slots__ = ("caller", "session")

    def __init__(self, caller: Caller, session: Session | None) -> None:
        self.caller = caller
        self.session = session

    @abstractmethod
    def end(self, error: SidecarError) -> None:
        """End it, in any thread. error: the reason."""


class Holds:
    """The requests that wait or stream, by the token and the session that allow them.

    Used by every thread. `look` has to be called about once a second.
    """

    def __init__(
        self, authenticator: Authenticator, sessions: Sessions, *, now: Callable[[], datetime] = utc_now
    ) -> None:
        self._authenticator = authenticator
        self._sessions = sessions
        self._now = now
        self._lock = threading.Lock()
        self._by_right: dict[Right, dict[Hold, None]] = {}
        self._due: list[tuple[datetime, int, Right]] = []  # a heap: when to look at the holds of a right
        self._number = itertools.count()
        self._scheduled: dict[Right, datetime] = {}  # the earliest of its times in the heap
        self._streams: dict[Owner, int] = {}

    def __len__(self) -> int:
        with self._lock:
            return len({hold for holds in self._by_right.values() for hold in holds})

    def add(self, hold: Hold) -> None:
        """Keep a request until `remove`; end it now if its caller may no longer ask."""
        with self._lock:
            for right in _rights_of(hold):
                self._add(right, hold, self._until(hold, right))
        self._end_if_over(hold)  # it may have ended between the request's beginning and this line

    def _add(self, right: Right, hold: Hold, until: datetime) -> None:
        self._by_right.setdefault(right, {})[hold] = None
        # A right may end earlier than was known when its last request was added: its token was revoked meanwhile.
        if right not in self._scheduled or until < self._scheduled[right]:
            self._schedule(until, right)

    def _schedule(self, at: datetime, right: Right) -> None:
        self._scheduled[right] = min(at, self._scheduled.get(right, at))
        heapq.heappush(self._due, (at, next(self._number), right))

    def remove(self, hold: Hold) -> None:
        """Forget a request that has ended. Nothing happens if it is forgotten already."""
        with self._lock:
            for right in _rights_of(hold):
                self._remove(right, hold)

    def _remove(self, right: Right, hold: Hold) -> None:
        holds = self._by_right.get(right)
        if holds is not None:
            holds.pop(hold, None)
            if not holds:
                del self._by_right[right]

    def open_stream(self, caller: Caller) -> None:
        """Count one more stream of the caller. Raises RateLimited."""
        owner = owner_of(caller)
        with self._lock:
            count = self._streams.get(owner, 0)
            if count >= MAX_STREAMS:
                raise RateLimited(
                    f"agent {caller.agent_id} has {count} streams open, the most that it may have: close one",
                    limit=MAX_STREAMS,
                    retry_after_s=1,
                )
            self._streams[owner] = count + 1

    def close_stream(self, caller: Caller) -> None:
        owner = owner_of(caller)
        with self._lock:
            left = self._streams[owner] - 1
            if left:
                self._streams[owner] = left
            else:
                del self._streams[owner]

    # The ends of a right

    def revoked(self, token_id: str, from_: datetime) -> None:
        """End the holds of a token that is refused from `from_` on."""
        with self._lock:
            if token_id in self._by_right:
                self._schedule(from_, token_id)
        self.look()

    def logged_out(self, key: bytes) -> None:
        """End the holds of a session."""
        self._look_at(key)

    def look(self) -> None:
        """End the holds whose token or session has expired by now."""
        now = self._now()
        while True:
            with self._lock:
                if not self._due or self._due[0][0] > now:
                    return
                at, _, right = heapq.heappop(self._due)
                if self._scheduled.get(right) == at:
                    del self._scheduled[right]
            self._look_at(right)

    def _look_at(self, right: Right) -> None:
        with self._lock:
            holds = list(self._by_right.get(right, ()))
        for hold in holds:
            self._end_if_over(hold)
        with self._lock:
            left = next(iter(self._by_right.get(right, ())), None)
            if left is not None and right not in self._scheduled:
                self._schedule(max(self._until(left, right), self._now() + LOOK_AGAIN), right)

    def _until(self, hold: Hold, right: Right) -> datetime:
        if hold.session is not None and right == hold.session.key:
            return self._sessions.good_until(hold.session)
        return self._authenticator.good_until(hold.caller)

    def _end_if_over(self, hold: Hold) -> None:
        error = self._fault(hold)
        if error is not None:
            self.remove(hold)
            hold.end(error)

    def _fault(self, hold: Hold) -> SidecarError | None:
        """The reason why the caller is no longer allowed; None if it still is."""
        try:
            self._authenticator.recheck(hold.caller)
        except SidecarError as error:
            return error
        if hold.session is not None and not self._sessions.is_open(hold.session, now=self._now()):
            return Unauthorized("the session is over: log in again")
        return None


def _rights_of(hold: Hold) -> tuple[Right, ...]:
    token_id, session = hold.caller.token_id, hold.session
    return (token_id,) if session is None else (token_id, session.key)
