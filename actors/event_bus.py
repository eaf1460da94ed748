"""The EventBus owns the event logs, the mailboxes and the waiting requests.

A publish is answered when the journal holds the event; a mailbox's move is journaled before its answer leaves. Events
published while the actor is busy are committed together: one write, and one fdatasync at level `commit`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, assert_never

import msgspec

from ..state.clock import utc_now
from ..state.errors import StorageUnavailable
from ..state.events.gap import BEGINNING
from ..state.events.log import Retention
from ..state.events.mailbox import MailboxKey
from ..state.events.mailboxes import Mailboxes
from ..state.events.search import step_ends
from ..state.events.store import EventStore
from ..state.events.subscribed_agents import SubscribedAgent
from ..state.journal.journal import Durability
from ..state.journal.sync import SETTLE_AFTER_S, BackgroundSync
from ..state.models import AgentId, Event
from .agent_facts import AgentEnded, AgentSubscribed, TellTriggered
from .events.counter import EventCounter
from .events.facts import (
    DeadlineReached,
    EventBusFact,
    HousekeepingDue,
    SearchesDue,
    SyncDue,
    SyncEnded,
    WaiterGone,
)
from .events.publications import Publications
from .events.publishing import answer_all, digest_of, published_before
from .events.reading import EventListing
from .events.reports import EventReports
from .events.searches import Searches
from .events.trigger_feed import TriggerFeed
from .events.waiters import Waiter
from .events.waiting_room import WaitingRoom
from .messages import (
    AnswerSettled,
    AnswerWaiters,
    AwaitEvents,
    CountEvents,
    EventBusRequest,
    ListDeadLetters,
    ListEvents,
    ListMailboxes,
    PublishEvent,
    PublishTogether,
    ReplayDeadLetter,
)
from .replies import AnswerId, EventBatch, EventPage, PublishedEvent
from .runtime.asking import AnswerGroup, Later, Recipient
from .runtime.owner import Owner
from .runtime.timers import Timers

log = logging.getLogger(__name__)

# Publishers are answered together with the requests they wake: a first answer would set the I/O thread to work, and
# the two threads would take turns at every system call. If a publish wakes more than this, it is answered first.
A_FEW = 16
MAX_BATCH = 256  # messages whose answers one commit may hold up
HOUSEKEEPING_EVERY_S = 30.0


class EventOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[events]`. durability: "os" survives the death of the sidecar, "commit" power loss too."""

    retention_seconds: int = 86_400
    max_events: int = 10_000
    max_bytes: int = 268_435_456
    max_wait_ms: int = 300_000
    durability: Literal["os", "commit"] = "os"


_Message = EventBusRequest | EventBusFact


class EventBus(Owner):
    """The actor of the events; see the module. spawner: gets events whose type is in `trigger_types`."""

    def __init__(
        self,
        *,
        journal_dir: Path,
        options: EventOptions,
        timers: Timers,
        spawner: Recipient | None = None,
        trigger_types: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self._options = options
        self._timers = timers
        self._store = EventStore(
            journal_dir / "log",
            Retention(
                max_events=options.max_events,
                max_bytes=options.max_bytes,
                max_age_s=float(options.retention_seconds),
            ),
            Durability.COMMIT if options.durability == "commit" else Durability.OS,
        )
        try:
            self._mailboxes = Mailboxes(journal_dir / "mailboxes")
            _begin_life(self._store, self._mailboxes)
        except BaseException:
            self._store.close()
            raise
        self._triggers = TriggerFeed(spawner, trigger_types, self._store)
        self._publications = Publications(self._store, retention_s=options.retention_seconds)
        self._searches = Searches()
        self._searches_on = False  # whether SearchesDue was sent and has not come yet
        self._room = WaitingRoom(
            self._mailboxes, self._store.log, self._searches, max_wait_s=options.max_wait_ms / 1000
        )
        self._held = 0  # messages since answers last left
        self._counter = EventCounter()
        self._reports = EventReports(self._store, self._mailboxes, self._room, self._counter, options.durability)
        self._tick_at: float | None = None
        self._is_draining = False
        self._syncs = BackgroundSync((self._store.journal, self._mailboxes.journal), lambda: self.me.tell(SyncEnded()))
        self._settles_later = False
        self._gone: Callable[[int], None] = lambda number: self.me.tell(WaiterGone(number))  # one for all waiters

    def on_start(self) -> None:
        self._keep_house()
        self._triggers.repeat(BEGINNING)

    def release(self) -> None:
        self._commit()
        self._give_answers()
        self._syncs.close()
        self._mailboxes.close()
        self._store.close()

    def handle(self, message: _Message) -> Any:
        try:
            return self._dispatch(message)
        finally:
            self._held += 1
            if self._held >= MAX_BATCH or not self.has_more():
                self._commit()
                self._give_answers()
                self._held = 0
                self._settle_later()
            if self._searches and not self._searches_on:
                self._searches_on = True
                self.me.tell(SearchesDue())

    def _dispatch(self, message: _Message) -> Any:
        if isinstance(message, PublishEvent):
            return self._publish(message)
        self._commit()  # the sender sees what was published before
        # An agent's pending answer leaves before its next wait, which would otherwise count as proof that it was
        # received.
        if (reader := _reader_that_sends(message)) is None or self._room.owes_answer_to(reader):
            self._give_answers()
        match message:
            case PublishTogether(events=events):
                return self._publish_together(events)
            case AwaitEvents():
                return self._await(message)
            case AnswerSettled():
                return self._settle(message)
            case ListEvents():
                return self._list(message)
            case ListMailboxes(project_id=project_id):
                return self._reports.mailboxes(project_id)
            case ListDeadLetters(project_id=project_id):
                return self._mailboxes.dead_letters.of_project(project_id)
            case ReplayDeadLetter(event_id=id_, project_id=project_id):
                return self._mailboxes.replay(id_, project_id, now=utc_now())
            case CountEvents(project_id=project_id):
                return self._reports.stats(project_id)
            case AnswerWaiters():
                self._is_draining = True
                return self._room.end_all()
            case AgentSubscribed():
                return self._agent_runs(message)
            case AgentEnded(agent_id=agent_id):
                return self._mailboxes.agent_ended(agent_id, now=utc_now())
            case TellTriggered(since=since):
                return self._triggers.repeat(since)
            case WaiterGone(number):
                return self._room.waiters.remove(number)
            case DeadlineReached():
                return self._time_is_up()
            case SearchesDue():
                self._searches_on = False
                return self._searches.go_on()
            case HousekeepingDue():
                return self._keep_house()
            case SyncDue():
                self._settles_later = False
                return self._have_synced()
            case SyncEnded():
                return self._have_synced()
            case _:
                assert_never(message)

    # Publishing

    def _publish(self, request: PublishEvent) -> Later[PublishedEvent] | PublishedEvent:
        digest = None
        if request.idempotency_key is not None:
            self._commit()
            digest = digest_of(request)
            known = published_before(self._store, request, digest)
            if known is not None:
                return self._answer_to(known, ())
        later = self.later()
        self._publications.append(request, digest, later)
        return later

    def _publish_together(self, events: tuple[PublishEvent, ...]) -> Later[tuple[PublishedEvent, ...]]:
        whole: Later[tuple[PublishedEvent, ...]] = self.later()
        parts: list[Later[PublishedEvent]] = [Later() for _ in events]
        new = []
        for event, part in zip(events, parts, strict=True):
            digest = digest_of(event)
            known = published_before(self._store, event, digest)
            if known is None:
                new.append((event, digest, part))
            else:
                part.answer(self._answer_to(known, ()))
        for event, digest, part in new:
            self._publications.append(event, digest, part)
        last = new[-1][2] if new else parts[-1]
        last.add_done_callback(lambda settled: answer_all(whole, parts, settled))
        return whole

    def _commit(self) -> None:
        """Make published events durable, then wake the requests that wait for them, and answer the publishers."""
        committed = self._publications.commit()
        if not committed:
            return
        woken: dict[int, tuple[Waiter, float]] = {}
        until = step_ends()
        for event, publication in committed:
            self._counter.published(event.project_id)
            self._triggers.published(event)
            matching = self._room.matching(event, until=until)
            for waiter in matching:
                woken.setdefault(waiter.number, (waiter, publication.received))
            agents = [waiter.request.agent_id for waiter in matching] if matching else ()
            self._publications.answer(publication, self._answer_to(event, agents))
        if len(woken) > A_FEW:
            self._publications.give_answers()
        until = step_ends()
        for waiter, received in woken.values():
            if self._room.wake(waiter, until=until):
                self._counter.woken(waiter.request.project_id, after_s=time.perf_counter() - received)

    def _answer_to(self, event: Event, waiting: Collection[AgentId]) -> PublishedEvent:
        return PublishedEvent(
            event_id=event.event_id,
            topic=event.topic,
            ttl_s=event.ttl_s,
            subscribers=self._mailboxes.agents.subscribers(event, waiting),
            published_at=event.published_at,
        )

    # Waiting

    def _await(self, request: AwaitEvents) -> Later[Any]:
        later = self.later()
        self._room.enter(request, later, gone=self._gone, may_wait=not self._is_draining)
        self._arm()
        return later

    def _give_answers(self) -> None:
        """A mailbox's move is written before the answer that moves it leaves."""
        answers = self._room.answers()
        try:
            self._mailboxes.commit()
        except Exception as error:  # otherwise they would be answered only when their connections give up
            for waiter, _ in answers:
                waiter.later.refuse(error)
            self._publications.give_answers()
            raise
        if answers or self._publications.has_answers:
            with AnswerGroup():
                for waiter, batch in answers:
                    self._answer_waiter(waiter, batch)
                self._publications.give_answers()

    def _answer_waiter(self, waiter: Waiter, batch: EventBatch) -> None:
        self._counter.delivered(waiter.request.project_id, len(batch.deliveries))
        if batch.answer is not None:
            lost = AnswerSettled(answer=batch.answer, taken=False)
            # The client may go away between the look at the log and this line, with no other notice.
            waiter.later.unclaimed = partial(self._settle, lost)
        waiter.later.answer(batch)

    def _settle(self, fact: AnswerSettled) -> None:
        mailbox = self._mailboxes.get(fact.answer.mailbox)
        if mailbox is not None and mailbox.settle(fact.answer.number, taken=fact.taken):
            self._mailboxes.changed(mailbox)

    def _arm(self) -> None:
        """Have `DeadlineReached` sent at the earliest deadline."""
        deadline = self._room.waiters.next_deadline()
        if deadline is not None and (self._tick_at is None or deadline < self._tick_at):
            self._tick_at = deadline
            self._timers.tell_after(deadline - time.monotonic(), self.me, DeadlineReached())

    def _time_is_up(self) -> None:
        now = time.monotonic()
        if self._tick_at is not None and self._tick_at <= now:
            self._tick_at = None
        self._room.end_overdue(now=now)
        self._arm()

    # Agents

    def _agent_runs(self, fact: AgentSubscribed) -> None:
        if fact.incarnation > self._mailboxes.agents.incarnation(fact.agent_id):
            self._room.end_of_agent(fact.agent_id)
        agent = SubscribedAgent(
            agent_id=fact.agent_id,
            project_id=fact.project_id,
            topics=fact.topics,
            since=fact.since,
            incarnation=fact.incarnation,
        )
        self._mailboxes.agent_runs(agent, self._store.log, now=utc_now())

    # Operators

    def _list(self, request: ListEvents) -> Later[EventPage] | EventPage:
        listing = EventListing(self._store.logs(request.project_id), request, now=utc_now())
        page = listing.step(until=step_ends())
        if page is not None:
            return page
        later = self.later()
        self._searches.add(partial(listing.answer, later))
        return later

    # The disk

    def _settle_later(self) -> None:
        if not self._settles_later and self._syncs.is_behind and self._handle is not None:
            self._settles_later = True
            self._timers.tell_after(SETTLE_AFTER_S, self.me, SyncDue())

    def _have_synced(self) -> None:
        """Mark in the journals which records are synced, and sync the rest in another thread, so that no request
        waits."""
        self._syncs.look(now=time.monotonic())
        if (failure := self._syncs.failure) is not None and self._handle is not None:
            self._handle.restart(failure)

    def _keep_house(self) -> None:
        now = utc_now()
        forgotten_before = now - timedelta(seconds=self._options.retention_seconds)
        try:
            self._store.expire(now=now)
            self._mailboxes.forget_unused(since=forgotten_before)
            self._store.knew(self._mailboxes.losses)
            self._reports.forget_unused()
        except StorageUnavailable as error:
            log.warning("old events not removed, trying again in %g s: %s", HOUSEKEEPING_EVERY_S, error)
        finally:
            self._timers.tell_after(HOUSEKEEPING_EVERY_S, self.me, HousekeepingDue())


def _begin_life(store: EventStore, mailboxes: Mailboxes) -> None:
    """Start with ids that are new to every reader, and move back mailboxes that are beyond the end of the log."""
    store.knew(mailboxes.losses)
    loss = store.begin_life(mailboxes.newest_id, now=utc_now())
    mailboxes.put_back(store.log, loss)
    store.life_began()


def _reader_that_sends(message: _Message) -> AgentId | None:
    """The agent that sent this wait, or whose answer was settled; None for other messages."""
    match message:
        case AwaitEvents(agent_id=agent_id) | AnswerSettled(answer=AnswerId(MailboxKey(agent_id=agent_id))):
            return agent_id
        case _:
            return None
