"""Requests to actors: a request goes into a mailbox, the answer comes back in a future, and every wait has a
time-out.

A request names its reply type, so `ask(bus, PublishEvent(…), timeout_s=2.0)` is typed. An actor answers a request
at once or, where the answer takes time (a long poll, an fdatasync, a process that has to end), returns `self.later()`,
which it resolves when the answer is known; the caller waits on the same future either way.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from enum import Enum, auto
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from ...state.errors import Unavailable

log = logging.getLogger(__name__)

R = TypeVar("R")


class Request(msgspec.Struct, Generic[R], frozen=True):
    """A request to an actor, answered with an `R` or a SidecarError."""


class Fact(msgspec.Struct, frozen=True):
    """Something that happened, sent to an actor; it gets no answer."""


class _State(Enum):
    PENDING = auto()
    CANCELLED = auto()  # the caller has gone
    ANSWERED = auto()
    REFUSED = auto()


_PENDING, _CANCELLED, _ANSWERED, _REFUSED = _State


class Later(Generic[R]):
    """An answer that an actor gives later, once. Any thread may answer, and any may read.

    Like `concurrent.futures.Future`, but without a Condition for each: nearly every answer is taken by a callback,
    and a server that makes thousands a second would spend a tenth of its time on Conditions. A wait makes what it
    needs, and must have a time-out.

    unclaimed: called in the actor's thread when the answer came just after the caller had gone.
    """

    __slots__ = ("_callbacks", "_error", "_lock", "_state", "_value", "unclaimed")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = _PENDING
        self._callbacks: list[Callable[[Later[R]], object]] = []
        self._value: R
        self._error: BaseException
        self.unclaimed: Callable[[], None] | None = None

    # For the actor that answers

    def answer(self, value: R) -> bool:
        """Give the answer. Returns False and does nothing if the caller timed out, or was refused because the actor
        died."""
        with self._lock:
            is_first = self._state is _PENDING
            if is_first:
                self._value = value
                self._state = _ANSWERED
        if not is_first:
            self.was_unclaimed()
            return False
        self._call_back()
        return True

    def was_unclaimed(self) -> None:
        if self.unclaimed is not None:
            self.unclaimed()

    def refuse(self, error: BaseException) -> None:
        """Answer with an error; like `answer`, it may come too late."""
        with self._lock:
            if self._state is not _PENDING:
                return
            self._error = error
            self._state = _REFUSED
        self._call_back()

    # For the caller

    def cancel(self) -> bool:
        """Give up. False if the answer came first."""
        with self._lock:
            if self._state is not _PENDING:
                return self._state is _CANCELLED
            self._state = _CANCELLED
        self._call_back()
        return True

    def cancelled(self) -> bool:
        return self._state is _CANCELLED

    def was_answered(self) -> bool:
        """Whether there is an answer, so that `result` returns it: no error, and the caller has not gone."""
        return self._state is _ANSWERED

    def done(self) -> bool:
        """Whether there is an answer or an error, or none will come."""
        return self._state is not _PENDING

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is done; False if it is not done in time. Never call it in an actor's own thread."""
        if not self.done():
            is_done = threading.Event()
            self.add_done_callback(lambda _: is_done.set())
            return is_done.wait(timeout_s)
        return True

    def result(self, timeout: float = 0.0) -> R:
        """The answer. Raises the error it was refused with, CancelledError, or TimeoutError."""
        if self._state is not _ANSWERED and (error := self.exception(timeout)) is not None:
            raise error
        return self._value

    def exception(self, timeout: float = 0.0) -> BaseException | None:
        """The error it was refused with, or None. Raises CancelledError, TimeoutError."""
        if self._state is _PENDING and not self.wait(timeout):
            raise TimeoutError
        if self._state is _CANCELLED:
            raise CancelledError
        return self._error if self._state is _REFUSED else None

    def add_done_callback(self, act: Callable[[Later[R]], object]) -> None:
        """Have `act` called when it is done, in the thread that completes it; at once if it is done already."""
        with self._lock:
            is_pending = self._state is _PENDING
            if is_pending:
                self._callbacks.append(act)
        if not is_pending:
            self._call(act)

    def _call_back(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for act in callbacks:
            try:  # as in `_call`, without a call more for each
                act(self)
            except Exception:
                log.exception("callback of an answer failed act=%r", act)

    def _call(self, act: Callable[[Later[R]], object]) -> None:
        try:
            act(self)
        except Exception:
            log.exception("callback of an answer failed act=%r", act)


class Envelope(msgspec.Struct, frozen=True):
    """A message on its way to an actor. later: where the answer goes; None for a fact."""

    message: Request[Any] | Fact
    later: Later[Any] | None


def all_done(laters: Iterable[Later[Any]]) -> Later[None]:
    """Answered when all of these are done, with any outcome."""
    whole: Later[None] = Later()
    waited_for = tuple(laters)

    def look(_: object) -> None:
        if all(later.done() for later in waited_for):
            whole.answer(None)

    for later in waited_for:
        later.add_done_callback(look)
    if not waited_for:
        whole.answer(None)
    return whole


class _Together(threading.local):
    acts: dict[Callable[[], object], None] | None = None


_together = _Together()


class AnswerGroup:
    """Groups the answers that this thread gives within its `with`: `once_together` calls are made once, at the end.

    Without it, the first of many answers wakes the thread that sends them, and the two threads take turns from then
    on.
    """

    def __enter__(self) -> None:
        self._acts = _together.acts = {}

    def __exit__(self, *_: object) -> None:
        _together.acts = None
        for act in self._acts:
            act()


def once_together(act: Callable[[], object]) -> None:
    """Call it at the end of this thread's AnswerGroup, or at once without one."""
    if _together.acts is None:
        act()
    else:
        _together.acts[act] = None


class Recipient(Protocol):
    """The receiver of messages: the stable name of an actor, across its restarts."""

    @property
    def name(self) -> str: ...

    def tell(self, fact: Fact) -> None: ...

    def request(self, request: Request[R]) -> Later[R]:
        """Send `request`; the future is resolved by the actor, or with Unavailable if its loop dies first."""
        ...


def ask(recipient: Recipient, request: Request[R], *, timeout_s: float) -> R:
    """Send and wait. Raises the actor's SidecarError, or Unavailable when no answer came within `timeout_s`.

    Never call this from an actor's own thread: two actors that wait for each other are a deadlock.
    """
    later = recipient.request(request)
    try:
        return later.result(timeout=timeout_s)
    except TimeoutError:
        later.cancel()
        raise Unavailable(f"{recipient.name} did not answer {type(request).__name__} within {timeout_s:g} s") from None
