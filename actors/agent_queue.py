"""AgentQueue: whose turn it is: agents start by priority, then age, never too many, after those they depend on.

Used in the Spawner's thread. A bucket spreads first starts; restarts have their own limits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..state.errors import QueueFull
from ..state.models import AgentState
from ..supervision.fleet import SpawnBucket, SpawnerOptions
from ..supervision.strategy import may_start
from .agent import HOLDS_SLOT, WAITS, Agent, QueueDue, Role
from .agent_book import AgentBook
from .asking import Recipient
from .timers import Timers

log = logging.getLogger(__name__)

_PRIORITY = {"high": 0, "normal": 1, "low": 2}


class AgentQueue:
    """start: starts a queued agent whose turn has come. is_closed: nobody's turn comes any more."""

    def __init__(
        self, book: AgentBook, options: SpawnerOptions, timers: Timers, me: Recipient, *, start: Callable[[Agent], None]
    ) -> None:
        self.is_closed = False
        self._book = book
        self._max_concurrent = options.max_concurrent
        self._timers = timers
        self._me = me
        self._start = start
        self._is_look_due = False
        self._is_bucket_due = False
        self._max_queued = options.max_queued
        self._max_queued_bytes = int(options.max_queued_mb * 2**20)
        self._is_warned = False
        self._bucket = SpawnBucket(
            per_second=options.spawns_per_second, burst=options.spawn_burst, now=time.monotonic()
        )

    def takes_turn_at_once(self, agent: Agent) -> bool:
        """Whether a new agent starts now; then it has taken its token from the bucket."""
        return (
            self.has_room_for(agent)
            and not any(self._may_start(queued) for queued in self._book.in_state(AgentState.QUEUED))
            and self._bucket.take(now=time.monotonic()) == 0
        )

    def require_room(self, agent: Agent) -> None:
        """Refuse an agent that the queue cannot hold. Raises QueueFull."""
        count, size = self._book.count(*WAITS), self._book.waiting_bytes
        self._warn_when_filling(count, size)
        if 0 < self._max_queued <= count:
            raise QueueFull(
                f"{count} agents are queued, as many as agents.max_queued allows", setting="agents.max_queued"
            )
        if 0 < self._max_queued_bytes < size + agent.request_bytes:
            raise QueueFull(
                f"the tasks and environments of the {count} queued agents take {size / 2**20:.1f} MB,"
                f" agents.max_queued_mb allows {self._max_queued_bytes / 2**20:g}",
                setting="agents.max_queued_mb",
            )

    def _warn_when_filling(self, count: int, size: int) -> None:
        """Once when the queue is half full, and again when it has been less than a quarter full meanwhile."""
        share = max(
            count / self._max_queued if self._max_queued > 0 else 0.0,
            size / self._max_queued_bytes if self._max_queued_bytes > 0 else 0.0,
        )
        if share >= 0.5 and not self._is_warned:
            self._is_warned = True
            log.warning("queue is filling up queued=%d mb=%.1f full_percent=%d", count, size / 2**20, 100 * share)
        elif share < 0.25:
            self._is_warned = False

    def has_room_for(self, agent: Agent) -> bool:
        """Whether it may start, if nobody were before it."""
        return not self.is_closed and self._has_slot and self._may_start(agent)

    def run(self) -> None:
        """Start who is next, as long as there are slots."""
        while not self.is_closed and self._has_slot:
            queued = [agent for agent in self._book.in_state(AgentState.QUEUED) if self._may_start(agent)]
            if not queued:
                return
            agent = min(queued, key=lambda a: (_PRIORITY[a.record.spec.priority], a.record.serial))
            if agent.record.incarnation == 0 and (wait_s := self._bucket.take(now=time.monotonic())) > 0:
                if not self._is_bucket_due:
                    self._is_bucket_due = True
                    self._timers.tell_after(wait_s, self._me, QueueDue(by_bucket=True))
                return
            self._start(agent)

    def look_soon(self) -> None:
        """Not now: what has just changed may change again."""
        if not self._is_look_due:
            self._is_look_due = True
            self._me.tell(QueueDue())

    def due(self, fact: QueueDue) -> None:
        if fact.by_bucket:
            self._is_bucket_due = False
        else:
            self._is_look_due = False
        self.run()

    def waited_for(self) -> frozenset[Role]:
        """On whom those in the queue depend."""
        return frozenset(
            (*agent.role[:2], agent_type)
            for agent in self._book.in_state(AgentState.QUEUED)
            for agent_type in agent.profile.depends_on
        )

    @property
    def _has_slot(self) -> bool:
        return self._book.count(*HOLDS_SLOT) < self._max_concurrent

    def _may_start(self, agent: Agent) -> bool:
        depends_on, issue = agent.profile.depends_on, agent.role[:2]
        return not depends_on or may_start(
            depends_on,
            ((a.role[2], a.record.state) for a in self._book.agents.values() if a.role[:2] == issue),
        )
