"""An actor that owns a piece of state, and the handling of one message.

Two kinds of failure, as Pykka 4.5 makes them (its loop stops all actors on a SystemExit, and drops queued messages
of an actor that dies): a message that cannot be handled costs only that message; a loop that ends costs the requests
it held, which are answered with Unavailable, and the next incarnation takes over the mailbox (see actor_supervisor.py).
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import pykka

from ...state.errors import SidecarError
from .asking import Envelope, Fact, Later, Recipient, Request

log = logging.getLogger(__name__)


class EndLoop(Fact, frozen=True):
    """A message that ends the loop of the incarnation that reads it."""

    reason: str


class LoopEnded(Exception):
    """Raised in an actor's thread, by `handle` too, to end its loop; the text says why."""


class OwnHandle(Recipient, Protocol):
    """The handle of an actor for its running incarnation, which gets messages from it and reports to it."""

    def message_handled(self, took_s: float) -> None: ...

    def message_failed(self, error: BaseException) -> bool:
        """Count a message that failed unexpectedly. True if there were so many that the loop must end."""
        ...

    def loop_ended(self, owner: Owner, death: str | None) -> None:
        """death: why the loop ended; None when it was stopped."""
        ...

    def restart(self, reason: str) -> None:
        """End the running incarnation and start the next."""
        ...


class Owner(pykka.ThreadingActor):
    """An actor that owns a piece of state. Subclasses define `handle` and, if needed, `on_start` and `release`.

    `handle` returns the reply, `self.later()` for a reply that comes later, or None for a fact; it may be called in a
    test without any thread. State is rebuilt in `__init__` or `on_start` of the next incarnation, from the disk.
    """

    use_daemon_thread = True  # a stuck actor must not keep the process from ending

    def __init__(self) -> None:
        super().__init__()
        self._handle: OwnHandle | None = None
        self._death: str | None = None
        self.was_told_to_end = False
        self._at_hand_since: float | None = None  # perf_counter; None between two messages
        self._batch: deque[Envelope] = deque()  # messages that came together and were not handled yet
        self._asked: Later[Any] | None = None

    def handle(self, message: Any) -> Any:
        raise TypeError(f"{type(self).__name__} does not handle {type(message).__name__}")

    def release(self) -> None:
        """Release files and threads; called in the actor's thread when its loop has ended, for any reason."""

    def later(self) -> Later[Any]:
        """For `handle` to keep, to return and to answer later: the future of the request it is called with.

        The caller may cancel it at any time. A new one where `handle` is called without an asker.
        """
        return self._asked if self._asked is not None else Later()

    def on_receive(self, message: Sequence[Envelope]) -> None:
        self._batch.extend(message)
        while self._batch:
            envelope = self._batch.popleft()
            self._receive(envelope.message, envelope.later)

    def _receive(self, request: Request[Any] | Fact, later: Later[Any] | None) -> None:
        if isinstance(request, EndLoop):
            self.was_told_to_end = True
            raise LoopEnded(request.reason)
        started = self._at_hand_since = time.perf_counter()
        self._asked = later
        try:
            reply = self.handle(request)
        except LoopEnded:
            raise
        except SidecarError as error:
            if later is None:
                log.warning("fact refused actor=%s fact=%s: %s", self._name, type(request).__name__, error)
            else:
                later.refuse(error)
        except Exception as error:
            log.exception("message failed actor=%s message=%s", self._name, type(request).__name__)
            if later is not None:
                later.refuse(error)
            if self._handle is not None and self._handle.message_failed(error):
                raise LoopEnded(f"too many messages failed, the last with {error!r}") from error
        except BaseException as error:
            # SystemExit from a library would make Pykka stop every actor.
            raise LoopEnded(f"{error!r} while handling {type(request).__name__}") from error
        else:
            if later is not None and reply is not later:
                later.answer(reply)
        finally:
            self._asked = self._at_hand_since = None
            if self._handle is not None:
                self._handle.message_handled(time.perf_counter() - started)

    @property
    def me(self) -> Recipient:
        """This actor's own handle, for timers and callbacks."""
        if self._handle is None:
            raise RuntimeError(f"{type(self).__name__} runs without a handle")
        return self._handle

    @property
    def _name(self) -> str:
        return self._handle.name if self._handle is not None else type(self).__name__

    def _actor_loop(self) -> None:
        try:
            super()._actor_loop()
        finally:
            try:
                self.release()
            except Exception as error:
                log.exception("actor could not release what it held actor=%s", self._name)
                self._death = self._death or repr(error)
            if self._handle is not None:
                self._handle.loop_ended(self, self._death)

    def _actor_loop_teardown(self) -> None:
        """Keep the mailbox, which Pykka would drop here: the handle gives it to the next incarnation."""

    def _handle_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        self._death = str(exception_value) or repr(exception_value)
        if self.was_told_to_end:  # no failure, whose traceback the log should have
            pykka.ActorRegistry.unregister(self.actor_ref)
            self.actor_stopped.set()
        else:
            super()._handle_failure(exception_type, exception_value, traceback)

    def mailbox_depth(self) -> int:
        """The number of waiting messages; messages that were sent together count as one until they are taken out."""
        waiting = self.actor_inbox.qsize() if isinstance(self.actor_inbox, queue.Queue) else 0
        return len(self._batch) + waiting

    def has_more(self) -> bool:
        """Whether a message waits behind the one at hand."""
        return bool(self._batch) or self.mailbox_depth() > 0

    def at_hand_s(self) -> float:
        """How long the message at hand has been handled; 0 between two messages. Called in any thread."""
        since = self._at_hand_since
        return time.perf_counter() - since if since is not None else 0.0

    def pending_facts(self) -> list[Fact]:
        """For `on_start`: facts that the last incarnation did not handle. `handle` still gets them."""
        if not isinstance(self.actor_inbox, queue.Queue):
            return []
        with self.actor_inbox.mutex:
            waiting = [envelope.message for together in self.actor_inbox.queue for envelope in together.message]
        return [message for message in waiting if isinstance(message, Fact)]

    def unread(self) -> list[Envelope]:
        """Messages that this incarnation did not handle, oldest first."""
        left = [*self._batch]
        while not self.actor_inbox.empty():
            message = self.actor_inbox.get().message
            if isinstance(message, tuple):
                left.extend(message)
        return [envelope for envelope in left if not isinstance(envelope.message, EndLoop)]
