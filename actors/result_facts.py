"""What the ResultStore tells itself, from its timers, the bus's answers and the thread that compacts."""

from __future__ import annotations

from dataclasses import dataclass

from ..state.models import EventId
from .asking import Fact


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultAnnounced(Fact):
    """The bus answered about the event of the result at this place; error: why it is not published, or None."""

    place: int
    event_id: EventId | None
    error: BaseException | None = None


class TimeToAnnounce(Fact):
    """Publish the events of results that are not known to be published yet."""

    __slots__ = ()


class TimeToSettle(Fact):
    """No result came for a moment: commit what could wait."""

    __slots__ = ()


class TimeToForget(Fact):
    """Delete results that are older than they are to be kept."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsCompacted(Fact):
    """The snapshot that stands for all records up to `at` is written, or (error) is not."""

    at: int
    error: BaseException | None = None


ResultFact = ResultAnnounced | TimeToAnnounce | TimeToSettle | TimeToForget | ResultsCompacted
