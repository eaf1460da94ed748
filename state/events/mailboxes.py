"""All mailboxes, the agents they belong to and the dead letters, on a journal in which the last record wins.

Changes are collected and written in one transaction by `commit`, before the answers that depend on them leave.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import msgspec

from ..errors import StorageUnavailable
from ..journal.ledger import Ledger
from ..models import AgentId, EventId
from .dead_letters import MAX_DEAD_BYTES_OF_AGENT, DeadLetter, DeadLetters
from .gap import BEGINNING
from .ids import Loss
from .log import EventLog
from .mailbox import MAX_DELIVERIES, Mailbox, MailboxKey
from .subscribed_agents import SubscribedAgent, SubscribedAgents

log = logging.getLogger(__name__)


class MailboxRecord(msgspec.Struct, frozen=True, tag="mailbox"):
    """A mailbox as it stands now."""

    mailbox: Mailbox


class MailboxForgotten(msgspec.Struct, frozen=True, tag="mailbox_forgotten"):
    """A mailbox that is gone, because nobody used it for long."""

    key: MailboxKey


_Record = MailboxRecord | MailboxForgotten | SubscribedAgent | DeadLetter | Loss


class Mailboxes:
    """Every mailbox, with the agents that read them. Times are aware UTC.

    losses: those of the log that may concern a reader, oldest first. journal: for the caller that syncs it.
    """

    def __init__(self, directory: Path) -> None:
        self.agents = SubscribedAgents()
        self.dead_letters = DeadLetters()
        self.losses: tuple[Loss, ...] = ()
        self._mailboxes: dict[MailboxKey, Mailbox] = {}
        self._of_agent: dict[AgentId, dict[MailboxKey, Mailbox]] = {}
        self._changed: dict[MailboxKey, Mailbox] = {}
        self._unwritten: list[_Record] = []
        # A lost move costs a redelivery that says so, never an event: the kernel's copy is enough.
        self._ledger: Ledger[_Record] = Ledger(directory, _Record)
        self.journal = self._ledger.journal
        for record in self._ledger.entries():
            self._apply(record)
        for mailbox in self._mailboxes.values():
            # The fate of the last answer is no longer known, so it is delivered again, and marked.
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
                self.agents.put(record)
            case DeadLetter():
                self.dead_letters.put(record)
            case Loss():
                self.losses += (record,)

    def _keep(self, mailbox: Mailbox) -> None:
        self._mailboxes[mailbox.key] = mailbox
        self._of_agent.setdefault(mailbox.key.agent_id, {})[mailbox.key] = mailbox

    def _write(self, record: _Record) -> None:
        self._apply(record)
        self._unwritten.append(record)

    # A log that lost events

    @property
    def newest_id(self) -> EventId:
        """The newest event that any mailbox was given or has given up."""
        given_up = (letter.event.event_id for letter in self.dead_letters)
        return max((*(mailbox.newest_id for mailbox in self), *given_up), default=BEGINNING)

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

    def agent_runs(self, agent: SubscribedAgent, log_of: Callable[[str], EventLog], *, now: datetime) -> None:
        """A new incarnation runs: events that the previous one took without an ack are delivered again, or become
        dead letters."""
        self._write(agent)
        room = self.dead_letters.room_for(agent.agent_id)
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

    def agent_ended(self, agent_id: AgentId, *, now: datetime) -> None:
        agent = self.agents.get(agent_id)
        if agent is not None and agent.ended_at is None:
            self._write(msgspec.structs.replace(agent, ended_at=now))

    # Dead letters

    def replay(self, event_id: EventId, project_id: str | None, *, now: datetime) -> int:
        """Give a dead letter again to every mailbox that gave up on it; returns how many. Raises NotFound."""
        letters = self.dead_letters.of_event(event_id, project_id)
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
        self.agents.forget(before=since)
        self.dead_letters.forget(before=since)
        self.losses = tuple(loss for loss in self.losses if loss.noticed_at >= since)

    def commit(self, *, durably: bool = False) -> None:
        """Write the changes. On a full disk, the mailboxes continue in memory; after a crash they would redeliver.

        durably: it survives a power loss; the whole journal is rewritten for that.
        """
        records = [*self._unwritten, *(MailboxRecord(mailbox) for mailbox in self._changed.values())]
        if not records:
            return
        self._unwritten, self._changed = [], {}
        try:
            self._ledger.write(records)
            if durably:
                self._ledger.rewrite(self._everything())
            else:
                live = len(self._mailboxes) + len(self.agents) + len(self.dead_letters)
                self._ledger.rewrite_if_long(live, self._everything)
        except StorageUnavailable as error:
            log.warning("mailbox places not written records=%d: %s", len(records), error)

    def _everything(self) -> Iterator[_Record]:
        yield from self.losses
        yield from self.agents
        yield from self.dead_letters
        yield from (MailboxRecord(mailbox) for mailbox in self)

    def close(self) -> None:
        self.commit()
        self._ledger.close()
