"""Facts that the ResultStore sends itself, from its timers, the bus's answers and the compacting thread."""

from __future__ import annotations

from ...state.models import EventId
from ..runtime.asking import Fact


class ResultAnnounced(Fact, frozen=True, kw_only=True):
    """The bus answered about the event of the result at this place; error: why it is not published, or None."""

    place: int
    event_id: EventId | None
    error: BaseException | None = None


class TimeToAnnounce(Fact, frozen=True):
    """Publish the events of results that are not known to be published yet."""


class TimeToSettle(Fact, frozen=True):
    """No result came for a moment: commit what could wait."""


class TimeToForget(Fact, frozen=True):
    """Delete results beyond their retention."""


class ResultsCompacted(Fact, frozen=True, kw_only=True):
    """The snapshot that stands for all records up to `at` is written, or (error) is not."""

    at: int
    error: BaseException | None = None


ResultFact = ResultAnnounced | TimeToAnnounce | TimeToSettle | TimeToForget | ResultsCompacted
