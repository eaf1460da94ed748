"""LastNumbers: the last numbers of each actor, for /health, which must not wait for a busy actor.

Each look asks the actors again and keeps their answers. It waits only for an actor that will answer soon; of another
it gets the last answer, and whether that actor still answers at all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Generic

import msgspec

from ...actors.messages import CountAgents, CountContexts, CountEvents, CountResults
from ...actors.replies import AgentNumbers, ContextNumbers, EventNumbers, ResultNumbers
from ...actors.runtime.actor_supervisor import ActorStatus
from ...actors.runtime.asking import Later, R, Recipient, Request, all_done

STUCK_S = 2.0  # an actor that takes longer for one message, or for an answer, counts as stuck
PATIENCE_S = 10.0  # the same for those that start processes or import much, and of which /health has no check
BUSY_S = 0.01  # a message that has taken so long may take much longer
BUSY_MESSAGES = 8  # so may that many which wait
SOON_S = 0.1  # how long a look may wait for actors that are not busy


class LastAnswer(Generic[R]):
    """The last answer of one actor to one question. Used by every thread.

    numbers: of that answer; None before the first. at: when it came, monotonic. is_slow: see PATIENCE_S.
    """

    def __init__(self, recipient: Recipient, question: Request[R], *, is_slow: bool = False) -> None:
        self.numbers: R | None = None
        self.at = 0.0
        self._recipient = recipient
        self._question = question
        self._is_slow = is_slow
        self._lock = threading.RLock()  # an answer may be there at once
        self._owed: Later[R] | None = None
        self._owed_since = 0.0
        self._was_refused = False

    @property
    def name(self) -> str:
        return self._recipient.name

    @property
    def is_known(self) -> bool:
        return self.numbers is not None or self._was_refused

    def ask(self, *, now: float) -> Later[R]:
        """The answer to come. An actor that still owes one is not asked again."""
        with self._lock:
            if self._owed is not None:
                return self._owed
            later = self._owed = self._recipient.request(self._question)
            self._owed_since = now
            later.add_done_callback(self._answered)
        return later

    def _answered(self, later: Later[R]) -> None:
        error = later.exception()
        with self._lock:
            self._owed = None
            self._was_refused = error is not None
        if error is None:
            self.numbers, self.at = later.result(), time.monotonic()

    def owes_for_s(self, now: float) -> float:
        """For how long an answer has been owed."""
        with self._lock:
            return now - self._owed_since if self._owed is not None else 0.0

    def is_answering(self, status: ActorStatus, *, now: float) -> bool:
        """Whether the actor lives and is not stuck."""
        limit_s = PATIENCE_S if self._is_slow else STUCK_S
        return not self._was_refused and max(status.at_hand_s, self.owes_for_s(now)) <= limit_s

    def answers_soon(self, status: ActorStatus, *, now: float) -> bool:
        """Whether an answer to a question asked now will come within SOON_S, by what the actor has to do."""
        return max(status.at_hand_s, self.owes_for_s(now)) < BUSY_S and status.mailbox_depth <= BUSY_MESSAGES


class AwaitedNumbers(msgspec.Struct, frozen=True):
    """A look at all actors. done: answered when those that answer soon have; it takes `within_s` at most."""

    done: Later[None]
    within_s: float


class LastNumbers:
    """The last numbers of the four actors, of all projects together. statuses: of these actors."""

    def __init__(
        self,
        *,
        spawner: Recipient,
        bus: Recipient,
        results: Recipient,
        contexts: Recipient,
        statuses: Callable[[], Iterable[ActorStatus]],
    ) -> None:
        self.agents: LastAnswer[AgentNumbers] = LastAnswer(spawner, CountAgents(project_id=None), is_slow=True)
        self.events: LastAnswer[EventNumbers] = LastAnswer(bus, CountEvents(project_id=None))
        self.results: LastAnswer[ResultNumbers] = LastAnswer(results, CountResults(project_id=None))
        self._contexts: LastAnswer[ContextNumbers] = LastAnswer(contexts, CountContexts(project_id=None), is_slow=True)
        self._all: tuple[LastAnswer[Any], ...] = (self.agents, self.events, self.results, self._contexts)
        self._statuses = statuses

    def look(self) -> AwaitedNumbers:
        """Ask all actors. Waits longer than SOON_S only for one that has never answered."""
        now, statuses = time.monotonic(), self._by_name()
        unknown = [last for last in self._all if not last.is_known]
        soon = [last for last in self._all if last in unknown or last.answers_soon(statuses[last.name], now=now)]
        owed = {last: last.ask(now=now) for last in self._all}
        return AwaitedNumbers(all_done([owed[last] for last in soon]), STUCK_S if unknown else SOON_S)

    def silent(self) -> frozenset[str]:
        """The names of the actors that do not answer: they have ended, or are stuck."""
        now, statuses = time.monotonic(), self._by_name()
        return frozenset(last.name for last in self._all if not last.is_answering(statuses[last.name], now=now))

    def _by_name(self) -> dict[str, ActorStatus]:
        return {status.name: status for status in self._statuses()}
