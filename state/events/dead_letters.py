"""Dead letters: events that a mailbox gave up on, because its agent died again and again after it took them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from ..errors import NotFound
from ..models import AgentId, Event, EventId
from .log import EventLog, size_of
from .mailbox import MailboxKey

# Dead letters are kept in memory and in the journal, each for itself. An event for which there is no room is given
# again, to later incarnations too.
MAX_DEAD_BYTES = 64 << 20
MAX_DEAD_BYTES_OF_AGENT = 4 << 20  # they are written together, while publishers wait


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, tag="dead_letter"):
    """An event that a mailbox gave up on."""

    event: Event
    mailbox: MailboxKey
    given_up_at: datetime
    replayed_at: datetime | None = None


class DeadLetterRoom:
    """How much more may become dead letters, in bytes. is_full: an event has found no room."""

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


class DeadLetters:
    """All dead letters, one for each event and mailbox."""

    def __init__(self) -> None:
        self._letters: dict[tuple[EventId, MailboxKey], DeadLetter] = {}

    def __len__(self) -> int:
        return len(self._letters)

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter(self._letters.values())

    def put(self, letter: DeadLetter) -> None:
        self._letters[letter.event.event_id, letter.mailbox] = letter

    def of_project(self, project_id: str | None) -> tuple[DeadLetter, ...]:
        """Those that were not replayed, newest first. project_id None: of all projects."""
        letters = [
            letter for letter in self if letter.replayed_at is None and project_id in (None, letter.event.project_id)
        ]
        return tuple(sorted(letters, key=lambda letter: letter.given_up_at, reverse=True))

    def of_event(self, event_id: EventId, project_id: str | None) -> list[DeadLetter]:
        """Those of an event that were not replayed, one for each mailbox. Raises NotFound if there are none."""
        letters = [letter for letter in self.of_project(project_id) if letter.event.event_id == event_id]
        if not letters:
            raise NotFound(f"no dead letter holds event {event_id}", event_id=event_id)
        return letters

    def room_for(self, agent_id: AgentId) -> DeadLetterRoom:
        """The room that is left for mailboxes of one agent."""
        total = sum(size_of(letter.event) for letter in self)
        own = sum(size_of(letter.event) for letter in self if letter.mailbox.agent_id == agent_id)
        return DeadLetterRoom(min(MAX_DEAD_BYTES - total, MAX_DEAD_BYTES_OF_AGENT - own))

    def forget(self, *, before: datetime) -> None:
        """Forget those that were given up before that time."""
        self._letters = {key: letter for key, letter in self._letters.items() if letter.given_up_at >= before}
