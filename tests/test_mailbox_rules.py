"""The mailbox against a plain list that never forgets: nothing lost, nothing twice, in order, every gap reported."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.state.events.log import EventLog, Retention
from sidecar.state.events.mailbox import MAX_DELIVERIES, Mailbox, MailboxKey, new_mailbox
from sidecar.state.models import AgentId, Event, event_id

KEEP = 8
MAX_AGE_S = 100.0
START = datetime(2026, 1, 1, tzinfo=UTC)


def wanted(event: Event) -> bool:
    return event.event_type == "wanted"


class MailboxLosesNothing(RuleBasedStateMachine):
    """The model is the list of wanted events that the client has not surely got yet, with what was ever handed out."""

    @initialize()
    def begin(self) -> None:
        self.now = START
        self.seq = 0
        self.log = EventLog(Retention(max_events=KEEP, max_age_s=MAX_AGE_S))
        key = MailboxKey(
            project_id="p", agent_id=AgentId("a"), event_types=("wanted",), topics=(), filter="", consumer=""
        )
        self.mailbox: Mailbox = new_mailbox(key, self.log, agent_since=START, now=START)
        self.incarnation = 1
        self.owed: list[Event] = []  # wanted, and not taken
        self.in_hand: list[Event] = []  # handed out last, without a verdict that counts
        self.verdict: bool | None = None
        self.acks = False
        self.ever_handed: set[str] = set()
        self.strikes: dict[str, int] = {}
        self.dropped: set[str] = set()  # owed, but gone before they were handed out and taken
        self.told: set[str] = set()  # dropped, and told of in an answer that was taken
        self.telling: set[str] = set()

    @rule(event_type=st.sampled_from(["wanted", "other"]), ttl_s=st.sampled_from([5, 1000]))
    def publish(self, event_type: str, ttl_s: int) -> None:
        self.seq += 3  # ids count the events of all projects
        event = Event(
            event_id=event_id(self.seq),
            project_id="p",
            event_type=event_type,
            publisher="x",
            publisher_type="x",
            topic="t",
            data=msgspec.Raw(b"{}"),
            correlation_id=None,
            priority="normal",
            ttl_s=ttl_s,
            published_at=self.now,
        )
        self.log.append(event)
        self.log.expire(now=self.now)
        if event_type == "wanted":
            self.owed.append(event)

    @rule(seconds=st.sampled_from([1, 6, 60]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    def settle_model(self, taken: bool) -> None:
        if taken:
            self.owed = [event for event in self.owed if event not in self.in_hand]
            self.told |= self.telling
        self.in_hand, self.telling, self.verdict = [], set(), None

    @rule(taken=st.booleans())
    def the_connection_tells_what_became_of_the_answer(self, taken: bool) -> None:
        if self.mailbox.settle(self.mailbox.answers, taken=taken):
            self.verdict = taken

    @rule(limit=st.integers(1, 4), is_proxied=st.booleans())
    def wait(self, limit: int, is_proxied: bool) -> None:
        self.log.expire(now=self.now)
        counts_as_taken = self.verdict if self.verdict is not None else not is_proxied
        self.settle_model(counts_as_taken and not (self.acks and bool(self.in_hand)))
        self.mailbox.begin_wait(self.log, ack=None, is_proxied=is_proxied, now=self.now)
        self.receive(limit)

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data(), limit=st.integers(1, 4))
    def wait_with_ack(self, data: st.DataObject, limit: int) -> None:
        self.log.expire(now=self.now)
        upto = data.draw(st.sampled_from(self.in_hand))
        everything = upto is self.in_hand[-1]
        self.acks = True
        self.owed = [event for event in self.owed if event.event_id > upto.event_id]
        telling = self.telling
        self.in_hand, self.telling, self.verdict = [], set(), None
        if everything:
            self.told |= telling
        self.mailbox.begin_wait(self.log, ack=upto.event_id, is_proxied=False, now=self.now)
        self.receive(limit)

    def receive(self, limit: int) -> None:
        """What is handed out is exactly what the model owes: the oldest that are still there, flags and gap right."""
        self.drop_from_model()
        search = self.mailbox.search(limit=limit)
        while not self.mailbox.look(self.log, search, wanted, now=self.now, until=0.0):
            pass
        deliveries, more = self.mailbox.hand_out(search, incarnation=self.incarnation), search.more
        expected = self.owed[:limit]
        assert [d.event.event_id for d in deliveries] == [e.event_id for e in expected]
        assert more == (len(self.owed) > limit)
        assert [d.redelivered for d in deliveries] == [e.event_id in self.ever_handed for e in expected]
        # What retention took from behind the first event that is left for later is told of with that one.
        unreported = {id_ for id_ in self.dropped - self.told if not more or id_ < self.owed[limit].event_id}
        if unreported:
            assert self.mailbox.gap is not None
            assert self.mailbox.gap.dropped_at_most >= len(unreported)
            assert self.mailbox.gap.from_ <= min(unreported)
            assert self.mailbox.gap.to >= max(unreported)
        if not deliveries:
            # Nobody is answered yet; a time-out tells of the gap.
            self.mailbox.time_out(incarnation=self.incarnation)
        self.in_hand = list(expected)
        self.ever_handed |= {event.event_id for event in expected}
        gap = self.mailbox.gap
        self.telling = {id_ for id_ in self.dropped - self.told if gap is not None and id_ <= gap.to}

    def drop_from_model(self) -> None:
        oldest = self.log.oldest_id

        def is_gone(event: Event) -> bool:
            past_ttl = (self.now - event.published_at).total_seconds() > event.ttl_s
            return oldest is None or event.event_id < oldest or past_ttl

        self.dropped |= {event.event_id for event in self.owed if is_gone(event)}
        self.owed = [event for event in self.owed if not is_gone(event)]

    @rule()
    def the_process_dies_and_the_next_incarnation_runs(self) -> None:
        self.incarnation += 1
        dead = self.mailbox.process_died(incarnation=self.incarnation, may_give_up=lambda place: True)
        letters = []
        for event in self.in_hand:
            self.strikes[event.event_id] = self.strikes.get(event.event_id, 0) + 1
            if self.strikes[event.event_id] >= MAX_DELIVERIES:
                letters.append(event)
        self.owed = [event for event in self.owed if event not in letters]
        assert len(dead) == len(letters)
        self.in_hand, self.telling, self.verdict = [], set(), None

    @rule()
    def the_sidecar_is_killed_and_started_again(self) -> None:
        self.mailbox = msgspec.json.decode(msgspec.json.encode(self.mailbox), type=Mailbox)
        if self.mailbox.handed is not None and self.mailbox.handed.taken is None:
            self.mailbox.handed.taken = False
            self.verdict = False
        retained = [event for _, event in self.log.after(0)]
        again = EventLog(
            Retention(max_events=KEEP, max_age_s=MAX_AGE_S),
            dropped=self.log.dropped,
            last_dropped=self.log.id_at(self.log.dropped),
        )
        for event in retained:
            again.append(event)
        self.log = again

    @invariant()
    def the_log_keeps_the_newest_and_youngest(self) -> None:
        retained = [event for _, event in self.log.after(0)]
        assert len(retained) <= KEEP
        assert [e.event_id for e in retained] == sorted(e.event_id for e in retained)
        assert [self.log.at(place) for place, _ in self.log.after(0)] == retained


TestMailboxLosesNothing = MailboxLosesNothing.TestCase
TestMailboxLosesNothing.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
