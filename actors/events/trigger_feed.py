"""TriggerFeed: gives the Spawner the events whose types its triggers name."""

from __future__ import annotations

from ...state.events.store import EventStore
from ...state.models import Event, EventId
from ..agent_facts import LogEndsAt, TriggerEventPublished
from ..runtime.asking import Recipient


class TriggerFeed:
    """spawner: None if there is none."""

    def __init__(self, spawner: Recipient | None, event_types: frozenset[str], store: EventStore) -> None:
        self._spawner = spawner
        self._event_types = event_types
        self._store = store

    def published(self, event: Event) -> None:
        """Give the Spawner a new event, if a trigger names its type."""
        if self._spawner is not None and event.event_type in self._event_types:
            self._spawner.tell(TriggerEventPublished(event=event))

    def repeat(self, since: EventId) -> None:
        """Send the Spawner the events that it may have missed; it skips those that it has handled.

        since: its position. A position that the log has lost moves back to the start of this life of the log.
        """
        if self._spawner is None or not self._event_types:
            return
        place = self._store.place_after_loss(since)
        self._spawner.tell(LogEndsAt(event_id=self._store.newest_id if place == since else place))
        events = [event for event_log in self._store.logs(None) for _, event in event_log.after(0)]
        for event in sorted(events, key=lambda event: event.event_id):
            if event.event_id > place:
                self.published(event)
