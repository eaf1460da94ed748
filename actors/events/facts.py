"""Facts that the EventBus receives from its timers, its waiters' connections and the syncing thread."""

from __future__ import annotations

from ..runtime.asking import Fact


class WaiterGone(Fact, frozen=True):
    """The client of a waiting request has gone away."""

    number: int


class DeadlineReached(Fact, frozen=True):
    """The earliest deadline of a waiter has come."""


class SearchesDue(Fact, frozen=True):
    """Time to continue searches; messages that came meanwhile were handled."""


class HousekeepingDue(Fact, frozen=True):
    """Time to drop events beyond retention."""


class SyncDue(Fact, frozen=True):
    """Time to sync the journals."""


class SyncEnded(Fact, frozen=True):
    """A sync in the background has ended, or has failed."""


EventBusFact = WaiterGone | DeadlineReached | SearchesDue | HousekeepingDue | SyncDue | SyncEnded
