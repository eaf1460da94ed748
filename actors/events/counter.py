"""Counts the EventBus's work since the sidecar started, project by project. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import msgspec

from ..replies import EventNumbers


class _Done(msgspec.Struct):
    published: int = 0
    delivered: int = 0
    woken: int = 0
    wake_s: float = 0.0


class EventCounter:
    """Counts events, not answers; a wake is an answer to a request that was waiting when the event came."""

    def __init__(self) -> None:
        self._projects: defaultdict[str, _Done] = defaultdict(_Done)

    def published(self, project_id: str) -> None:
        self._projects[project_id].published += 1

    def delivered(self, project_id: str, events: int) -> None:
        self._projects[project_id].delivered += events

    def woken(self, project_id: str, *, after_s: float) -> None:
        """after_s: from the bus's receipt of the publish to the answer."""
        done = self._projects[project_id]
        done.woken += 1
        done.wake_s += after_s

    def stats(
        self,
        project_id: str | None,
        *,
        waiting: int,
        lags: Sequence[int],
        dead_letters: int,
        durability: Literal["os", "commit"],
    ) -> EventNumbers:
        """For one project, or (None) all of them. lags: of the mailboxes in question."""
        projects = [done for project, done in self._projects.items() if project_id in (None, project)]
        woken = sum(done.woken for done in projects)
        return EventNumbers(
            total_published=sum(done.published for done in projects),
            total_delivered=sum(done.delivered for done in projects),
            active_subscriptions=waiting,
            queue_depth=sum(lags),
            avg_delivery_time_ms=round(sum(done.wake_s for done in projects) / woken * 1000, 3) if woken else 0.0,
            dead_letters=dead_letters,
            durability=durability,
            mailboxes=len(lags),
            max_lag=max(lags, default=0),
        )
