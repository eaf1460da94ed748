"""A mailbox: one question of one agent, with its own position in the log. Pure; it costs a few integers and no queue.

The rules are those of the protocol, "Mailboxes": events that were scanned or taken are behind `place`. Events that
were handed out but not settled are in `handed`; they are delivered again if they were lost, or if the process that
took them died.

See docs/guarantees.md.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from datetime import datetime

import msgspec

from ..models import AgentId, Event, EventId
from .gap import BEGINNING, EventGap
from .log import EventLog
from .search import Search

MAX_DELIVERIES = 5  # to incarnations that perhaps died of it; then the event is a dead letter


class MailboxKey(msgspec.Struct, frozen=True, kw_only=True):
    """The question of a wait. Types and topics are sorted; the filter is in canonical form."""

    project_id: str
    agent_id: AgentId
    event_types: tuple[str, ...]
    topics: tuple[str, ...]
    filter: str
    consumer: str


class Handed(msgspec.Struct, kw_only=True):
    """The answer given last: its events' places, and the place reached by scanning for them.

    taken: the connection's verdict; None without one. replays: dead letters that went with it.
    """

    number: int
    places: tuple[int, ...]
    ids: tuple[EventId, ...]
    reached: int
    reached_id: EventId
    incarnation: int
    taken: bool | None = None
    replays: list[Event] = []


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event as it is handed out. replayed: it is older than the agent. redelivered: it was handed out before."""

    event: Event
    replayed: bool = False
    redelivered: bool = False


class Mailbox(msgspec.Struct, kw_only=True):
    """The state of one mailbox; encodes to JSON as it is.

    agent_since: when the agent was first spawned. acks: the client uses `ack=`, so nothing less counts as taken.
    given_up_to: the highest place ever handed out. struck: per place, how many incarnations died after taking it.
    skipped: places that became dead letters. expired: places past their ttl that the gap counts already.
    replays: dead letters that an operator wants given again.
    """

    key: MailboxKey
    place: int
    place_id: EventId
    agent_since: datetime
    last_used_at: datetime
    acks: bool = False
    given_up_to: int = 0
    deliveries: int = 0
    answers: int = 0
    handed: Handed | None = None
    gap: EventGap | None = None
    gap_was_told: bool = False
    struck: dict[int, int] = {}
    skipped: frozenset[int] = frozenset()  # not sets: ten thousand mailboxes share the one that is empty
    expired: frozenset[int] = frozenset()
    replays: list[Event] = []

    @property
    def position(self) -> int:
        """Everything up to this place is known to be taken."""
        return self.handed.reached if self.handed is not None and self.handed.taken else self.place

    def begin_wait(self, log: EventLog, *, ack: EventId | None, is_proxied: bool, now: datetime) -> None:
        """Settle the previous answer, now that the next wait has come.

        ack: the newest event that the client has handled. is_proxied: the connection cannot see the fate of an
        answer, so an answer without a verdict counts as lost.
        """
        self.last_used_at = now
        handed, self.handed = self.handed, None
        if ack is not None:
            self.acks = True
            self._acknowledge(ack, handed, log)
            return
        if handed is None:
            return
        if handed.taken is None:
            handed.taken = not is_proxied
        if handed.taken and not (self.acks and handed.places):
            self._move_to(handed.reached, handed.reached_id)
            self._forget_told_gap()
        else:
            self.replays = handed.replays + self.replays

    def _acknowledge(self, ack: EventId, handed: Handed | None, log: EventLog) -> None:
        if handed is None or not handed.ids:
            # No more than was handed out: an invented id must not skip events that the client has never seen.
            if log.retains(ack):
                place = min(log.place_of(ack), max(self.given_up_to, self.place))
                self._move_to(place, log.id_at(place))
            return
        if ack >= handed.ids[-1]:
            self._move_to(handed.reached, handed.reached_id)
            self._forget_told_gap()
            return
        # The answer's own ids, since the log may have dropped some of its events meanwhile.
        acked = bisect.bisect_right(handed.ids, ack)
        if acked:
            self._move_to(handed.places[acked - 1], handed.ids[acked - 1])
        self.replays = handed.replays + self.replays

    def settle(self, number: int, *, taken: bool) -> bool:
        """The verdict on answer `number`; False if it is not the last one, and so no longer matters."""
        if self.handed is None or self.handed.number != number:
            return False
        self.handed.taken = taken
        return True

    def process_died(self, *, incarnation: int, may_give_up: Callable[[int], bool]) -> tuple[int, ...]:
        """Incarnation `incarnation` runs now: events that its predecessor took without an ack are delivered again.

        Returns the places that thereby became dead letters. may_give_up: whether the event at a place may become one.
        """
        if self.handed is None or self.handed.incarnation >= incarnation:
            return ()
        handed, self.handed = self.handed, None
        self.replays = handed.replays + self.replays
        dead = []
        for place in handed.places:
            self.struck[place] = self.struck.get(place, 0) + 1
            if self.struck[place] >= MAX_DELIVERIES and may_give_up(place):
                self.skipped |= {place}
                dead.append(place)
        return tuple(dead)

    def search(self, *, limit: int) -> Search:
        """A search for the next events for this mailbox; `look` goes on with it."""
        return Search(place=self.place, place_id=self.place_id, limit=limit)

    def look(
        self, log: EventLog, search: Search, matches: Callable[[Event], bool], *, now: datetime, until: float
    ) -> bool:
        """Continue a search, at most until then (perf_counter seconds). Returns whether it has ended.

        As long as nothing is found, the mailbox's place moves behind the searched events.
        """
        gap = search.missed(log)
        if gap is not None:
            self.add_gap(gap)
            if not search.found:
                self._move_to(search.place, search.place_id)
        skipped = self.skipped

        def wants(place: int, event: Event) -> bool:
            if place in skipped or not matches(event):
                return False
            if log.is_past_ttl(place, now=now):
                self._count_expired(place, event)
                return False
            return True

        is_over = search.step(log, self.key.event_types, wants, until=until)
        if not search.found:
            self._move_to(search.place, search.place_id)
        return is_over

    def hand_out(self, search: Search, *, incarnation: int) -> tuple[Delivery, ...]:
        """The events that were found, oldest first. None, and no dead letters either: there is nothing to settle."""
        found = search.found
        replays, self.replays = self.replays, []
        if not found and not replays:
            return ()
        deliveries = [Delivery(event=event, redelivered=True) for event in replays]
        deliveries += [
            Delivery(
                event=event,
                replayed=event.published_at < self.agent_since,
                redelivered=place <= self.given_up_to,
            )
            for place, event in found
        ]
        self.answers += 1
        self.deliveries += len(deliveries)
        self.given_up_to = max(self.given_up_to, *(place for place, _ in found), 0)
        self.handed = Handed(
            number=self.answers,
            places=tuple(place for place, _ in found),
            ids=tuple(event.event_id for _, event in found),
            reached=search.reached,
            reached_id=search.reached_id,
            incarnation=incarnation,
            replays=replays,
        )
        self.gap_was_told = self.gap is not None
        return tuple(deliveries)

    def time_out(self, *, incarnation: int) -> int:
        """An answer without events. It has to be settled only if it has a gap. Returns its number."""
        self.answers += 1
        if self.gap is not None:
            self.gap_was_told = True
            self.handed = Handed(
                number=self.answers,
                places=(),
                ids=(),
                reached=self.place,
                reached_id=self.place_id,
                incarnation=incarnation,
            )
        return self.answers

    def put_back(self, log: EventLog) -> bool:
        """Move behind the last event taken that the log still has; return whether that is another place.

        A log that lost its newest events gives their places to other events, and the log of a project without
        retained events starts again at the first place. Ids are never used twice: they show the position of the
        mailbox.
        """
        last_place = log.last_place
        handed = self.handed
        is_off = not log.has(self.place, self.place_id)
        if handed is not None and (is_off or not log.has(handed.reached, handed.reached_id)):
            is_off = True
            self.handed = None
            if handed.taken:
                self.place_id = max(self.place_id, handed.reached_id)
            else:
                self.replays = handed.replays + self.replays
        if is_off:
            self.place = log.place_of(self.place_id)
            self.place_id = log.id_at(self.place)
        if is_off or self.given_up_to > last_place:
            self.given_up_to = min(self.given_up_to, last_place)
            self.struck = {p: n for p, n in self.struck.items() if self.place < p <= last_place}
            self.skipped = frozenset(p for p in self.skipped if self.place < p <= last_place)
            self.expired = frozenset(p for p in self.expired if self.place < p <= last_place)
        return is_off

    @property
    def newest_id(self) -> EventId:
        """The newest event that it was given or has skipped."""
        return self.place_id if self.handed is None else max(self.place_id, self.handed.reached_id)

    def _move_to(self, place: int, event_id: EventId) -> None:
        if place <= self.place:
            return
        self.place, self.place_id = place, event_id
        if self.struck or self.skipped or self.expired:
            self.struck = {p: n for p, n in self.struck.items() if p > self.place}
            self.skipped = frozenset(p for p in self.skipped if p > self.place)
            self.expired = frozenset(p for p in self.expired if p > self.place)

    def _count_expired(self, place: int, event: Event) -> None:
        if place not in self.expired:
            self.expired |= {place}
            self.add_gap(EventGap(from_=event.event_id, to=event.event_id, dropped_at_most=1, reason="ttl"))

    def add_gap(self, gap: EventGap) -> None:
        """Add a gap to the next answers, until one is taken."""
        self.gap = gap if self.gap is None else self.gap.joined(gap)
        self.gap_was_told = False

    def _forget_told_gap(self) -> None:
        if self.gap_was_told:
            self.gap = None
            self.gap_was_told = False


def new_mailbox(key: MailboxKey, log: EventLog, *, agent_since: datetime, now: datetime) -> Mailbox:
    """A mailbox that starts before the oldest retained event, so a dependency that has already completed is found."""
    place_id = log.id_at(log.dropped) if log.dropped else BEGINNING
    return Mailbox(
        key=key,
        place=log.dropped,
        place_id=place_id,
        agent_since=agent_since,
        last_used_at=now,
        gap=log.missing.lost_after(place_id),
    )
