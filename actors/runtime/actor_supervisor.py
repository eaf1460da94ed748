"""ActorSupervisor: starts the actors, restarts each behind the same handle, and gives up one that keeps dying."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import pykka

from ...state.durations import Durations
from ...state.errors import Unavailable
from ...supervision.restart import RestartIntensity, RestartVerdict
from .actor_state import ACTOR_LIFECYCLE, ActorOccurrence, ActorState
from .asking import Envelope, Fact, Later, R, Request
from .owner import EndLoop, Owner

log = logging.getLogger(__name__)

STOP_WITHIN_S = 10.0  # an actor's last commit on a slow disk

AskedHook = Callable[[Any, Later[Any]], Any]


class ActorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One actor as seen from outside. busy_ms: time spent handling messages, over all its incarnations.

    at_hand_s: how long the present message has taken so far; 0 between two messages.
    """

    name: str
    state: ActorState
    mailbox_depth: int
    processed: int
    failures: int
    restarts: int
    last_error: str | None
    busy_ms: float
    at_hand_s: float


class ActorHandle:
    """The stable name of an actor, over its incarnations. Implements `asking.Recipient`, `owner.OwnHandle`.

    handling: the time its messages took, over all incarnations.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], Owner],
        *,
        intensity: RestartIntensity,
        gave_up: Callable[[str, str], None],
        restarted: Callable[[str, str], None] | None = None,
        asked: AskedHook | None = None,
        failure: type[Unavailable] = Unavailable,
    ) -> None:
        self._name = name
        self._asked = asked
        self._failure = failure
        self._start = start
        self._intensity = intensity
        self._gave_up = gave_up
        self._restarted = restarted
        self._lock = threading.Lock()
        self._running: Owner | None = None
        self._waiting: deque[Envelope] = deque()
        self._in_flight: set[Later[Any]] = set()
        self._deaths: tuple[float, ...] = ()
        self._message_failures: tuple[float, ...] = ()
        self._state = ActorState.STARTING
        self._ended = threading.Event()
        self._failures = 0
        self._restarts = 0
        self.handling = Durations()
        self._last_error: str | None = None

    @property
    def name(self) -> str:
        return self._name

    def tell(self, fact: Fact) -> None:
        """Send a fact. It is kept for the next incarnation if none runs now, and dropped if the actor is stopped."""
        self.send((Envelope(fact, None),))

    def request(self, request: Request[R]) -> Later[R]:
        later: Later[R] = Later()
        self.send((self.envelope(request, later),))
        return later

    def envelope(self, request: Request[R], later: Later[R]) -> Envelope:
        """The request as it is sent, which may not be as it was made: see ActorSupervisor."""
        return Envelope(request if self._asked is None else self._asked(request, later), later)

    def send(self, envelopes: tuple[Envelope, ...]) -> None:
        """Send messages that are handled in a row, with no other message in between. See tell and request."""
        with self._lock:
            is_over = self._state.is_over
            asked = [envelope.later for envelope in envelopes if envelope.later is not None]
            if not is_over:
                self._in_flight.update(asked)
                discard = self._in_flight.discard
                for later in asked:
                    later.add_done_callback(discard)
            self._post(envelopes)
        if is_over:
            self._refuse(asked, "is not running")

    def _post(self, envelopes: tuple[Envelope, ...]) -> None:
        # Under the lock, so that no message gets into the mailbox of an incarnation that has just ended.
        if self._running is not None:
            try:
                self._running.actor_ref.tell(envelopes)
            except pykka.ActorDeadError:
                # Its loop has ended and is about to report it: a fact goes to the next incarnation, and a request is
                # refused like all others in flight.
                self._waiting.extend(envelope for envelope in envelopes if envelope.later is None)
        elif not self._state.is_over:
            self._waiting.extend(envelopes)

    def start(self) -> None:
        """Start the first incarnation. Raises what the actor's constructor raises."""
        self._change(ActorOccurrence.START_ASKED)
        self._ended.clear()
        self._begin()

    def restart(self, reason: str) -> None:
        """End the running incarnation and start the next. This does not count towards giving the actor up.

        Its pending requests are answered with Unavailable.
        """
        self.tell(EndLoop(reason))

    def stop(self) -> None:
        """Stop after the messages that are in the mailbox now; waits up to STOP_WITHIN_S. The actor is not
        restarted."""
        with self._lock:
            running = self._running
            self._change(ActorOccurrence.STOP_ASKED)
        if running is not None:
            running.actor_ref.stop(block=False)
            if not self._ended.wait(STOP_WITHIN_S):
                log.error("actor did not stop actor=%s within_s=%g", self._name, STOP_WITHIN_S)
        self._refuse(tuple(self._in_flight), "has stopped before it could answer")

    def status(self) -> ActorStatus:
        running = self._running
        depth = running.mailbox_depth() if running is not None else len(self._waiting)
        return ActorStatus(
            name=self._name,
            state=self._state,
            mailbox_depth=depth,
            processed=self.handling.count,
            failures=self._failures,
            restarts=self._restarts,
            last_error=self._last_error,
            busy_ms=round(self.handling.total_s * 1000, 3),
            at_hand_s=running.at_hand_s() if running is not None else 0.0,
        )

    # What the running incarnation reports, in its own thread.

    def message_handled(self, took_s: float) -> None:
        self.handling.add(took_s)

    def message_failed(self, error: BaseException) -> bool:
        """Count a message that failed unexpectedly. True if there were so many that the state is suspect."""
        self._failures += 1
        self._last_error = repr(error)
        verdict, self._message_failures = self._intensity.decide(self._message_failures, now=time.monotonic())
        return verdict is RestartVerdict.GIVE_UP

    def loop_ended(self, owner: Owner, death: str | None) -> None:
        with self._lock:
            if owner is not self._running:
                return
            self._running = None
            left = owner.unread()
            # Facts go to the next incarnation; callers that wait for an answer get an error now.
            self._waiting.extendleft(reversed([e for e in left if e.later is None]))
            held = tuple(self._in_flight)
            self._change(ActorOccurrence.LOOP_ENDED)
            is_stopped = self._state is ActorState.STOPPED
        if is_stopped:
            self._ended.set()
            return
        reason = death or "its loop ended"
        self._last_error = reason
        self._refuse(held, "was restarted before it could answer")
        self._restart_or_give_up(reason, is_asked_for=owner.was_told_to_end)

    def _may_restart(self) -> bool:
        verdict, self._deaths = self._intensity.decide(self._deaths, now=time.monotonic())
        return verdict is RestartVerdict.RESTART

    def _restart_or_give_up(self, reason: str, *, is_asked_for: bool) -> None:
        # A requested restart says nothing about the health of the actor.
        may_restart = is_asked_for or self._may_restart()
        while may_restart:
            self._restarts += 1
            log.error("actor restarting actor=%s restarts=%d reason=%s", self._name, self._restarts, reason)
            try:
                self._begin()
            except Exception as error:
                log.exception("actor did not start actor=%s", self._name)
                reason = self._last_error = repr(error)
                may_restart = self._may_restart()
            else:
                if self._restarted is not None:
                    self._restarted(self._name, reason)
                return
        with self._lock:
            self._change(ActorOccurrence.GIVEN_UP)
            self._waiting.clear()
        self._refuse(tuple(self._in_flight), "has failed before it could answer")
        log.critical("actor given up actor=%s restarts=%d reason=%s", self._name, self._restarts, reason)
        self._gave_up(self._name, reason)

    def _begin(self) -> None:
        owner = self._start()
        owner._handle = self
        with self._lock:
            if self._state is ActorState.STOPPED:  # stopped while the next incarnation was being made
                self._ended.set()
                return
            self._running = owner
            self._message_failures = ()
            while self._waiting:
                owner.actor_ref.tell((self._waiting.popleft(),))
            self._change(ActorOccurrence.LOOP_BEGAN)
        pykka.ActorRegistry.register(owner.actor_ref)
        owner._start_actor_loop()

    def _change(self, occurrence: ActorOccurrence) -> None:
        self._state = ACTOR_LIFECYCLE[self._state, occurrence]

    def _refuse(self, held: Iterable[Later[Any]], what: str) -> None:
        error = Unavailable if self._state is ActorState.STOPPED else self._failure
        for later in held:
            later.refuse(error(f"{self._name} {what}"))


class ActorSupervisor:
    """Starts actors in order and stops them in reverse.

    gave_up: called with an actor's name and the reason if it died more often than `intensity` allows; the server
    then ends with an error, so that its starter can start it again. restarted: called likewise, in the
    thread of the incarnation that ended, when the next one runs. asked: called with each request that is made of an
    actor and the future of its answer, in the asker's thread; returns what is sent.
    """

    def __init__(
        self,
        *,
        gave_up: Callable[[str, str], None],
        restarted: Callable[[str, str], None] | None = None,
        asked: AskedHook | None = None,
        intensity: RestartIntensity | None = None,
    ) -> None:
        self._gave_up = gave_up
        self._restarted = restarted
        self._asked = asked
        self._intensity = intensity or RestartIntensity(max_restarts=10, within_s=60.0)
        self._handles: dict[str, ActorHandle] = {}

    def handle(self, name: str, make: Callable[[], Owner], *, failure: type[Unavailable] = Unavailable) -> ActorHandle:
        """A handle for an actor that `make` constructs again for each incarnation; it runs after `start`.

        failure: the error for its pending requests when it fails.
        """
        handle = ActorHandle(
            name,
            make,
            intensity=self._intensity,
            gave_up=self._gave_up,
            restarted=self._restarted,
            asked=self._asked,
            failure=failure,
        )
        self._handles[name] = handle
        return handle

    def start(self) -> None:
        for handle in self._handles.values():
            handle.start()

    def stop(self) -> None:
        for handle in reversed(self._handles.values()):
            handle.stop()

    def statuses(self) -> tuple[ActorStatus, ...]:
        return tuple(handle.status() for handle in self._handles.values())

    def handling(self) -> Mapping[str, Durations]:
        """The time that each actor's messages took."""
        return {name: handle.handling for name, handle in self._handles.items()}

    def restart(self, name: str, reason: str) -> bool:
        """Restart one actor. False if no actor has that name."""
        handle = self._handles.get(name)
        if handle is None:
            return False
        handle.restart(reason)
        return True
