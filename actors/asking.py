"""How actors are asked: a request goes into a mailbox, the answer comes back in a future, every wait ends.

A request names its reply type, so `ask(bus, PublishEvent(…), timeout_s=2.0)` is typed. An actor answers a request
at once or, where the answer takes time (a long poll, an fdatasync, a process that has to end), returns a `Later`
which it resolves when the answer is known; the caller waits on the same future either way.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from ..state.errors import Unavailable

R = TypeVar("R")


class Request(Generic[R]):
    """A question to an actor that is answered with an `R` or a SidecarError."""

    __slots__ = ()


class Fact:
    """Something that happened, told to an actor; nothing is answered."""

    __slots__ = ()


class Later(Future[R]):
    """An answer that an actor gives when it is known. Resolved in the actor's thread, once.

    unclaimed: called in the actor's thread when the answer was given but whoever asked had gone in that moment.
    """

    unclaimed: Callable[[], None] | None = None

    def answer(self, value: R) -> bool:
        """Give the answer. False, and nothing happens, if the asker timed out or was told that the actor died."""
        try:
            self.set_result(value)
        except InvalidStateError:
            self.was_unclaimed()
            return False
        return True

    def was_unclaimed(self) -> None:
        if self.unclaimed is not None:
            self.unclaimed()

    def refuse(self, error: BaseException) -> None:
        """Answer with an error; like `answer`, too late is no fault."""
        with suppress(InvalidStateError):
            self.set_exception(error)


class Recipient(Protocol):
    """Where messages go: the stable name of an actor, however often it is restarted behind it."""

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
    except FutureTimeout:
        later.cancel()
        raise Unavailable(f"{recipient.name} did not answer {type(request).__name__} within {timeout_s:g} s") from None
