"""Reports for operators: the state of each mailbox, and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from ...state.events.mailbox import Mailbox
from ...state.events.mailboxes import Mailboxes
from ...state.events.store import EventStore
from ..replies import EventNumbers, MailboxStatus
from .counter import EventCounter
from .mailbox_lag import Lags
from .waiting_room import WaitingRoom


class EventReports:
    """Reads the EventBus's state, in its thread."""

    def __init__(
        self,
        store: EventStore,
        mailboxes: Mailboxes,
        room: WaitingRoom,
        counter: EventCounter,
        durability: Literal["os", "commit"],
    ) -> None:
        self._store = store
        self._mailboxes = mailboxes
        self._room = room
        self._counter = counter
        self._durability = durability
        self._lags = Lags()

    def mailboxes(self, project_id: str | None) -> tuple[MailboxStatus, ...]:
        """The mailboxes of a project, or (None) all of them."""
        self._lags.begin()
        return tuple(self._status_of(mailbox) for mailbox in self._of(project_id))

    def stats(self, project_id: str | None) -> EventNumbers:
        """The numbers of a project, or (None) of all together."""
        self._lags.begin()
        return self._counter.stats(
            project_id,
            waiting=self._room.count(project_id),
            lags=[self._lag(mailbox) for mailbox in self._of(project_id)],
            dead_letters=len(self._mailboxes.dead_letters.of_project(project_id)),
            durability=self._durability,
        )

    def forget_unused(self) -> None:
        """Forget the lags of mailboxes that are gone."""
        self._lags.forget({mailbox.key for mailbox in self._mailboxes})

    def _of(self, project_id: str | None) -> Iterator[Mailbox]:
        return (mailbox for mailbox in self._mailboxes if project_id in (None, mailbox.key.project_id))

    def _status_of(self, mailbox: Mailbox) -> MailboxStatus:
        key = mailbox.key
        return MailboxStatus(
            project_id=key.project_id,
            agent_id=key.agent_id,
            event_types=key.event_types,
            topics=key.topics,
            filter=key.filter,
            consumer=key.consumer,
            position=self._store.log(key.project_id).id_at(mailbox.position),
            lag=self._lag(mailbox),
            deliveries=mailbox.deliveries,
            is_waited_on=self._room.waiters.is_waited_on(key),
            gap=mailbox.gap,
            last_used_at=mailbox.last_used_at,
        )

    def _lag(self, mailbox: Mailbox) -> int:
        """The lag of a mailbox; 0 if its agent has ended and reads no more."""
        if self._mailboxes.agents.has_ended(mailbox.key):
            return 0
        return self._lags.of(mailbox, self._store.log(mailbox.key.project_id))
