"""All mailboxes, the agents they belong to and the dead letters, on a journal in which the last record wins.

What changes is collected and written in one transaction by `commit`, before the answer that it stands for leaves.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import msgspec

from ..errors import NotFound, StorageUnavailable
from ..journal.journal import Durability, Journal
from ..models import AgentId, Event, EventId
from ..typed import LateDecoder
from .gap import BEGINNING
from .ids import Loss
from .log import EventLog, size_of
from .mailbox import MAX_DELIVERIES, Mailbox, MailboxKey

log = logging.getLogger(__name__)

# Dead letters are kept in memory and in the journal, each for itself. An event for which there is no room is given
# again, to later incarnations too.
MAX_DEAD_BYTES = 64 << 20
MAX_DEAD_BYTES_OF_AGENT = 4 << 20  # they are written together, while publishers wait

# Below this a rewrite is not worth its fdatasync.
_COMPACT_AFTER = 4096


class MailboxRecord(msgspec.Struct, frozen=True, tag="mailbox"):
    mailbox: Mailbox


class MailboxForgotten(msgspec.Struct, frozen=True, tag="mailbox_forgotten"):
    key: MailboxKey


class SubscribedAgent(msgspec.Struct, frozen=True, kw_only=True, tag="agent"):
    """An agent that is supervised: its profile's topics, when it was first spawned, which incarnation runs."""

    agent_id: AgentId
    project_id: str
    topics: frozenset[str]
    since: datetime
    incarnation: int
    ended_at: datetime | None = None


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, tag="dead_letter"):
    """An event that a mailbox gave up on, since the agent died after taking it, again and again."""

    event: Event
    mailbox: MailboxKey
    given_up_at: datetime
    replayed_at: datetime | None = None


class _Room:
    """How much more may become dead letters, in bytes."""

    def __init__(self, left: int) -> None:
        self._left = left
        self.is_full = False

    def takes(self, event_log: EventLog, place: int) -> bool:
        """Whether there is room for the event at a place; one that was dropped needs none."""
        size = size_of(event_log.at(place)) if place > event_log.dropped else 0
        if size > self._left:
            self.is_full = True
            return False
        self._left -= size
        return True


_Record = MailboxRecord | MailboxForgotten | SubscribedAgent | DeadLetter | Loss


class Mailboxes:
    """The one place where mailboxes live. Times are aware UTC."""

    def __init__(self, directory: Path) -> None:
        # A lost move costs a redelivery that says so, never an event: the kernel's copy is enough.
        self.journal = Journal.open(directory, durability=Durability.OS)
        self._mailboxes: dict[MailboxKey, Mailbox] = {}
        self._of_agent: dict[AgentId, dict[MailboxKey, Mailbox]] = {}
        self._agents: dict[AgentId, SubscribedAgent] = {}
        # Who runs, by project and topic: thousands may have ended, and each publish asks.
        self._subscribed: defaultdict[tuple[str, str], set[AgentId]] = defaultdict(set)
        self._dead: dict[tuple[EventId, MailboxKey], DeadLetter] = {}
        self._losses: tuple[Loss, ...] = ()
        self._changed: dict[MailboxKey, Mailbox] = {}
        self._unwritten: list[_Record] = []
        self._records = 0
        reader: LateDecoder[_Record] = LateDecoder(_Record)
        for entry in self.journal.entries():
            self._records += 1
            self._apply(reader.decode(entry.record))
        for mailbox in self._mailboxes.values():
            # Nobody can tell any more what became of the last answer, so it is given again, and says so.
            if mailbox.handed is not None and mailbox.handed.taken is None:
                mailbox.handed.taken = False

    def __iter__(self) -> Iterator[Mailbox]:
        return iter(self._mailboxes.values())

    def _apply(self, record: _Record) -> None:
        match record:
            case MailboxRecord(mailbox):
                self._keep(mailbox)
            case MailboxForgotten(key):
                self._mailboxes.pop(key, None)
                self._of_agent.get(key.agent_id, {}).pop(key, None)
            case SubscribedAgent():
                self._keep_agent(record)
            case DeadLetter(event=event, mailbox=key):
                self._dead[(event.event_id, key)] = record
            case Loss():
                self._losses += (record,)

    def _keep(self, mailbox: Mailbox) -> None:
        self._mailboxes[mailbox.key] = mailbox
        self._of_agent.setdefault(mailbox.key.agent_id, {})[mailbox.key] = mailbox

    def _keep_agent(self, agent: SubscribedAgent) -> None:
        before, self._agents[agent.agent_id] = self._agents.get(agent.agent_id), agent
        if before is not None:
            for topic in before.topics:
                self._subscribed[before.project_id, topic].discard(before.agent_id)
        if agent.ended_at is None:
            for topic in agent.topics:
                self._subscribed[agent.project_id, topic].add(agent.agent_id)

    def _write(self, record: _Record) -> None:
        self._apply(record)
        self._unwritten.append(record)

    # A log that lost events

    @property
    def losses(self) -> tuple[Loss, ...]:
        """The losses of the log that may concern a reader, oldest first."""
        return self._losses

    @property
    def newest_id(self) -> EventId:
        """The newest event that any mailbox was given or has given up."""
        return max(
            (*(mailbox.newest_id for mailbox in self), *(event_id for event_id, _ in self._dead)), default=BEGINNING
        )

    def put_back(self, log_of: Callable[[str], EventLog], loss: Loss | None) -> None:
        """Put every mailbox back into its log, and give each the gap of a loss that was just noticed.

        On the disk when this returns, synced where there is a loss, unless the disk is full.
        """
        moved = 0
        for mailbox in self._mailboxes.values():
            is_moved = mailbox.put_back(log_of(mailbox.key.project_id))
            moved += is_moved
            if loss is not None:
                mailbox.add_gap(loss.gap())
            if is_moved or loss is not None:
                self.changed(mailbox)
        if loss is not None:
            self._write(loss)
            log.warning(
                "event log lost its newest events after=%s at_most=%d: %d of %d mailboxes put back, readers are told",
                loss.after,
                loss.lost_at_most,
                moved,
                len(self._mailboxes),
            )
        self.commit(durably=loss is not None)

    # Mailboxes

    def get(self, key: MailboxKey) -> Mailbox | None:
        return self._mailboxes.get(key)

    def count_of(self, agent_id: AgentId, project_id: str) -> int:
        return sum(1 for key in self._of_agent.get(agent_id, {}) if key.project_id == project_id)

    def changed(self, mailbox: Mailbox) -> None:
        """Have the mailbox's state written by the next commit, as it is then."""
        self._keep(mailbox)
        self._changed[mailbox.key] = mailbox

    # Agents

    def agent(self, agent_id: AgentId) -> SubscribedAgent | None:
        return self._agents.get(agent_id)

    def has_ended(self, key: MailboxKey) -> bool:
        """Whether the mailbox's agent was supervised and has ended."""
        agent = self._agents.get(key.agent_id)
        return agent is not None and agent.project_id == key.project_id and agent.ended_at is not None

    def incarnation(self, agent_id: AgentId) -> int:
        """Which incarnation of the agent runs; 0 for one that nobody supervises."""
        agent = self._agents.get(agent_id)
        return agent.incarnation if agent is not None else 0

    def agent_runs(self, agent: SubscribedAgent, log_of: Callable[[str], EventLog], *, now: datetime) -> None:
        """A new incarnation runs: what the one before took without an ack is given again, or becomes a dead letter."""
        self._write(agent)
        room = self._room_for_dead_letters(agent.agent_id)
        for mailbox in self._of_agent.get(agent.agent_id, {}).values():
            event_log = log_of(mailbox.key.project_id)
            for place in mailbox.process_died(
                incarnation=agent.incarnation, may_give_up=partial(room.takes, event_log)
            ):
                if place > event_log.dropped:
                    self._write(DeadLetter(event=event_log.at(place), mailbox=mailbox.key, given_up_at=now))
                    log.warning(
                        "event became a dead letter event_id=%s agent_id=%s deliveries=%d",
                        event_log.at(place).event_id,
                        agent.agent_id,
                        MAX_DELIVERIES,
                    )
            self.changed(mailbox)
        if room.is_full:
            log.warning(
                "agent has too many dead letters, the rest is given again agent_id=%s max_bytes=%d",
                agent.agent_id,
                MAX_DEAD_BYTES_OF_AGENT,
            )

    def _room_for_dead_letters(self, agent_id: AgentId) -> _Room:
        everybodys = sum(size_of(letter.event) for letter in self._dead.values())
        own = sum(size_of(letter.event) for letter in self._dead.values() if letter.mailbox.agent_id == agent_id)
        return _Room(min(MAX_DEAD_BYTES - everybodys, MAX_DEAD_BYTES_OF_AGENT - own))

    def agent_ended(self, agent_id: AgentId, *, now: datetime) -> None:
        agent = self._agents.get(agent_id)
        if agent is not None and agent.ended_at is None:
            self._write(msgspec.structs.replace(agent, ended_at=now))

    def subscribers(self, event: Event, waiting: Iterable[AgentId]) -> tuple[AgentId, ...]:
        """Agents of the project that wait for the event or whose profile subscribes to its topic, sorted."""
        return tuple(sorted({*waiting, *self._subscribed.get((event.project_id, event.topic), ())}))

    # Dead letters

    def dead_letters(self, project_id: str | None) -> tuple[DeadLetter, ...]:
        """The dead letters that were not replayed, newest first."""
        letters = [
            letter
            for letter in self._dead.values()
            if letter.replayed_at is None and project_id in (None, letter.event.project_id)
        ]
        return tuple(sorted(letters, key=lambda letter: letter.given_up_at, reverse=True))

    def replay(self, event_id: EventId, project_id: str | None, *, now: datetime) -> int:
        """Give a dead letter again to every mailbox that gave up on it; returns how many. Raises NotFound."""
        letters = [letter for letter in self.dead_letters(project_id) if letter.event.event_id == event_id]
        if not letters:
            raise NotFound(f"no dead letter holds event {event_id}", event_id=event_id)
        for letter in letters:
            self._write(msgspec.structs.replace(letter, replayed_at=now))
            mailbox = self._mailboxes.get(letter.mailbox)
            if mailbox is not None:
                mailbox.replays.append(letter.event)
                self.changed(mailbox)
        return len(letters)

    # The journal

    def forget_unused(self, *, since: datetime) -> None:
        """Forget mailboxes, ended agents and dead letters that nobody has touched since then."""
        for mailbox in [m for m in self if m.last_used_at < since]:
            self._changed.pop(mailbox.key, None)
            self._write(MailboxForgotten(mailbox.key))
        self._agents = {i: a for i, a in self._agents.items() if a.ended_at is None or a.ended_at >= since}
        self._dead = {i: d for i, d in self._dead.items() if d.given_up_at >= since}
        self._losses = tuple(loss for loss in self._losses if loss.noticed_at >= since)

    def commit(self, *, durably: bool = False) -> None:
        """Write what has changed. On a full disk the mailboxes go on in memory: after a crash they would redeliver.

        durably: it survives a power loss; the whole journal is rewritten for that.
        """
        records = [*self._unwritten, *(MailboxRecord(mailbox) for mailbox in self._changed.values())]
        if not records:
            return
        self._unwritten, self._changed = [], {}
        try:
            self.journal.append([msgspec.json.encode(record) for record in records])
            self.journal.commit()
            self._records += len(records)
            if durably or self._is_long():
                self._compact()
        except StorageUnavailable as error:
            log.warning("mailbox places not written records=%d: %s", len(records), error)

    def _is_long(self) -> bool:
        """Whether the journal says so much that is out of date that a rewrite is worth it."""
        live = len(self._mailboxes) + len(self._agents) + len(self._dead)
        return self._records > _COMPACT_AFTER + 4 * live

    def _compact(self) -> None:
        everything: list[_Record] = [*self._losses, *self._agents.values(), *self._dead.values()]
        everything += [MailboxRecord(mailbox) for mailbox in self]
        self.journal.compact(msgspec.json.encode(record) for record in everything)
        self._records = len(everything)

    def close(self) -> None:
        self.commit()
        self.journal.close()
