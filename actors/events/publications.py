"""Publications: events whose publishers are not answered yet, from the log's buffer to the answer."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from ...state.errors import StorageUnavailable
from ...state.events.store import EventStore
from ...state.models import Event
from ..messages import PublishEvent
from ..replies import PublishedEvent
from ..runtime.asking import Later
from .publishing import record_of


class Publication(msgspec.Struct, frozen=True):
    """One event whose publisher is not answered yet. received: perf_counter seconds."""

    later: Later[PublishedEvent]
    received: float


class Publications:
    """Owned by the EventBus, used in its thread alone. retention_s: the longest that an event is retained."""

    def __init__(self, store: EventStore, *, retention_s: int) -> None:
        self._store = store
        self._retention_s = retention_s
        self._uncommitted: list[Publication] = []
        self._answers: list[tuple[Later[PublishedEvent], PublishedEvent]] = []

    @property
    def has_answers(self) -> bool:
        """Whether answers have not left yet."""
        return bool(self._answers)

    def append(self, request: PublishEvent, digest: str | None, later: Later[PublishedEvent]) -> None:
        """Put an event into the log's buffer. Raises StorageUnavailable."""
        self._store.append(record_of(request, digest, retention_s=self._retention_s))
        self._uncommitted.append(Publication(later, time.perf_counter()))

    def commit(self) -> Sequence[tuple[Event, Publication]]:
        """Make the appended events durable and return them in order. If that fails, their publishers get the
        error."""
        if not self._uncommitted:
            return ()
        publications, self._uncommitted = self._uncommitted, []
        try:
            events = self._store.commit()
        except StorageUnavailable as error:
            for publication in publications:
                publication.later.refuse(error)
            return ()
        return tuple(zip(events, publications, strict=True))

    def answer(self, publication: Publication, answer: PublishedEvent) -> None:
        """Have the publisher of a durable event answered with the next `give_answers`."""
        self._answers.append((publication.later, answer))

    def give_answers(self) -> None:
        """Answer the publishers."""
        answers, self._answers = self._answers, []
        for later, answer in answers:
            later.answer(answer)
