"""Answers waiting requests with events: from a mailbox, or from a position that the client keeps.

Answers are collected and leave together after the mailboxes' moves are written (`answers`). Owned by the EventBus,
used only in its thread.

See docs/long-polling.md.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from ...state.clock import utc_now
from ...state.errors import RateLimited
from ...state.events.filter import EventFilter, compile_filter
from ...state.events.log import EventLog
from ...state.events.mailbox import Mailbox, MailboxKey, new_mailbox
from ...state.events.mailboxes import Mailboxes
from ...state.events.search import step_ends
from ...state.models import Event, EventId
from ..messages import AwaitEvents
from ..replies import EventBatch
from ..runtime.asking import Later
from .reading import read_since
from .searches import Searches
from .sources import MailboxSource, ReadingSource, Source
from .waiters import Waiter, Waiters, concerns

log = logging.getLogger(__name__)

MAX_MAILBOXES_PER_AGENT = 256
# A wait whose time is up before its search has ended returns what was found so far. This is more than the search of a
# quarter of a gigabyte takes when many search, and less than the server gives the bus to answer.
LOOK_ON_S = 4.0


class _Verdicts:
    """Which events match which filters: each distinct filter checks an event once, and each event is decoded once."""

    def __init__(self) -> None:
        self._passes: dict[tuple[EventId, str], bool] = {}
        self._decoded: tuple[EventId | None, Any] = (None, None)

    def forget(self) -> None:
        self._passes.clear()

    def passes(self, event: Event, event_filter: EventFilter) -> bool:
        if not event_filter.terms:
            return True
        key = (event.event_id, event_filter.canonical)
        if key not in self._passes:
            if self._decoded[0] != event.event_id:
                self._decoded = (event.event_id, msgspec.json.decode(event.data))
            self._passes[key] = event_filter.matches_data(event, self._decoded[1])
        return self._passes[key]


class WaitingRoom:
    """All requests that wait for events, and the answers to them that have not left yet.

    max_wait_s: the longest wait. log_of: the log of a project. searches: continues long searches.
    """

    def __init__(
        self, mailboxes: Mailboxes, log_of: Callable[[str], EventLog], searches: Searches, *, max_wait_s: float
    ) -> None:
        self._mailboxes = mailboxes
        self._log_of = log_of
        self._searches = searches
        self._max_wait_s = max_wait_s
        self.waiters = Waiters()
        self._answered: list[tuple[Waiter, EventBatch]] = []
        self._owed: set[str] = set()  # agents that these are for
        self._verdicts = _Verdicts()

    def __len__(self) -> int:
        return len(self.waiters)

    def count(self, project_id: str | None) -> int:
        return sum(1 for waiter in self.waiters if project_id in (None, waiter.request.project_id))

    def enter(
        self, request: AwaitEvents, later: Later[EventBatch], *, gone: Callable[[int], None], may_wait: bool
    ) -> None:
        """Search the log for `request`; if nothing is found, wait for events, if it `may_wait`.

        later: answered when `answers` are given. gone: called with the waiter's number, from any thread, when its
        client has gone away.
        """
        event_filter = compile_filter(request.filter)
        event_log = self._log_of(request.project_id)
        now = utc_now()
        event_log.expire(now=now)
        source: Source
        if request.since is not None:
            reading = read_since(event_log, request.since, strict=request.strict)
            source = ReadingSource(reading, event_log, request.event_types)
        else:
            mailbox = self._mailbox(request, event_filter, event_log, now)
            mailbox.begin_wait(event_log, ack=request.ack, is_proxied=request.is_proxied, now=now)
            self._mailboxes.changed(mailbox)
            source = MailboxSource(mailbox, self._mailboxes, event_log)
        timeout_s = min(request.timeout_s, self._max_wait_s) if may_wait else 0.0
        waiter = self.waiters.add(request, later, event_filter, source, time.monotonic() + timeout_s)
        try:
            batch = self._look(waiter, until=step_ends())
            if batch is None and (not may_wait or (timeout_s <= 0 and not waiter.is_searching())):
                batch = self._found_in_time(waiter)
        except Exception:
            self.waiters.remove(waiter.number)
            raise
        if batch is not None:
            self._answer(waiter, batch)
            return
        waiter.gone = gone
        later.add_done_callback(waiter.ended)
        if waiter.is_searching():
            self._searches.add(partial(self._look_on, waiter))

    def matching(self, event: Event, *, until: float) -> list[Waiter]:
        """Waiters whose question matches the event, as far as filters can decide by then (perf_counter seconds).

        The others search for themselves.
        """
        found = []
        for waiter in self.waiters.concerned(event):
            if waiter.event_filter.terms and time.perf_counter() >= until:
                self._search_later(waiter)
            elif self._matches(waiter, event):
                found.append(waiter)
        return found

    def _search_later(self, waiter: Waiter) -> None:
        if not waiter.is_searching() and not waiter.is_superseded:
            waiter.search = waiter.source.search(limit=waiter.request.limit)
            self._searches.add(partial(self._look_on, waiter))

    def _matches(self, waiter: Waiter, event: Event) -> bool:
        if waiter.is_superseded or waiter.later.cancelled():
            return False
        try:
            return self._verdicts.passes(event, waiter.event_filter)
        except Exception as error:
            log.exception("wait failed %s", waiter)
            self._fail(waiter, error)
            return False

    def wake(self, waiter: Waiter, *, until: float) -> bool:
        """Search again for a waiter, at most until then (perf_counter seconds). Returns whether it was answered."""
        if waiter.is_searching():
            return False  # it reaches the event by itself
        try:
            batch = self._look(waiter, until=until)
        except Exception as error:
            log.exception("wait failed %s", waiter)
            self._fail(waiter, error)
            return False
        if batch is not None:
            self._answer(waiter, batch)
        elif waiter.is_searching():
            self._searches.add(partial(self._look_on, waiter))
        return batch is not None

    def _look_on(self, waiter: Waiter, until: float) -> bool:
        """Continue a waiter's search. Returns whether it has ended, for example because of a later wait of the
        mailbox."""
        if not waiter.is_searching() or waiter.is_superseded:
            waiter.search = None
            return True
        try:
            batch = self._look(waiter, until=until)
            if batch is None and not waiter.is_searching() and time.monotonic() >= waiter.deadline:
                batch = waiter.source.timed_out(is_superseded=waiter.is_superseded)
        except Exception as error:
            log.exception("wait failed %s", waiter)
            self._fail(waiter, error)
            return True
        if batch is not None:
            self._answer(waiter, batch)
        return not waiter.is_searching()

    def end_overdue(self, *, now: float) -> None:
        """Answer those whose time is up. now: monotonic seconds."""
        for waiter in self.waiters.overdue(now=now):
            look_until = waiter.deadline + LOOK_ON_S
            if waiter.is_searching() and not waiter.is_superseded and now < look_until:
                self.waiters.prolong(waiter, until=look_until)
            else:
                self._end(waiter)

    def end_all(self) -> int:
        """Answer all waiters as if their time were up. Returns their number."""
        waiters = list(self.waiters)
        for waiter in waiters:
            self._end(waiter)
        return len(waiters)

    def end_of_agent(self, agent_id: str) -> None:
        """The agent's process died: a request that still waits in its name gets nothing."""
        for waiter in self.waiters:
            if waiter.request.agent_id == agent_id and waiter.source.key is not None:
                waiter.is_superseded = True
                self._end(waiter)

    def _end(self, waiter: Waiter) -> None:
        """Answer a waiter as if its time were up."""
        try:
            self._answer(waiter, self._found_in_time(waiter))
        except Exception as error:
            log.exception("wait failed %s", waiter)
            self._fail(waiter, error)

    def _fail(self, waiter: Waiter, error: Exception) -> None:
        """Fail only this wait, not those that are answered with it."""
        self.waiters.remove(waiter.number)
        waiter.later.refuse(error)

    def owes_answer_to(self, agent_id: str) -> bool:
        """Whether an answer for the agent has not left yet."""
        return agent_id in self._owed

    def answers(self) -> list[tuple[Waiter, EventBatch]]:
        """Take the answers that have not left yet; the caller resolves their futures."""
        answered, self._answered = self._answered, []
        self._owed.clear()
        self._verdicts.forget()
        return answered

    def _answer(self, waiter: Waiter, batch: EventBatch) -> None:
        if self.waiters.remove(waiter.number) is not None:
            self._answered.append((waiter, batch))
            self._owed.add(waiter.request.agent_id)

    def _mailbox(self, request: AwaitEvents, event_filter: EventFilter, event_log: EventLog, now: datetime) -> Mailbox:
        key = MailboxKey(
            project_id=request.project_id,
            agent_id=request.agent_id,
            event_types=tuple(sorted(request.event_types)),
            topics=tuple(sorted(request.topics)),
            filter=event_filter.canonical,
            consumer=request.consumer,
        )
        mailbox = self._mailboxes.get(key)
        if mailbox is not None:
            return mailbox
        if self._mailboxes.count_of(request.agent_id, request.project_id) >= MAX_MAILBOXES_PER_AGENT:
            raise RateLimited(
                f"agent {request.agent_id} has {MAX_MAILBOXES_PER_AGENT} mailboxes already; "
                "ask the same questions again, or read with since=",
                limit=MAX_MAILBOXES_PER_AGENT,
                retry_after_s=60,
            )
        agent = self._mailboxes.agents.get(request.agent_id)
        return new_mailbox(key, event_log, agent_since=agent.since if agent else request.agent_since, now=now)

    def _look(self, waiter: Waiter, *, until: float) -> EventBatch | None:
        """The answer for a waiter from the log. None if there is none, or none yet: then its search continues."""
        request, source = waiter.request, waiter.source
        if waiter.search is None and not source.has_news():
            return None  # as for nearly every wait that begins
        search = waiter.search or source.search(limit=request.limit)

        def matches(event: Event) -> bool:
            return concerns(request.event_types, request.topics, event) and self._verdicts.passes(
                event, waiter.event_filter
            )

        is_over = source.look(search, matches, until=until)
        waiter.search = None if is_over else search
        return source.batch(search) if is_over else None

    def _found_in_time(self, waiter: Waiter) -> EventBatch:
        """The events found for a waiter whose time is up, even if its search has not ended: the next wait continues
        it."""
        search, waiter.search = waiter.search, None
        if search is not None and not waiter.is_superseded:
            search.more = bool(search.found)
            if (batch := waiter.source.batch(search)) is not None:
                return batch
        return waiter.source.timed_out(is_superseded=waiter.is_superseded)
