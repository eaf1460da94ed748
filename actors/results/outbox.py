"""Results whose event is not known to be published, and who waits to hear that it is. A part of the ResultStore.

An event that could not be published is tried again, with growing pauses, for as long as it takes: the result is on
the disk, so its event has to follow. A result stays in the outbox for a minute after that: the log of events may be
kept at a level that a power loss can take back. The bus knows a repeat by its idempotency key.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from ...state.errors import StorageUnavailable, StorageUnreadable
from ...state.models import EventId, NextAgent, ResultStatus
from ...state.results.stored_results import ResultHead, StoredResults
from ...supervision.profile import Profiles
from ..messages import PublishEvent
from ..replies import AcceptedResult, PublishedEvent
from ..runtime.asking import Later, Recipient
from ..runtime.timers import Timers
from .facts import ResultAnnounced, TimeToAnnounce

log = logging.getLogger(__name__)

AGAIN_AFTER_S = (0.1, 0.5, 2.0, 10.0)  # after the first, second, … failure in a row; the last one for all others
LET_GO_AFTER_S = 60.0  # Linux writes what was written to a file to the disk within 35 s, even if nobody syncs it
MAX_HELD = 10_000  # published results still in the outbox; more are let go early rather than kept in memory


def next_agents(profiles: Profiles, agent_type: str, status: ResultStatus) -> tuple[NextAgent, ...]:
    """The next agents for a result of that status, from the profile of its agent's type."""
    return tuple(
        NextAgent(
            agent_type=follower.agent_type,
            priority=follower.priority,
            reason=f"{follower.agent_type} follows when {agent_type} reports {status}",
        )
        for follower in profiles.of(agent_type).next_agents
        if follower.on in (status, "any")
    )


def stored(result: ResultHead, follow: tuple[NextAgent, ...], event_id: EventId) -> AcceptedResult:
    """The answer to the request that stored `result`."""
    return AcceptedResult(
        result_id=result.id,
        storage_path=f"results/{result.id}",
        next_agents=follow,
        event_id=event_id,
        stored_at=result.stored_at,
    )


class ResultOutbox:
    """store: the ResultStore itself, which is told what the bus answers. Used in the store's thread alone."""

    def __init__(self, results: StoredResults, bus: Recipient, profiles: Profiles, timers: Timers) -> None:
        self._results = results
        self._bus = bus
        self._profiles = profiles
        self._timers = timers
        self._waiting: dict[int, list[Later[AcceptedResult]]] = {}
        self._announcing: dict[int, ResultHead] = {}  # the bus has been asked and has not answered yet
        self._published: dict[int, tuple[float, EventId]] = {}  # with the time to let it go, monotonic; soonest first
        self._failures = 0  # in a row
        self._will_try_again = False

    def is_open(self, place: int) -> bool:
        """Whether a request to the bus is unanswered, or a caller waits."""
        return place in self._announcing or place in self._waiting

    def event_of(self, place: int) -> EventId | None:
        """The event that was published for a result which is still in the outbox."""
        published = self._published.get(place)
        return None if published is None else published[1]

    def wait(self, place: int, later: Later[AcceptedResult]) -> None:
        """Answer `later` when the result's event is published."""
        self._waiting.setdefault(place, []).append(later)

    def refuse(self, place: int, error: StorageUnavailable) -> None:
        """The result is not stored after all."""
        for later in self._waiting.pop(place, ()):
            later.refuse(StorageUnavailable(error.message, **error.details))

    def announce(self, place: int, store: Recipient, result: ResultHead | None = None) -> None:
        """Publish the event of a result that is on the disk; read the result if it is not given."""
        if place in self._announcing or place in self._published:
            return
        result = result or self._results.head_at(place)
        if result is None:
            return
        self._announcing[place] = result
        data = {
            "result_id": result.id,
            "issue_id": result.issue_id,
            "agent_id": result.agent_id,
            "agent_type": result.agent_type,
            "status": result.status,
        }
        event = PublishEvent(
            project_id=result.project_id,
            event_type="result_stored",
            publisher=result.agent_id,
            publisher_type=result.agent_type,
            data=msgspec.Raw(msgspec.json.encode(data)),
            idempotency_key=f"result_stored:{result.id}",
            traceparent=result.traceparent,
        )
        self._bus.request(event).add_done_callback(_tell_announced(store, place))

    def announced(self, fact: ResultAnnounced, store: Recipient) -> None:
        """Answer who waits."""
        result = self._announcing.pop(fact.place, None)
        if fact.event_id is None:
            log.warning("result not announced place=%d error=%r", fact.place, fact.error)
            self._failures += 1
            self.try_again(store)
            return
        self._failures = 0
        if result is None or not self._results.has(fact.place):  # forgotten meanwhile
            return
        answer = self._results.answer_at(fact.place)
        follow = answer.next_agents if answer else next_agents(self._profiles, result.agent_type, result.status)
        for later in self._waiting.pop(fact.place, ()):
            later.answer(stored(result, follow, fact.event_id))
        self._published[fact.place] = (time.monotonic() + LET_GO_AFTER_S, fact.event_id)

    def let_go(self, *, everything: bool = False) -> float | None:
        """Take out what was published long enough ago, in the next commit; seconds until there is more, or None.

        everything: for a shutdown, which syncs the log of events. Raises StorageUnavailable.
        """
        now = time.monotonic()
        too_many = len(self._published) - MAX_HELD
        gone = [
            (place, event_id)
            for number, (place, (until, event_id)) in enumerate(self._published.items())
            if everything or until <= now or number < too_many
        ]
        for place, _ in gone:
            del self._published[place]
        self._results.mark_announced(gone)
        return next((until - now for until, _ in self._published.values()), None)

    def try_again(self, store: Recipient) -> None:
        """Have the store told when it is time to announce what is left."""
        if not self._will_try_again:
            self._will_try_again = True
            delay_s = AGAIN_AFTER_S[min(self._failures, len(AGAIN_AFTER_S) - 1)]
            self._timers.tell_after(delay_s, store, TimeToAnnounce())

    def announce_left(self, store: Recipient) -> None:
        """Announce every result on the disk that is not known to be announced."""
        self._will_try_again = False
        for place in self._results.unannounced():
            try:
                self.announce(place, store)
            except StorageUnreadable as error:
                # It stays in the outbox: a repair of the storage brings it back, or takes it out.
                log.error("result not announced place=%d: %s", place, error.message)


def _tell_announced(store: Recipient, place: int) -> Callable[[Any], None]:
    def tell(answered: Later[PublishedEvent]) -> None:
        error = None if answered.cancelled() else answered.exception()
        event_id = None if answered.cancelled() or error is not None else answered.result().event_id
        store.tell(ResultAnnounced(place=place, event_id=event_id, error=error))

    return tell
